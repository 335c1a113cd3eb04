"""What is generated follows from the registry, in one go."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.generate import generate
from tools.generate.__main__ import main

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
REGISTRY = Path("src/forge_otel/semconv/registry")


def rename(checkout: Path, old: str, new: str) -> None:
    for file in (checkout / REGISTRY).glob("*.yaml"):
        file.write_text(file.read_text().replace(old, new))


def test_nothing_has_drifted() -> None:
    assert generate(ROOT, check=True) == []


def test_a_second_time_there_is_nothing_to_do(checkout: Path) -> None:
    rename(checkout, "forge.stage.retries", "forge.stage.repetitions")

    assert generate(checkout) != []
    assert generate(checkout) == []


def test_a_renamed_metric_is_renamed_everywhere(checkout: Path) -> None:
    rename(checkout, "forge.stage.retries", "forge.stage.repetitions")

    changed = generate(checkout)

    assert {"src/forge_otel/semconv/metrics.py", "src/forge_otel/semconv/statsd.py"} <= set(changed)
    text = "".join((checkout / path).read_text() for path in changed)
    for name in ("forge.stage.repetitions", "FORGE_STAGE_REPETITIONS", "forge_stage_repetitions_total"):
        assert name in text
    # The lines of the ADR quote names that it had in StatsD.
    quoting = {"docs/reference/adr.md", "tools/generate/adr.yaml"}
    text = "".join((checkout / path).read_text() for path in changed if path not in quoting)
    for name in ("forge.stage.retries", "FORGE_STAGE_RETRIES", "forge_stage_retries_total"):
        assert name not in text


def test_check_names_what_has_drifted_and_leaves_it(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rename(checkout, "forge.stage.retries", "forge.stage.repetitions")
    before = (checkout / "src/forge_otel/semconv/metrics.py").read_text()

    assert main(["--check", "--root", str(checkout)]) == 1

    assert (checkout / "src/forge_otel/semconv/metrics.py").read_text() == before
    assert "src/forge_otel/semconv/metrics.py" in capsys.readouterr().out


def test_an_edited_file_is_put_right(checkout: Path) -> None:
    path = checkout / "src/forge_otel/semconv/events.py"
    generated = path.read_text()
    path.write_text(generated.replace("INFO", "WARN"))

    assert generate(checkout) == ["src/forge_otel/semconv/events.py"]
    assert path.read_text() == generated


def test_a_changed_default_is_in_the_table_of_settings(checkout: Path) -> None:
    config = checkout / "src/forge_otel/config/config.py"
    config.write_text(config.read_text().replace("default=10_000", "default=20_000"))

    assert generate(checkout) == ["docs/configuration.md"]
    assert "| `span_budget` | `FORGE_OTEL_SPAN_BUDGET` | `20000` | " in (checkout / "docs/configuration.md").read_text()


def test_outside_of_a_checkout_nothing_is_generated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(tmp_path)]) == 2

    said = f"tools.generate: {tmp_path} is not a checkout of forge-otel: it has no {REGISTRY}\n"
    assert capsys.readouterr() == ("", said)


def test_a_registry_with_errors_is_not_generated_from(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rename(checkout, "    brief:", "    briefs:")

    assert main(["--root", str(checkout)]) == 2

    said = capsys.readouterr().err
    assert said.startswith("tools.generate: the registry has errors (")
    assert said.endswith(f"`forge-otel semconv check {checkout / REGISTRY}` lists them\n")
