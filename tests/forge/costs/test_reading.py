"""Usage is read as clients return it, and what makes no sense never fails a sample that is paid for."""

from __future__ import annotations

import logging
import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from forge import BatchRunner, Pipeline, Price, Prices, RunResult, Sample, Usage, stage, usage
from forge.costs.reading import MOST, Reading, read
from forge.errors import UsageError
from forge.runner import Runner
from tests.support.runs import both_runners

INTEGER = "a whole number from 0 to 10¹²"
FINITE = "a number of US dollars that is finite and not negative"
UNNAMED = "a string that is not empty"
CACHED = "6 cached_input_tokens of 5 input_tokens; input_tokens includes the cached ones"


class Rude:
    """A value whose methods raise."""

    def __int__(self) -> int:
        raise RuntimeError

    __repr__ = __bool__ = __str__ = __int__  # type: ignore[assignment]


def used(**changes: Any) -> Usage:
    return Usage(**{"provider": "p", "model": "m", **changes})


def reading(**changes: Any) -> Reading:
    return read(**{"provider": "p", "model": "m", **changes})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"provider": ""}, f"provider must be {UNNAMED}, not ''"),
        ({"provider": None}, f"provider must be {UNNAMED}, not None"),
        ({"model": ""}, f"model must be {UNNAMED}, or None, not ''"),
        ({"input_tokens": -1}, f"input_tokens must be {INTEGER}, not -1"),
        ({"input_tokens": 2**63}, f"input_tokens must be {INTEGER}, not 9223372036854775808"),
        ({"output_tokens": 10**5000}, f"output_tokens must be {INTEGER}, not one of type int"),
        ({"output_tokens": 1.0}, f"output_tokens must be {INTEGER}, not 1.0"),
        ({"calls": True}, f"calls must be {INTEGER}, not True"),
        ({"cached_input_tokens": "1"}, f"cached_input_tokens must be {INTEGER}, not '1'"),
        ({"input_tokens": 5, "cached_input_tokens": 6}, CACHED),
        ({"amount": math.nan}, f"amount must be {FINITE}, not nan"),
        ({"amount": Decimal("Infinity")}, f"amount must be {FINITE}, not Decimal('Infinity')"),
        ({"amount": -0.01}, f"amount must be {FINITE}, not -0.01"),
        ({"amount": "1"}, "amount must be a number of US dollars, not '1'"),
    ],
)
def test_a_usage_that_makes_no_sense_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        used(**wrong)
    assert str(caught.value) == f"usage: {message}"


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ({"input_tokens": MOST, "output_tokens": 0}, {"input_tokens": MOST}),
        ({"input_tokens": 12.0, "output_tokens": "3"}, {"input_tokens": 12, "output_tokens": 3}),
        ({"input_tokens": Decimal(12), "output_tokens": Fraction(3)}, {"input_tokens": 12, "output_tokens": 3}),
        ({"input_tokens": " 12 ", "cached_input_tokens": None}, {"input_tokens": 12}),
        ({"calls": None}, {}),
        ({"calls": "0", "amount": "0.5"}, {"calls": 0, "amount": Decimal("0.5")}),
    ],
)
def test_what_is_clearly_a_number_is_taken(given: dict[str, Any], taken: dict[str, Any]) -> None:
    assert reading(**given) == Reading(used(**taken))


@pytest.mark.parametrize(
    ("given", "taken", "problem"),
    [
        ({"input_tokens": None, "output_tokens": None}, {}, None),
        ({"input_tokens": 5, "output_tokens": None}, {"input_tokens": 5}, None),
        ({"input_tokens": -5, "output_tokens": 1}, {"output_tokens": 1}, f"input_tokens must be {INTEGER}, not -5"),
        ({"input_tokens": math.nan}, {}, f"input_tokens must be {INTEGER}, not nan"),
        ({"input_tokens": math.inf}, {}, f"input_tokens must be {INTEGER}, not inf"),
        ({"input_tokens": 1.5}, {}, f"input_tokens must be {INTEGER}, not 1.5"),
        ({"input_tokens": True}, {}, f"input_tokens must be {INTEGER}, not True"),
        ({"input_tokens": "many"}, {}, f"input_tokens must be {INTEGER}, not 'many'"),
        ({"input_tokens": MOST + 1}, {}, f"input_tokens must be {INTEGER}, not 1000000000001"),
        ({"input_tokens": "9" * 5000}, {}, f"input_tokens must be {INTEGER}, not '999999999999...9999999999999'"),
        ({"input_tokens": 10**5000}, {}, f"input_tokens must be {INTEGER}, not one of type int"),
        ({"input_tokens": [3]}, {}, f"input_tokens must be {INTEGER}, not [3]"),
        ({"calls": -1}, {}, f"calls must be {INTEGER}, not -1"),
        ({"input_tokens": 5, "cached_input_tokens": 6}, {"input_tokens": 5}, CACHED),
        ({"input_tokens": None, "cached_input_tokens": 6}, {}, None),
        ({"model": 3}, {"model": None}, f"model must be {UNNAMED}, not 3"),
        ({"provider": None, "calls": 5}, {"provider": "unknown", "calls": 5}, f"provider must be {UNNAMED}, not None"),
    ],
)
def test_what_cannot_be_read_is_unknown(given: dict[str, Any], taken: dict[str, Any], problem: str | None) -> None:
    assert reading(**given) == Reading(used(**taken), known=False, problem=problem)


@pytest.mark.parametrize("amount", [math.nan, -1, 10**15, "free", Rude()])
def test_an_amount_that_makes_no_sense_leaves_the_tokens(amount: Any) -> None:
    found = reading(input_tokens=5, amount=amount)
    assert found[:2] == (used(input_tokens=5), True)
    assert str(found.problem).startswith("amount must be a number of US dollars, not ")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (TimeoutError(), "timeout"),
        (KeyError("x"), "KeyError"),
        ("rate_limit", "rate_limit"),
        ("", "_OTHER"),
        (429, "429"),
        (Rude(), "_OTHER"),
    ],
)
@pytest.mark.parametrize("given", [{}, {"input_tokens": "5"}])
def test_an_error_is_read_as_its_class(error: Any, kind: str, given: dict[str, Any]) -> None:
    found = reading(error=error, **given)
    assert found == Reading(used(error_type=kind, input_tokens=5 if given else 0))


def test_values_whose_methods_raise() -> None:
    found = reading(provider=Rude(), model=Rude(), input_tokens=Rude(), calls=Rude(), amount=Rude())
    assert found[:2] == (Usage(provider="unknown"), False)
    assert str(found.problem).startswith("provider must be a string that is not empty, not <Rude instance at 0x")


def drain(runner: Runner, *reports: dict[str, Any]) -> RunResult:
    @stage
    def ask(sample: Sample) -> Sample:
        usage.report(**{"provider": "p", "model": "m", **sample.data})
        return sample

    prices = Prices([Price(provider="*", input_price=Decimal(2))], public=False)
    source = [Sample(id=str(number), data=data) for number, data in enumerate(reports)]
    return runner.run(Pipeline(name="p", source=source, stages=[ask], prices=prices)).drain()


@both_runners
def test_a_report_never_fails_its_sample(runner: Runner, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "forge"):
        result = drain(
            runner,
            {"input_tokens": 1},
            {"input_tokens": "10"},
            {"input_tokens": None},
            {"input_tokens": -1},
            {"input_tokens": 2**63},
            {"input_tokens": None, "amount": 7},
            {"input_tokens": 100, "amount": math.nan, "model": "n"},
        )
    assert result.ledger.ready == 7
    cost = result.cost
    assert (cost.calls, cost.unpriced, cost.input_tokens) == (7, 3, 111)
    assert cost.by_model == {("p", "m"): Decimal(2 + 20 + 7), ("p", "n"): Decimal(200)}
    assert sorted(caplog.messages) == [
        f"usage of model '{model}' of 'p': {problem}; so the cost of this run may be too low"
        for model, problem in [
            ("m", f"input_tokens must be {INTEGER}, not -1"),
            ("n", "amount must be a number of US dollars, not nan"),
        ]
    ]


def test_a_price_that_cannot_be_computed_does_not_fail_the_sample(caplog: pytest.LogCaptureFixture) -> None:
    class Faulty(Prices):
        def amount(self, usage: Usage, when: float) -> Decimal | None:
            raise LookupError("no such table")

    @stage
    def ask(sample: Sample) -> Sample:
        usage.report(provider="p", input_tokens=10**12)
        return sample

    dear = Prices([Price(provider="p", input_price=Decimal(10**14))], public=False)
    for prices, reason in ((dear, "usage: amount must be a number of US dollars that is"), (Faulty(), "no such table")):
        caplog.clear()
        result = BatchRunner().run(Pipeline(name="p", source=[1], stages=[ask], prices=prices)).drain()
        assert (result.ledger.ready, result.cost.unpriced, result.cost.amount) == (1, 1, Decimal(0))
        assert caplog.messages[0].startswith(f"usage of calls of 'p': the price cannot be computed: {reason}")


def test_outside_of_a_pipeline_it_is_said_as_well(caplog: pytest.LogCaptureFixture) -> None:
    usage.report(provider="p", input_tokens=-1)
    assert caplog.messages == [f"usage: input_tokens must be {INTEGER}, not -1"]
