"""Versions of the conventions: what was renamed, and where it is written down."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from forge_otel.checker.load import load
from forge_otel.semconv import SCHEMA_URL
from tools.generate import generate, versions

ROOT = Path(__file__).parents[2]
EXTRA = ROOT / versions.EXTRA
REGISTRY = load()
FIRST = [line.split() for line in (Path(__file__).parent / "names-0.1.0.txt").read_text().splitlines()]
"""Every name of version 0.1.0, with its kind."""
NEWEST = versions.versions()[0]


def test_what_0_1_0_had_is_there_or_renamed() -> None:
    today = {
        "attribute": REGISTRY.attributes,
        "span": REGISTRY.spans,
        "metric": REGISTRY.metrics,
        "event": REGISTRY.events,
    }
    gone = [(kind, name) for kind, name in FIRST if name not in today[kind]]

    assert gone == [("metric", name) for name in NEWEST.metrics]


def test_the_schema_file_renames_metrics_of_0_1_0() -> None:
    path = SCHEMA_URL.removeprefix(versions.site(REGISTRY))
    schema = yaml.safe_load((EXTRA / path.removeprefix("/")).read_text())

    assert list(schema) == ["file_format", "schema_url", "versions"]
    assert (schema["file_format"], schema["schema_url"]) == ("1.1.0", SCHEMA_URL)
    assert list(schema["versions"]) == ["0.2.0", "0.1.0"]
    ((change,),) = (schema["versions"]["0.2.0"]["metrics"]["changes"],)
    renamed = [change["rename_metrics"].get(name, name) for kind, name in FIRST if kind == "metric"]
    assert set(renamed) <= REGISTRY.metrics.keys()
    assert schema["versions"]["0.1.0"] is None


def test_the_schema_file_of_an_old_version_stays() -> None:
    schema = yaml.safe_load((EXTRA / "schemas" / "0.1.0").read_text())

    assert schema["schema_url"] == f"{versions.site(REGISTRY)}/schemas/0.1.0"
    assert schema["versions"] == {"0.1.0": None}


def test_the_changelog_has_all_renames() -> None:
    fragment = ROOT / "changes" / "+renames.changed.md"
    text = fragment.read_text() if fragment.exists() else (ROOT / "CHANGELOG.md").read_text()

    assert dict(re.findall(r"`([\w.]+)` to `([\w.]+)`", text)) == NEWEST.metrics


@pytest.mark.slow
def test_the_site_is_set_in_one_place(checkout: Path) -> None:
    manifest = checkout / "src/forge_otel/semconv/registry/manifest.yaml"
    old = versions.site(REGISTRY)
    manifest.write_text(manifest.read_text().replace(old, "https://example.org/forge"))

    changed = generate(checkout)

    assert "collector-config/prometheus/rules/alerting.yaml" in changed
    assert "collector-config/prometheus/tests/run-failed.yaml" in changed
    assert "docs/_extra/schemas/0.2.0" in changed
    left = [
        file for file in checkout.rglob("*") if file.is_file() and file.suffix != ".pyc" and old in file.read_text()
    ]
    assert left == []
    text = (checkout / "collector-config/prometheus/rules/alerting.yaml").read_text()
    assert "runbook_url: https://example.org/forge/runbooks/run-failed.html\n" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[{version: 0.3.0}]", "the registry has version 0.2.0, but the newest one in old.yaml is 0.3.0"),
        (
            "[{version: 0.2.0, metrics: {forge.a: forge.b}}]",
            "old.yaml has a metric renamed to forge.b, which is not in the registry",
        ),
    ],
)
def test_a_version_that_does_not_fit(text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "old.yaml").write_text(text)
    monkeypatch.setattr(versions, "VERSIONS", tmp_path / "old.yaml")

    with pytest.raises(ValueError, match=re.escape(message)):
        versions.files(REGISTRY)
