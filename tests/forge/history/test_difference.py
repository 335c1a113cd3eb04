"""Differences between the records of two runs."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge import BatchRunner, Measurement, Pipeline, Price, Prices, Sample, Skip, Stage, stage, usage
from forge.errors import UnendedRunError
from forge.history.difference import difference, percent
from tests.support.clock import FakeClock

OLD_DATABASE = Path(__file__).parent.parent / "storage" / "written_by_0.1.0" / "sqlite.sql"


class RateLimitedError(Exception):
    """An error that `classify` knows by its status."""

    status = 429


def record_of(
    number: int,
    *,
    duplicates: int = 0,
    limited: int = 0,
    seconds: float = 0.1,
    version: str = "1",
    tokens: int = 10,
    first: int = 0,
) -> dict[str, Any]:
    """The record of a run over so many samples, of which some are skipped and others fail."""
    clock = FakeClock()

    @stage
    def deduplicate(sample: Sample) -> Sample | Skip:
        return Skip("exact_duplicate") if sample.data < duplicates else sample

    @stage(version=version)
    def annotate(sample: Sample) -> Sample:
        if sample.data >= number - limited:
            raise RateLimitedError("slow down")
        clock.advance(seconds)
        usage.report(provider="openai", model="m", input_tokens=tokens)
        return sample

    pipeline = Pipeline(
        name="labels",
        source=[Sample(id=f"doc-{first + data}", data=data) for data in range(number)],
        stages=[deduplicate, annotate],
        prices=Prices([Price(provider="openai", per=Decimal(10**6), input_price=Decimal(1))]),
    )
    result = BatchRunner(clock=clock).run(pipeline).drain()
    record: dict[str, Any] = json.loads(json.dumps(replace(result, revision="1111").to_dict()))
    return record


def test_the_same_run_differs_in_nothing() -> None:
    record = record_of(10)
    found = difference(record, record)
    assert found.headline == "as many ready: 10"
    assert found.sections() == []
    assert found.causes == []


@pytest.mark.slow
def test_the_headline_names_the_causes_of_fewer_ready_samples() -> None:
    found = difference(record_of(1000), record_of(1000, duplicates=29, limited=2))
    assert found.headline == (
        "3.1 % fewer ready (1000 → 969): 2.9 % from stage deduplicate, reason exact_duplicate; "
        "0.2 % from new errors in annotate (rate_limit)"
    )
    assert [(c.kind, c.where, c.detail, c.before, c.after, c.ready, c.share) for c in found.causes] == [
        ("skips", "deduplicate", "exact_duplicate", 0, 29, -29, -0.029),
        ("errors", "annotate", "rate_limit", 0, 2, -2, -0.002),
    ]


def test_a_smaller_input_is_one_cause_and_not_one_of_each_count() -> None:
    found = difference(record_of(1000, duplicates=100), record_of(500, duplicates=50))
    assert found.headline == "50 % fewer ready (900 → 450): 50 % from a smaller input"


def test_causes_against_the_trend_are_named_as_well() -> None:
    found = difference(record_of(100, limited=10), record_of(100, duplicates=20))
    assert found.headline == (
        "11 % fewer ready (90 → 80): 22 % from stage deduplicate, reason exact_duplicate; "
        "offset by 11 % from no more errors in annotate (rate_limit)"
    )


def test_causes_that_cancel_out() -> None:
    found = difference(record_of(100, limited=10), record_of(100, duplicates=10))
    assert found.headline == (
        "as many ready (90 → 90): 11 % from no more errors in annotate (rate_limit); "
        "offset by 11 % from stage deduplicate, reason exact_duplicate"
    )


def test_without_ready_samples_before_there_are_numbers_and_no_shares() -> None:
    found = difference(record_of(10, duplicates=10), record_of(10))
    assert found.headline == "more ready (0 → 10): 10 from stage deduplicate, reason exact_duplicate"


def test_the_report() -> None:
    before = record_of(100)
    after = record_of(100, limited=2, seconds=0.2, version="2", tokens=30, first=1)
    report = str(difference(before, after | {"revision": "2222"}))
    assert re.sub(r"labels \w{8}", "labels RUN", report).splitlines() == [
        "labels RUN (completed) → labels RUN (completed)",
        "2.0 % fewer ready (100 → 98): 2.0 % from new errors in annotate (rate_limit)",
        "revision   1111 → 2222",
        "definition stage annotate: version 1 → 2",
        "input      100 samples, as before, with other ids (which ones was not recorded)",
        "counts     samples: ready 100 → 98, failed 0 → 2",
        "           annotate: errors rate_limit 0 → 2",
        "times      run: duration 10s → 20s (+96 %)",
        f"           annotate: {', '.join(f'{p} 100ms → 200ms (+100 %)' for p in ('p50', 'p95', 'p99', 'max'))}",
        "cost       run: 0.001 → 0.00294 USD (+194 %), calls 100 → 98 (−2.0 %), input tokens 1000 → 2940 (+194 %)",
        "           annotate: 0.001 → 0.00294 USD (+194 %)",
    ]


class Length(Measurement):
    key, version = "length", "1"

    def compute(self, sample: Sample) -> int:
        return len(str(sample.data))


def record_with(stages: list[Stage], measurements: list[Measurement]) -> dict[str, Any]:
    pipeline = Pipeline(name="p", source=[1], stages=stages, measurements=measurements)
    return BatchRunner(clock=FakeClock()).run(pipeline).drain().to_dict()


def test_definitions() -> None:
    @stage
    def a(sample: Sample) -> Sample:
        return sample

    @stage
    def b(sample: Sample) -> Sample:
        return sample

    @stage(concurrency=4, name="a")
    def wider(sample: Sample) -> Sample:
        return sample

    found = difference(record_with([a, b], []), record_with([b, wider], [Length()]))
    assert dict(found.sections())["definition"] == [
        "order of the stages: a b → b a",
        "measurement length added (version 1)",
        "stage a: concurrency 1 → 4",
    ]
    found = difference(record_with([a, b], [Length()]), record_with([b], []))
    assert dict(found.sections())["definition"] == [
        "stage a removed (version 1)",
        "measurement length removed (version 1)",
    ]
    assert "a: executions 1 → 0" in dict(found.sections())["counts"]


def test_percentiles_that_differ_by_less_than_they_are_exact() -> None:
    found = difference(record_of(10, seconds=1.0), record_of(10, seconds=1.015))
    assert [(change.name, change.what) for change in found.times] == []
    found = difference(record_of(10, seconds=1.0), record_of(10, seconds=1.05))
    assert {(change.name, change.what) for change in found.times} == {
        ("run", "duration"),
        *(("annotate", what) for what in ("p50", "p95", "p99", "max")),
    }


def test_control_characters_are_escaped_in_the_report() -> None:
    @stage(name="evil\x1b[31m")
    def evil(sample: Sample) -> Sample | Skip:
        return Skip("two\nlines\x07") if sample.data else sample

    def record(data: int) -> dict[str, Any]:
        pipeline = Pipeline(name="p\x07", source=[data], stages=[evil])
        return BatchRunner(clock=FakeClock()).run(pipeline).drain().to_dict()

    report = str(difference(record(0), record(1)))
    assert "\x1b" not in report
    assert "stage evil\\x1b[31m, reason two lines\\x07" in report


def test_a_run_without_an_end_cannot_be_compared() -> None:
    record = record_of(1)
    with pytest.raises(UnendedRunError, match=r"^the second run has no end in its record, so there is nothing to "):
        difference(record, {"definition": record["definition"]})


def test_records_of_0_1_0() -> None:
    (text,) = re.findall(r"'(\{\"run_id\".*\})'", OLD_DATABASE.read_text())
    old = json.loads(text)
    new = record_with([], [])
    found = difference(old, new)
    assert found.before.type == "full"
    assert ("errors", "parse", "ValueError", 2, 0) in [
        (cause.kind, cause.where, cause.detail, cause.before, cause.after) for cause in found.causes
    ]
    assert sum(cause.ready for cause in found.causes) == pytest.approx(1 - 6)


sizes = st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))


@pytest.mark.slow
@given(sizes, sizes)
def test_causes_add_up(first: tuple[int, int, int], second: tuple[int, int, int]) -> None:
    before, after = (
        record_of(number, duplicates=skipped, limited=failed) for number, skipped, failed in (first, second)
    )
    found = difference(before, after)
    gained = after["ledger"]["ready"] - before["ledger"]["ready"]
    assert sum(cause.ready for cause in found.causes) == pytest.approx(gained)
    json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0.0 %"),
        (0.0004, "<0.1 %"),
        (0.031, "3.1 %"),
        (0.0994, "9.9 %"),
        (0.0996, "10 %"),
        (2, "200 %"),
        (float("inf"), "∞ %"),
    ],
)
def test_percent(share: float, text: str) -> None:
    assert percent(share) == text
