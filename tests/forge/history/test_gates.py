"""Gates on the differences between two runs."""

from __future__ import annotations

from typing import Any

import pytest

from forge import BatchRunner, Pipeline, Sample, Skip, stage
from forge.errors import ConfigurationError
from forge.history.difference import difference
from forge.history.gates import Gate
from tests.support.clock import FakeClock


def record_of(*, skipped: int = 0, seconds: float = 0.1) -> dict[str, Any]:
    """The record of a run over 100 samples."""
    clock = FakeClock()

    @stage
    def clean(sample: Sample) -> Sample | Skip:
        return Skip("empty") if sample.data < skipped else sample

    @stage
    def annotate(sample: Sample) -> Sample:
        clock.advance(seconds)
        return sample

    pipeline = Pipeline(name="p", source=list(range(100)), stages=[clean, annotate])
    return BatchRunner(clock=clock).run(pipeline).drain().to_dict()


@pytest.mark.parametrize(
    ("gate", "violations"),
    [
        ("ready<-1%", ["ready<-1%: ready 100 → 98 (−2, −2.0 %)"]),
        ("ready<-2%", []),
        ("ready<=-2%", ["ready<=-2%: ready 100 → 98 (−2, −2.0 %)"]),
        ("ready < -1", ["ready < -1: ready 100 → 98 (−2, −2.0 %)"]),
        ("ready<-2", []),
        ("skipped>0", ["skipped>0: skipped 0 → 2 (+2)"]),
        ("skipped>1000%", ["skipped>1000%: skipped 0 → 2 (+2)"]),
        ("failed>0", []),
        ("failed>0%", []),
        ("failed>=0", ["failed>=0: failed 0 → 0 (+0, +0.0 %)"]),
        ("p95>20%", ["p95>20%: p95[annotate] 100ms → 150ms (+50ms, +50 %)"]),
        ("p95[annotate]>20%", ["p95[annotate]>20%: p95[annotate] 100ms → 150ms (+50ms, +50 %)"]),
        ("p95[clean]>20%", []),
        ("p95>60%", []),
        ("p95>20% and >0.01", ["p95>20% and >0.01: p95[annotate] 100ms → 150ms (+50ms, +50 %)"]),
        ("p95>20% and >0.1", []),
        ("skips[clean]>1", ["skips[clean]>1: skips[clean] 0 → 2 (+2)"]),
        ("cost>0", []),
        ("duration>40%", ["duration>40%: duration 10s → 15s (+4.7s, +47 %)"]),
    ],
)
def test_gates(gate: str, violations: list[str]) -> None:
    found = difference(record_of(), record_of(skipped=2, seconds=0.15))
    assert list(map(str, Gate.parse(gate).violations(found))) == violations


def test_a_value_that_one_run_has_not_is_a_violation_only_of_a_gate_that_names_it() -> None:
    found = difference(record_of(), record_of(skipped=100))
    assert Gate.parse("p95>20%").violations(found) == []
    [violation] = Gate.parse("p95[annotate]>20%").violations(found)
    assert str(violation) == "p95[annotate]>20%: p95[annotate] cannot be compared, because the second run has none"


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        (
            "ready",
            "'ready' is no gate; write VALUE<NUMBER or VALUE[NAME]>NUMBER%, such as 'ready<-1%' or 'p95[annotate]>20% ",
        ),
        ("", "'' is no gate; write VALUE<NUMBER or VALUE"),
        ("redy<1", "'redy<1': there is no value 'redy'; there are admitted, derived, ready, "),
        ("ready[x]<1", "'ready[x]<1': ready is a value of the whole run, so it takes no [x]"),
        ("ready<1 %x", "'ready<1 %x': '<1 %x' is no condition; write <, <=, > or >= and a number, in per cent of the "),
        ("ready<", "'ready<': '<' is no condition"),
        ("ready<1 and 5", "'ready<1 and 5': '5' is no condition"),
        ("ready<nan", "'ready<nan': '<nan' is no condition"),
    ],
)
def test_faulty_gates(gate: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        Gate.parse(gate)
    assert str(raised.value).startswith(message)


def test_names_that_neither_run_knows() -> None:
    found = difference(record_of(), record_of())
    with pytest.raises(ConfigurationError) as raised:
        Gate.parse("p95[anotate]>1%").violations(found)
    assert str(raised.value) == (
        "'p95[anotate]>1%': neither run has p95 of 'anotate'; they have it of 'clean', 'annotate'"
    )
    with pytest.raises(ConfigurationError, match=r"^'gone>1%': which samples were gone is not known, because the "):
        Gate.parse("gone>1%").violations(found)
