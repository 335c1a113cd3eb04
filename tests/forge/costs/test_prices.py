"""Prices: one's own table first, then the public ones, both by the time of the call."""

from __future__ import annotations

import importlib.util
import logging
import os
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from forge import BatchRunner, Pipeline, Price, Prices, Sample, StreamingRunner, Usage, stage, usage
from forge.errors import ConfigurationError
from tests.support.runs import samples

NOW = datetime(2026, 6, 1, tzinfo=UTC).timestamp()


def used(model: str | None = "gpt-4o-mini", provider: str = "openai", **numbers: Any) -> Usage:
    return Usage(provider=provider, model=model, **numbers)


def amount(prices: Prices, what: Usage, when: float = NOW) -> Decimal | None:
    return prices.amount(what, when)


def table(*entries: Price) -> Prices:
    return Prices(entries, public=False)


def price(**changes: Any) -> Price:
    return Price(**{"provider": "openai", "model": "gpt-4o-mini", "input_price": Decimal(1), **changes})


def test_tokens_and_calls_have_their_prices() -> None:
    prices = table(
        price(
            per=Decimal(10**6),
            input_price=Decimal("0.15"),
            cached_input_price=Decimal("0.075"),
            output_price=Decimal("0.6"),
            call_price=Decimal("0.001"),
        )
    )
    spent = amount(prices, used(input_tokens=1000, cached_input_tokens=100, output_tokens=500, calls=2))
    assert spent == Decimal("0.000135") + Decimal("0.0000075") + Decimal("0.0003") + Decimal("0.002")


def test_cached_input_costs_what_input_does_unless_it_has_a_price() -> None:
    assert amount(table(price()), used(input_tokens=10, cached_input_tokens=4)) == 10
    free = table(price(cached_input_price=Decimal(0)))
    assert amount(free, used(input_tokens=10, cached_input_tokens=4)) == 6


def test_the_first_entry_that_fits_counts() -> None:
    prices = table(
        price(model="gpt-4o-mini", input_price=1),
        price(model="gpt-4o*", input_price=2),
        price(provider="*", model="*", input_price=3),
        price(provider="ocr", model="*", call_price=4),
    )
    one: dict[str, Any] = {"input_tokens": 1}
    assert amount(prices, used("gpt-4o-mini", **one)) == 1
    assert amount(prices, used("GPT-4o-2024-08-06", "OpenAI", **one)) == 2
    assert amount(prices, used("claude", "anthropic", **one)) == 3
    assert amount(prices, used(None, "ocr", **one)) == 3
    assert amount(table(price(provider="ocr", model="*", input_price=None, call_price=4)), used(None, "ocr")) == 4
    assert amount(table(price()), used("gpt-4o", **one)) is None


class NoOffset(tzinfo):
    """A time zone that says nothing."""

    def utcoffset(self, _: datetime | None) -> None:
        return None

    dst = utcoffset

    def tzname(self, _: datetime | None) -> None:
        return None


@pytest.mark.parametrize(
    ("pattern", "names", "others"),
    [
        ("sonnet[1m]", ["sonnet[1m]", "Sonnet[1M]"], ["sonnet1", "sonnetm", "sonnet"]),
        ("sonnet*[1m]", ["sonnet-4[1m]"], ["sonnet-4", "sonnet-41"]),
        ("[x]*", ["[x]", "[x]y"], ["x", "xy"]),
        ("gpt-?", ["gpt-4", "gpt-?"], ["gpt-", "gpt-45"]),
        ("a]b", ["a]b"], ["ab"]),
        ("[!a]", ["[!a]"], ["b"]),
    ],
)
def test_brackets_in_names_stand_for_themselves(pattern: str, names: list[str], others: list[str]) -> None:
    prices = table(price(provider=pattern, model=pattern))
    assert [name for name in (*names, *others) if amount(prices, used(name, names[0], input_tokens=1))] == names
    assert [name for name in (*names, *others) if amount(prices, used(names[0], name, input_tokens=1))] == names


def test_prices_hold_from_one_moment_until_another() -> None:
    change = datetime(2026, 3, 1)  # noqa: DTZ001 - without a time zone it is in UTC
    prices = table(price(valid_until=change, input_price=1), price(valid_from=change, input_price=2))
    moment = change.replace(tzinfo=UTC).timestamp()
    assert amount(prices, used(input_tokens=1), moment - 0.001) == 1
    assert amount(prices, used(input_tokens=1), moment) == 2
    ended = table(price(valid_until=change))
    assert amount(ended, used(input_tokens=1), moment) is None
    east = timezone(timedelta(hours=2))
    assert amount(table(price(valid_from=change.replace(tzinfo=east))), used(input_tokens=1), moment - 7200) == 1
    floating = change.replace(tzinfo=NoOffset())
    assert price(valid_from=floating, valid_until=change + timedelta(1)).valid_from == change.replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"provider": ""}, "price: provider must be a string that is not empty"),
        ({"input_price": -1}, "price of openai: input_price must be a number of US dollars that is finite"),
        ({"per": 0}, "price of openai: per must be more than 0"),
        ({"input_price": None}, "price of openai: it says no price for input, output or calls"),
        ({"valid_from": "today"}, "price of openai: valid_from must be a datetime, not 'today'"),
        (
            {"valid_from": datetime(2026, 1, 1, tzinfo=UTC), "valid_until": datetime(2026, 1, 1, tzinfo=UTC)},
            "price of openai: it ends before it begins",
        ),
    ],
)
def test_a_price_that_makes_no_sense_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        price(**wrong)
    assert str(caught.value).startswith(message)


TABLE = """\
currency: USD
prices:
  - provider: openai
    model: text-embedding-*
    per: 1000
    input: 0.0001
  - provider: openai
    model: gpt-4o-mini
    per: 1e6
    input: 0.15
    cached_input: 0.075
    output: 0.60
    from: 2024-07-18
    until: 2027-01-01T12:00:00+01:00
  - provider: ocr-service
    call: 0.0015
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "prices.yaml"
    path.write_text(text)
    return path


def test_a_table_is_read_from_a_file(tmp_path: Path) -> None:
    assert Prices.load(written(tmp_path, TABLE)).entries == (
        Price(provider="openai", model="text-embedding-*", per=Decimal(1000), input_price=Decimal("0.0001")),
        Price(
            provider="openai",
            model="gpt-4o-mini",
            per=Decimal(10**6),
            input_price=Decimal("0.15"),
            cached_input_price=Decimal("0.075"),
            output_price=Decimal("0.60"),
            valid_from=datetime(2024, 7, 18, tzinfo=UTC),
            valid_until=datetime(2027, 1, 1, 11, tzinfo=UTC),
        ),
        Price(provider="ocr-service", call_price=Decimal("0.0015")),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prices: [", ": not YAML: "),
        ("", ":1: there must be a mapping with keys and values"),
        ("currency: USD\n", ": there must be a list called prices"),
        ("currency: EUR\nprices: []\n", ":1: currency is 'EUR'; all prices must be in USD"),
        ("prices: []\nrates: 1\n", ":2: unknown key 'rates'; there are currency, prices"),
        ("prices:\n  - openai\n", ":2: there must be a mapping with keys and values"),
        ("prices:\n  - input: 1\n", ":2: the provider is missing"),
        ("prices:\n  - provider: a\n    inputs: 1\n", ":3: unknown key 'inputs'; there are provider, model, per, "),
        ("prices:\n  - provider: a\n    input: cheap\n", ":3: input must be a number, not 'cheap'"),
        ("prices:\n  - provider: a\n    input: [1]\n", ":3: input must be one value"),
        ("prices:\n  - provider: a\n    input: 1\n    from: May\n", ":4: from must be a date or a time, such as"),
        ("prices:\n  - provider: a\n  - provider: b\n    input: 1\n", ":2: price of a: it says no price for"),
        ("prices:\n  - provider: a\n    input: nan\n", ":2: price of a: input_price must be a number of US dollars"),
        ("prices: []\nprices: []\n", ":2: the key 'prices' is there a second time"),
        ("currency: EUR\ncurrency: USD\nprices: []\n", ":2: the key 'currency' is there a second time"),
        ("prices:\n  - provider: a\n    input: 1\n    input: 2\n", ":4: the key 'input' is there a second time"),
        ("prices:\n  - {[a]: b}\n", ":2: a key must be one word"),
    ],
)
def test_errors_in_a_file_say_where_they_are(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigurationError) as caught:
        Prices.load(path)
    assert str(caught.value).startswith(f"{path}{message}")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="the prices cannot be read: "):
        Prices.load(tmp_path / "none.yaml")


@stage
def embed(sample: Sample) -> Sample:
    usage.report(provider="openai", model="text-embedding-3-small", input_tokens=1000)
    return sample


def test_the_environment_names_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORGE_PRICES", str(written(tmp_path, TABLE)))
    assert BatchRunner().run(Pipeline(name="p", source=[1], stages=[embed])).drain().cost.amount == Decimal("0.0001")
    own = table(Price(provider="openai", per=Decimal(1000), input_price=Decimal(5)))
    pipeline = Pipeline(name="p", source=[1], stages=[embed], prices=own)
    assert BatchRunner().run(pipeline).drain().cost.amount == 5


def test_a_faulty_table_stops_the_run_before_it_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORGE_PRICES", str(written(tmp_path, "prices: 1")))
    with pytest.raises(ConfigurationError, match=r"prices\.yaml: there must be a list called prices"):
        BatchRunner().run(Pipeline(name="p", source=[1], stages=[embed]))


def test_a_pipeline_takes_prices_only() -> None:
    with pytest.raises(ConfigurationError, match="prices must be Prices, not 'prices'"):
        Pipeline(name="p", source=[1], prices="prices")  # type: ignore[arg-type]


# The public prices


def test_the_public_prices_are_those_of_the_time_of_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    prices = Prices()
    before, after = (
        prices.amount(used("claude-sonnet-4-6", "anthropic", input_tokens=300_000, output_tokens=0), day.timestamp())
        for day in (datetime(2026, 3, 12, tzinfo=UTC), datetime(2026, 3, 14, tzinfo=UTC))
    )
    # Until then, what was longer than 200 000 tokens cost twice as much.
    assert (before, after) == (Decimal("1.8"), Decimal("0.9"))
    assert amount(prices, used("text-embedding-ada-002", input_tokens=1000)) == Decimal("0.0001")
    assert amount(prices, used("gpt-4o-mini", "azure.ai.openai", output_tokens=1000)) == Decimal("0.0006")
    cached = used("gpt-4o-mini", input_tokens=1000, cached_input_tokens=1000)
    assert amount(prices, cached) == Decimal("0.000075")


def test_what_nobody_knows_has_no_price() -> None:
    assert amount(Prices(), used("gpt-99-nano", input_tokens=1)) is None
    assert amount(Prices(), used("gpt-4o", "nobody", input_tokens=1)) is None
    assert amount(Prices(), used(None)) is None
    assert amount(Prices(public=False), used(input_tokens=1)) is None


def test_ones_own_table_goes_first() -> None:
    prices = Prices([price(model="gpt-4o*", input_price=7)])
    assert amount(prices, used("gpt-4o", input_tokens=1)) == 7
    assert amount(prices, used("text-embedding-ada-002", input_tokens=1000)) == Decimal("0.0001")


@pytest.mark.slow
def test_without_the_extra_it_runs_and_says_what_to_install(tmp_path: Path) -> None:
    """In a process in which neither package can be imported."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "sys.modules['genai_prices'] = sys.modules['yaml'] = None\n"
        "from forge import Prices, Usage\n"
        "from forge.errors import ConfigurationError\n"
        "assert Prices().amount(Usage(provider='openai', model='gpt-4o', input_tokens=1), 0) is None\n"
        "try:\n"
        "    Prices.load('prices.yaml')\n"
        "except ConfigurationError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, env=os.environ)
    assert (done.stdout, done.stderr) == (
        'prices.yaml: reading prices needs PyYAML; pip install "forge-otel[cost]"\n',
        "",
    )
    assert importlib.util.find_spec("genai_prices") is not None


def test_an_unknown_model_is_counted_and_named_once(caplog: pytest.LogCaptureFixture) -> None:
    @stage
    def label(sample: Sample) -> Sample:
        usage.report(provider="openai", model="gpt-99-nano", input_tokens=10, calls=2)
        usage.report(provider="openai", model="gpt-99-nano", amount=0.5)
        usage.report(provider="somewhere")
        return sample

    with caplog.at_level(logging.WARNING, "forge"):
        result = BatchRunner().run(Pipeline(name="p", source=samples(1, 2, 3), stages=[label])).drain()
    assert [record.getMessage() for record in caplog.records] == [
        "no price is known for model 'gpt-99-nano' of 'openai', so the cost of this run is too low; see FORGE_PRICES",
        "no price is known for calls of 'somewhere', so the cost of this run is too low; see FORGE_PRICES",
    ]
    assert [(charge.model, charge.calls, charge.unpriced, charge.amount) for charge in result.cost.charges] == [
        ("gpt-99-nano", 9, 6, Decimal("1.5")),
        (None, 3, 3, Decimal(0)),
    ]
    assert result.cost.unpriced == 9


@pytest.mark.slow
def test_a_million_calls_sum_to_the_cent() -> None:
    prices = table(Price(provider="openai", model="text-embedding-*", per=Decimal(1000), input_price=Decimal("0.0001")))

    @stage(concurrency=4)
    def embed_many(sample: Sample) -> Sample:
        for _ in range(100):
            usage.report(provider="openai", model="text-embedding-3-small", input_tokens=1370, calls=10)
        return sample

    pipeline = Pipeline(name="p", source=samples(*range(1000)), stages=[embed_many], prices=prices)
    cost = StreamingRunner().run(pipeline).drain().cost
    assert (cost.calls, cost.input_tokens) == (1_000_000, 137_000_000)
    assert cost.amount == Decimal("13.70")  # added up as floats it is 13.700000000010682
