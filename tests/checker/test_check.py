"""Checking a registry: what is found, where, by which rule; and that nothing a file may hold breaks the check."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from forge_otel.checker.check import check
from forge_otel.checker.findings import RULES, NoRegistryError, RegistryError
from forge_otel.checker.load import load

MANIFEST = "schema_url: https://example.org/schemas/1.2.3\n"
REGISTRIES = Path(__file__).parent / "registries"
RULE_FILES = {str(path.relative_to(REGISTRIES).with_suffix("")): path for path in sorted(REGISTRIES.rglob("*.yaml"))}
"""A file for each rule. A comment `# ^ RULE: MESSAGE` tells what is found in the nearest line above that is no such
comment, at least how the message begins."""

D = "stability: development"
ON_METRICS = "annotations: {forge: {on_metrics: true}}"
NAME = f"{{key: pump.name, type: string, brief: The pump., {D}, examples: [main], {ON_METRICS}}}"
ID = f"{{key: pump.id, type: int, brief: The id., {D}}}"


def metric(name: str, attributes: str = "") -> str:
    return (
        f"metrics: [{{name: {name}, instrument: counter, unit: '{{x}}', brief: It., {D}, attributes: [{attributes}]}}]"
    )


def lines(directory: Path) -> list[str]:
    """The findings, with the names of files from the directory."""
    return [str(finding).removeprefix(f"{directory}/") for finding in check(directory).findings]


def found(directory: Path, *text: str | bytes) -> list[str]:
    """What is found in a file that has these lines, from the second one on. It is left there."""
    (directory / "manifest.yaml").write_text(MANIFEST)
    parts = [line if isinstance(line, bytes) else line.encode() for line in ("file_format: definition/2", *text)]
    (directory / "pump.yaml").write_bytes(b"\n".join(parts))
    return lines(directory)


@pytest.mark.slow
def test_the_registry_of_forge_keeps_all_rules() -> None:
    assert [str(finding) for finding in check().findings] == []
    assert load().version == "0.2.0"


def test_a_small_registry(tmp_path: Path) -> None:
    assert found(tmp_path, f"attributes: [{NAME}]", metric("pump.strokes", "{ref: pump.name}")) == []
    registry = load(tmp_path)
    assert registry.schema_url == "https://example.org/schemas/1.2.3"
    assert registry.components == ("pump",)
    (reference,) = registry.metrics["pump.strokes"].attributes
    assert reference.attribute is registry.attributes["pump.name"]


@pytest.mark.parametrize("text", [None, "file_format: definition/2", "file_format: definition/2\nmetrics: []"])
def test_a_registry_that_defines_nothing(text: str | None, tmp_path: Path) -> None:
    (tmp_path / "manifest.yaml").write_text(MANIFEST)
    if text is not None:
        (tmp_path / "pump.yaml").write_text(text)

    message = f"registry/empty: defines nothing, neither here nor in other files of {tmp_path}"
    assert lines(tmp_path) == [f"manifest.yaml:1: {message}"]
    with pytest.raises(RegistryError):
        load(tmp_path)


def expected_findings(path: Path) -> list[tuple[int, str]]:
    expected, above = [], 0
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.lstrip().startswith("# ^ "):
            expected.append((above, line.lstrip().removeprefix("# ^ ")))
        else:
            above = number
    return sorted(expected)


@pytest.mark.parametrize("rule", RULE_FILES)
def test_a_rule(rule: str, tmp_path: Path) -> None:
    path = RULE_FILES[rule]
    (tmp_path / "manifest.yaml").write_text(MANIFEST)
    shutil.copy(path, tmp_path)
    expected = [f"{path.name}:{line}: {text}" for line, text in expected_findings(path)]
    assert any(f": {rule}: " in line for line in expected)
    said = [line.replace(str(tmp_path), "DIRECTORY") for line in lines(tmp_path)]
    assert len(said) == len(expected), said
    for line, beginning in zip(said, expected, strict=True):
        assert line.startswith(beginning)


BOMB = ["a0: &a0 [x, x, x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 40))]
MANY_REFERENCES = [
    "attributes:",
    *(f"  - {{key: pump.a{n}, type: int, brief: It., {D}}}" for n in range(1000)),
    "attribute_groups:",
    "  - id: all",
    "    visibility: internal",
    "    attributes:",
    *(f"      - {{ref: pump.a{n}}}" for n in range(1000)),
    *(f"  - {{id: all{n}, visibility: internal, attributes: [{{ref_group: all}}]}}" for n in range(1000)),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (["#" * (1 << 20)], "1: file/size: larger than 1048576 bytes"),
        (BOMB, "7: file/size: more than 100000 values with all aliases expanded"),
        (["events: &a [*a]"], "2: yaml/syntax: an alias stands inside the value that it names"),
        (["events: " + "[" * 100_000], "2: yaml/depth: nested more than 32 deep"),
        (
            ["a0: &a0 [x]", *(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 100))],
            "33: yaml/depth: nested more than 32 deep",
        ),
        (MANY_REFERENCES, "2106: reference/size: more than 100000 attributes up to here"),
        (["attributes: [", "  {key: pump"], "3: yaml/syntax: while parsing a flow mapping from line 3 on, "),
        (["\tattributes: []"], "2: yaml/syntax: while scanning"),
        ([f"{'x' * 1000}: 1"], "2: structure: there is no field '" + "x" * 56 + "…; there are"),
        ([f"events: 1{'0' * 5000}"], "2: yaml/number: '1000"),
    ],
    ids=lambda value: value.partition(":")[2][:30] if isinstance(value, str) else "",
)
def test_input_that_is_meant_to_hurt(text: list[str], expected: str, tmp_path: Path) -> None:
    assert found(tmp_path, *text)[-1].startswith(f"pump.yaml:{expected}")


def test_every_rule_is_tested() -> None:
    elsewhere = {"file/unreadable", "file/encoding", "file/size", "yaml/depth", "reference/size", "registry/empty"}
    assert set(RULE_FILES) | elsewhere == set(RULES)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", ["pump.yaml:1: yaml/document: the file is empty"]),
        (b"# nothing\n", ["pump.yaml:1: yaml/document: the file is empty"]),
        (b"null\n", ["pump.yaml:1: yaml/document: expected a mapping, found nothing"]),
        (b"- 1\n", ["pump.yaml:1: yaml/document: expected a mapping, found a list"]),
        (b"\n{}\n", ["pump.yaml:2: structure: file_format: expected 'definition/2', found nothing"]),
        (b"a: b\nc: d\n", ["pump.yaml:1: structure: file_format: expected 'definition/2', found nothing"]),
        (b"groups: 7\nfile_format: '1'\n", ["pump.yaml:2: structure: file_format: expected 'definition/2', found '1'"]),
        (b"a: \xff\xfe\n", ["pump.yaml:1: file/encoding: byte 0xff is not UTF-8"]),
        (b"a: b\nc: \x00\n", ["pump.yaml:2: file/encoding: control character '\\x00'"]),
        (b"\x7fELF\x02\x01\x01\x00", ["pump.yaml:1: file/encoding: control character '\\x7f'"]),
    ],
)
def test_a_file_that_is_something_else(content: bytes, expected: list[str], tmp_path: Path) -> None:
    (tmp_path / "manifest.yaml").write_text(MANIFEST)
    (tmp_path / "pump.yaml").write_bytes(content)
    assert lines(tmp_path) == expected


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "manifest.yaml").write_text(MANIFEST)
    (tmp_path / "a.yaml").mkdir()
    (tmp_path / "b.yaml").symlink_to("b.yaml")
    os.mkfifo(tmp_path / "c.yaml")
    (tmp_path / "d.yaml").symlink_to("/dev/zero")
    (tmp_path / "e.yaml").symlink_to("nowhere")
    (tmp_path / "below").symlink_to(tmp_path)
    assert lines(tmp_path) == [
        "a.yaml:1: file/unreadable: not a regular file",
        "b.yaml:1: file/unreadable: Too many levels of symbolic links",
        "c.yaml:1: file/unreadable: not a regular file",
        "d.yaml:1: file/unreadable: not a regular file",
        "e.yaml:1: file/unreadable: No such file or directory",
    ]


def test_folders_inside(tmp_path: Path) -> None:
    (tmp_path / "manifest.yaml").write_text(MANIFEST)
    for folder in ("b", "a", ".hidden"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "tap.yml").write_text(f"file_format: definition/2\nattributes: [{ID}]\n")
    assert lines(tmp_path) == [f"b/tap.yml:2: name/duplicate: pump.id is already defined in {tmp_path}/a/tap.yml:2"]


def test_the_same_name_in_two_files(tmp_path: Path) -> None:
    (tmp_path / "tap.yaml").write_text(f"file_format: definition/2\nattributes:\n  - {ID}\n")
    assert found(tmp_path, f"attributes: [{ID}]") == [
        f"tap.yaml:3: name/duplicate: pump.id is already defined in {tmp_path}/pump.yaml:2"
    ]


def test_a_manifest_with_faults(tmp_path: Path) -> None:
    found(tmp_path)
    (tmp_path / "manifest.yaml").write_text("schema_url: example\ndependencies:\n  - {path: 1}\nowner: me\n")
    pattern = r"^https?://[^/\s]+/[^\s]*[0-9]+\.[0-9]+\.[0-9]+[^/\s]*$"
    fields = "schema_url, description, stability, dependencies"
    assert lines(tmp_path) == [
        f"manifest.yaml:1: structure: schema_url: 'example' does not match {pattern}",
        "manifest.yaml:3: structure: dependencies[0]: 'schema_url' is missing",
        "manifest.yaml:3: structure: dependencies[0]: there is no field 'path'; there are schema_url, registry_path",
        f"manifest.yaml:4: structure: there is no field 'owner'; there are {fields}",
    ]


def test_more_files_than_a_registry_may_have(tmp_path: Path) -> None:
    (tmp_path / "manifest.yaml").write_text(MANIFEST)
    for number in range(1001):
        (tmp_path / f"{number:04}.yaml").write_text("file_format: definition/2\n")
    assert [str(finding) for finding in check(tmp_path).findings] == [f"{tmp_path}:1: file/size: more than 1000 files"]


def test_a_finding_is_one_line_without_control_characters(tmp_path: Path) -> None:
    (tmp_path / "\x1b[31m\n.yaml").write_text('"\\e[2J\\n": 1\nfile_format: definition/2\n')
    (line,) = found(tmp_path)
    assert line.startswith("\\x1b[31m\\n.yaml:1: structure: there is no field '\\x1b[2J\\n'; there are ")


def test_a_group_and_what_stands_beside_it(tmp_path: Path) -> None:
    (tmp_path / "manifest.yaml").write_text(MANIFEST)
    (tmp_path / "pump.yaml").write_text(
        f"""file_format: definition/2
attributes: [{NAME}]
attribute_groups:
  - id: outer
    visibility: internal
    attributes: [{{ref_group: inner}}, {{ref: error.type}}]
  - id: inner
    visibility: public
    brief: It.
    {D}
    attributes:
      - {{ref: pump.name, requirement_level: {{conditionally_required: If it has one.}}}}
spans:
  - type: pump.run
    kind: internal
    name: {{note: run}}
    brief: It.
    {D}
    attributes:
      - {{ref: pump.name, brief: The pump that runs., examples: big, sampling_relevant: true}}
      - {{ref_group: outer}}
"""
    )
    name, error = load(tmp_path).spans["pump.run"].attributes
    assert (name.level, name.condition, name.sampling_relevant) == ("conditionally_required", "If it has one.", True)
    assert (name.attribute.brief, name.attribute.examples) == ("The pump that runs.", ("big",))
    assert name.attribute.on_metrics
    assert name.place is not None
    assert name.place.line == 20
    assert (error.attribute.key, error.level, error.attribute.upstream) == ("error.type", "recommended", True)


@pytest.mark.slow
def test_what_is_known_of_opentelemetrys_attributes() -> None:
    upstream = load().upstream
    error = upstream["error.type"]
    assert (error.type, error.brief) == ("string", "Describes a class of error the operation ended with.")
    assert [member.value for member in error.members] == ["_OTHER"]
    # Deprecated in that package, only because they have moved to conventions of their own.
    assert [member.value for member in upstream["gen_ai.token.type"].members] == ["input", "output"]
    assert upstream["gen_ai.request.model"].deprecated is None
    # Nothing there says that it is a string.
    assert upstream["exception.message"].type is None


def test_loading_tells_everything_that_is_wrong(tmp_path: Path) -> None:
    found(tmp_path, "spam: 1", metric("pump.strokes", "{ref: pump.name}"))
    with pytest.raises(RegistryError) as caught:
        load(tmp_path)
    assert [finding.rule for finding in caught.value.findings] == ["structure", "reference/unknown"]
    with pytest.raises(NoRegistryError, match="there is no such directory"):
        load(tmp_path / "missing")
