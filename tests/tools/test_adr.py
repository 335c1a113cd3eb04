"""The page of the ADR answers each of its lines: its text is taken apart here, and compared with the page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forge import BatchRunner, Pipeline, Sample, SQLStorage, stage
from forge_otel.checker.load import load
from tests.support.clock import FakeClock
from tests.support.telemetry import recording
from tools.generate import adr, adr_lines

ORIGINAL = (Path(__file__).parent / "adr-007.md").read_text()
"""The ADR as its authors wrote it."""
PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "adr.md").read_text()

Line = tuple[str, str, str]
"""Kind, name, and the name of what it is a part of."""


def section(heading: str) -> str:
    """The text below a heading, up to the next one of its level or above."""
    level = heading.partition(" ")[0]
    _, _, below = ORIGINAL.partition(f"\n{heading}\n")
    assert below
    return re.split(rf"^#{{2,{len(level)}}} ", below, maxsplit=1, flags=re.MULTILINE)[0]


def code(text: str, language: str = "elixir") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def arguments(text: str) -> list[str]:
    """The arguments of a call, of which `text` begins behind the opening parenthesis."""
    depth, found = 0, [""]
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if depth < 0:
            break
        if character == "," and depth == 0:
            found.append("")
        else:
            found[-1] += character
    return [each.strip() for each in found]


def keys(mapping: str) -> list[str]:
    return re.findall(r"\b(\w+): ", mapping)


def metadata(expression: str, block: str) -> list[str]:
    """The keys of the third argument of a call, which may be a variable."""
    if expression.startswith("%{"):
        return keys(expression)
    ((literal),) = re.findall(r"metadata = (%\{.*?\})", block, re.DOTALL)
    put = re.findall(r"Map\.put\((?:metadata, )?:(\w+)", expression if "Map.put" in expression else block)
    return keys(literal) if expression == "metadata" else [*keys(literal), *put]


def events() -> Iterator[Line]:
    for block in code(ORIGINAL):
        for found in re.finditer(r":telemetry\.execute\(", block):
            event, measurements, given = arguments(block[found.end() :])
            metric = event.startswith("[:forge, :metrics")
            yield "metric" if metric else "event", event, ""
            yield from (("measurement", key, event) for key in keys(measurements))
            yield from (("tag" if metric else "metadata", key, event) for key in metadata(given, block))
        # Lists of events, such as those that a handler is attached to.
        for event in re.findall(r"\[:forge, :\w+, :\w+\]", block):
            yield "metric" if event.startswith("[:forge, :metrics") else "event", event, ""


def statsd() -> Iterator[Line]:
    for name, tags in re.findall(
        r'Statix\.\w+\("([\w.]+)".*?tags: \[(.*?)\]', section("### 4. StatsD Reporter"), re.DOTALL
    ):
        yield "StatsD metric", name, ""
        yield from (("StatsD tag", tag, name) for tag in re.findall(r'"(\w+):#', tags))


def spans() -> Iterator[Line]:
    for component, body in re.findall(
        r"defp handle_event\(\[:forge, :(\w+), .*?\n(.*?)\n  end\n",
        section("### 5. OpenTelemetry Integration"),
        re.DOTALL,
    ):
        yield from (("span", name, "") for name in re.findall(r'start_span\(\s*"([\w.]+)"', body))
        yield from (("span attribute", key, f"forge.{component}") for key in re.findall(r'"([\w.]+)" =>', body))


def prometheus() -> Iterator[Line]:
    for call in re.split(r"\n      (?=counter|distribution)", section("### 6. Prometheus Exporter"))[1:]:
        kind, _, rest = call.partition("(")
        event, *options = arguments(rest)
        yield "Prometheus metric", f"{kind} {event}", ""
        for option in options:
            name, _, value = option.partition(": ")
            if name == "tags":
                yield from (("label", tag, f"{kind} {event}") for tag in re.findall(r":(\w+)", value))
            if name == "buckets":
                yield "buckets", value.strip("[]"), f"{kind} {event}"


def logs() -> Iterator[Line]:
    for level, message, fields in re.findall(
        r'Logger\.(\w+)\("([^"]+)",\n(.*?)\n\s*\)', section("### 8. Logging Integration"), re.DOTALL
    ):
        yield "log record", f'{level} "{message}"', ""
        yield from (
            ("log field", key, f'{level} "{message}"') for key in re.findall(r"^\s*(\w+): ", fields, re.MULTILINE)
        )


def configuration() -> Iterator[Line]:
    (block,) = code(section("### Configuration"))
    for line in block.splitlines():
        text = re.sub(r"\s*(,|\[|%\{)$", "", re.sub(r"(^|\s+)# .*", "", line)).strip()
        if text and not re.match(r"defmodule |def |use |end$|[\]}]", text):
            yield "configuration", text, ""


def all_lines() -> Iterator[Line]:
    bullets = re.findall(r"^- (.+)$", section("### Key Metrics to Track"), re.MULTILINE)
    yield from (("key metric", bullet, "") for bullet in bullets)
    yield from events()
    yield from (
        ("error class", name, "") for name in re.findall(r"classify_error\(.*do: (:\w+)$", ORIGINAL, re.MULTILINE)
    )
    yield from statsd()
    yield from spans()
    yield from prometheus()
    yield from (("query", name, "") for name in queries())
    yield from logs()
    yield from configuration()


def queries() -> dict[str, str]:
    (block,) = code(section("### 7. Custom Dashboards"), "promql")
    return {name: text.strip() for name, text in re.findall(r"^# (.+)\n((?:(?!#).*\n?)+)", block, re.MULTILINE)}


def test_as_many_lines_as_one_counts_by_hand() -> None:
    found = set(all_lines())
    numbers = {kind: sum(line[0] == kind for line in found) for kind in sorted({line[0] for line in found})}

    assert numbers == {
        "Prometheus metric": 6,
        "StatsD metric": 8,
        "StatsD tag": 11,
        "buckets": 2,
        "configuration": 17,
        "error class": 4,
        "event": 13,
        "key metric": 16,
        "label": 8,
        "log field": 10,
        "log record": 3,
        "measurement": 24,
        "metadata": 37,
        "metric": 9,
        "query": 5,
        "span": 2,
        "span attribute": 10,
        "tag": 12,
    }


def test_each_line_is_on_the_page() -> None:
    rows = [re.split(r"(?<!\\) ?\| ?", line) for line in PAGE.splitlines() if line.startswith("|")]
    answered = {(kind, name.replace(r"\|", "|")) for _, kind, name, here, _ in rows if here}

    assert {(kind, adr_lines.Line(kind, name, "", of).text) for kind, name, of in all_lines()} <= answered


def test_no_line_is_made_up() -> None:
    ours = [(line.kind, line.name, line.parent) for line in adr_lines.lines()]

    assert set(ours) == set(all_lines())
    assert len(ours) == len(set(ours))


def test_each_query_is_next_to_ours() -> None:
    assert {query.name: query.original for query in adr.QUERIES} == queries()
    for query in adr.QUERIES:
        assert f"```promql\n{query.original}\n```\n\nHere:\n\n```promql\n{query.expression}\n```" in PAGE


@pytest.mark.slow
def test_a_line_names_what_the_registry_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lines = tmp_path / "adr.yaml"
    lines.write_text('- {section: S, kind: metric, lines: {old: "{metric forge.stage.gone}"}}')
    monkeypatch.setattr(adr_lines, "LINES", lines)

    with pytest.raises(KeyError, match=r"forge\.stage\.gone"):
        adr.files(load())


def test_log_records_have_all_fields_of_the_adr(tmp_path: Path) -> None:
    """Of a run with a failed stage, whose source fails in the end."""

    def source() -> Iterator[Sample]:
        yield Sample(id="broken", data="")
        raise ConnectionError("the source is gone")

    @stage
    def check(sample: Sample) -> Any:
        raise ValueError(f"no text in {sample.id}")

    pipeline = Pipeline(name="p", source=source, stages=[check], storage=SQLStorage(f"sqlite:///{tmp_path / 'db'}"))
    with recording() as recorded, pytest.raises(ConnectionError):
        BatchRunner(clock=FakeClock()).run(pipeline).drain()

    emitted = {event.name: event.attributes for event in recorded.events}
    records = {line.name: line for line in adr_lines.lines() if line.kind == "log record"}
    fields = [line for line in adr_lines.lines() if line.kind == "log field"]
    assert len(fields) == 10
    for field in fields:
        ((event),) = re.findall(r"\{event ([\w.]+)\}", records[field.parent].here)
        wanted = re.findall(r"\{attribute ([\w.]+)\}", re.sub(r", or .*", "", field.here))
        assert wanted
        assert set(wanted) <= emitted[event].keys(), (event, field)
