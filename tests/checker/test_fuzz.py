"""Whatever is changed in a registry's files, checking it ends with findings or without any."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forge_otel.checker.check import check
from forge_otel.checker.findings import RULES
from forge_otel.checker.load import REGISTRY

SOURCES = {path.name: path.read_bytes() for path in sorted(REGISTRY.glob("*.yaml"))}
SETTINGS = settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
TOKENS = [
    *(
        b"[",
        b"]",
        b"{",
        b"}",
        b"- ",
        b": ",
        b"? ",
        b"&a ",
        b"*a",
        b"!!python/name:os.system ",
        b"!x ",
        b"|",
        b">",
        b"'",
    ),
    *(
        b'"',
        b"#",
        b"\t",
        b"\n",
        b"\n---\n",
        b"...",
        b"<<: ",
        b"null",
        b"true",
        b"1e999",
        b".nan",
        b"-0",
        b"0x",
        b"\x00",
    ),
    *(
        b"\xff",
        b"\xe2\x80\xa8",
        b"\xef\xbb\xbf",
        b"%YAML 9.9\n",
        b"@",
        b"`",
        b"ref_group: ",
        b"members: ",
        b"{forge: 1}",
    ),
]


@pytest.mark.slow
@SETTINGS
@given(data=st.data())
def test_no_change_to_a_file_breaks_the_check(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    name = data.draw(st.sampled_from(["common.yaml", "dlq.yaml", "manifest.yaml", "telemetry.yaml"]))
    content = SOURCES[name]
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        end = start + data.draw(st.sampled_from([0, 1, 2, 10, 100, len(content)]))
        inserted = data.draw(st.one_of(st.sampled_from(TOKENS), st.binary(max_size=4), st.just(content[:200])))
        content = content[:start] + inserted + content[end:]
    directory = tmp_path_factory.mktemp("registry")
    (directory / "manifest.yaml").write_bytes(SOURCES["manifest.yaml"])
    (directory / name).write_bytes(content)
    for finding in check(directory).findings:
        assert finding.rule in RULES
        assert finding.place.line >= 1
        assert "\n" not in str(finding)
    shutil.rmtree(directory)


def replaced(value: object, path: list[int], new: object) -> object:
    """A copy of a document in which another value stands where the path leads."""
    if not path or not isinstance(value, dict | list) or not value:
        return new
    step = path[0] % len(value)
    if isinstance(value, list):
        return [replaced(one, path[1:], new) if n == step else one for n, one in enumerate(value)]
    return {key: replaced(one, path[1:], new) if n == step else one for n, (key, one) in enumerate(value.items())}


@pytest.mark.slow
@SETTINGS
@given(
    name=st.sampled_from(["common.yaml", "dlq.yaml", "manifest.yaml", "telemetry.yaml"]),
    path=st.lists(st.integers(0, 20), max_size=8),
    new=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["ref", "members", "forge"]), inner)
        ),
    ),
)
def test_no_value_of_another_type_breaks_the_check(
    name: str, path: list[int], new: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("registry")
    (directory / "manifest.yaml").write_bytes(SOURCES["manifest.yaml"])
    document = replaced(yaml.safe_load(SOURCES[name]), path, new)
    (directory / name).write_text(json.dumps(document))  # which is YAML, too
    for finding in check(directory).findings:
        assert finding.rule in RULES
    shutil.rmtree(directory)
