"""Files that OpenTelemetry Weaver reads: those of our registry keep to the rules of its own schema."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from forge_otel.checker import structure
from forge_otel.checker.load import MANIFEST, REGISTRY, load
from forge_otel.checker.source import read

HERE = Path(__file__).parent
SCHEMA = json.loads((HERE / "weaver.schema.json").read_text())
VALIDATOR = Draft202012Validator(SCHEMA)
FILES = sorted(file for file in REGISTRY.glob("*.yaml") if file.name != MANIFEST)


def content(file: Path) -> dict[str, Any]:
    document, findings = read(file)
    assert document is not None
    assert findings == []
    return document.data


def faults(data: object) -> list[str]:
    return [error.json_path for error in VALIDATOR.iter_errors(data)]


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_our_registry(file: Path) -> None:
    assert faults(content(file)) == []


def rule_files() -> Iterator[Path]:
    """Files of this folder that our own schema accepts, but for the one whose examples are wrong, which is a rule's."""
    for file in sorted(HERE.rglob("*.yaml")):
        document, findings = read(file)
        if document is None or findings or file.stem in {"manifest", "examples"}:
            continue
        if not structure.faults(document, "definition"):
            yield file


@pytest.mark.parametrize("file", list(rule_files()), ids=lambda file: str(file.relative_to(HERE)))
def test_our_own_schema_accepts_nothing_else(file: Path) -> None:
    assert faults(content(file)) == []


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda data: data.update(file_format="definition/1"), "$.file_format"),
        (lambda data: data.update(groups=[]), "$"),
        (lambda data: data["metrics"][0].update(instrument="timer"), "$.metrics[0].instrument"),
        (lambda data: data["metrics"][0].update(requirement_level="required"), "$.metrics[0].requirement_level"),
        (lambda data: data["metrics"][0].pop("unit"), "$.metrics[0]"),
        (lambda data: data["metrics"][0]["attributes"][0].update(sampling_relevant=True), "$.metrics[0].attributes[0]"),
        (lambda data: data["spans"][0].update(name="forge.pipeline"), "$.spans[0].name"),
        (lambda data: data["events"][0].update(severity="INFO"), "$.events[0]"),
        (lambda data: data["entities"][0].pop("identity"), "$.entities[0]"),
        (lambda data: data["attributes"][0].update(type="text"), "$.attributes[0].type"),
    ],
)
def test_a_fault(change: Callable[[dict[str, Any]], object], place: str) -> None:
    data = copy.deepcopy(content(REGISTRY / "pipeline.yaml"))
    change(data)

    assert faults(data) == [place]


def test_each_signal_and_each_of_its_attributes_has_a_level() -> None:
    """Weaver warns of signals without one, and will not accept them some day."""
    for file in FILES:
        data = content(file)
        for section in ("entities", "spans", "metrics", "events"):
            for signal in data.get(section, ()):
                assert "requirement_level" in signal, signal
        for signal in (each for section in data.values() if isinstance(section, list) for each in section):
            for reference in (
                *signal.get("attributes", ()),
                *signal.get("identity", ()),
                *signal.get("description", ()),
            ):
                assert reference.keys() & {"requirement_level", "ref_group"}, (signal, reference)


def test_dependencies_are_pinned() -> None:
    manifest = content(REGISTRY / MANIFEST)
    paths = [dependency["registry_path"] for dependency in manifest["dependencies"]]

    assert paths == [
        "https://github.com/open-telemetry/semantic-conventions/archive/refs/tags/v1.44.0.zip[model]",
        "https://github.com/open-telemetry/semantic-conventions-genai.git@c88d504ab3d9879f8e50d3cc87e69775e11db234[model]",
    ]


@pytest.mark.slow
def test_entities() -> None:
    entities = load().entities
    found = {
        name: [[reference.attribute.key for reference in part] for part in (entity.identity, entity.description)]
        for name, entity in entities.items()
    }

    assert found == {
        "forge.pipeline": [["forge.pipeline.name"], ["forge.pipeline.id"]],
        "forge.run": [
            ["forge.run.id"],
            [
                "forge.pipeline.name",
                "forge.run.type",
                "forge.run.outcome",
                "forge.runner.name",
                "vcs.ref.head.revision",
            ],
        ],
    }
