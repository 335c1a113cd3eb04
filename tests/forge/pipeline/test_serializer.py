"""JSONSerializer: what it takes, what comes back, and that equal data gives equal bytes."""

from __future__ import annotations

import itertools
import json
import math
from collections import OrderedDict
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from forge.errors import SerializationError
from forge.pipeline.serializer import JSONSerializer, digest_of

SERIALIZER = JSONSerializer()


@pytest.mark.parametrize(
    "data",
    [
        None,
        True,
        0,
        -(10**30),
        1.5,
        math.inf,
        "",
        "nul \0, ü, 🐍",
        "half \ud800, \udcff",
        b"",
        b"\x00\xff",
        bytearray(b"\x00\xff"),
        [],
        [1, [2, [3]]],
        (),
        (1, ("a", [b"b"])),
        {},
        {"a": {"b": [1, None]}},
        {1: "one", None: "none", (1, "a"): "tuple", "1": "text"},
        {"$type": "tuple", "value": [1]},
        {"$type": {"$type": "set"}},
        {"value": 1},
        set(),
        {1, "a", (2, 3)},
        frozenset({frozenset({1}), frozenset()}),
        datetime(2026, 2, 3, 4, 5, 6, 7, tzinfo=timezone(timedelta(hours=-5, minutes=-30))),
        datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC),
        date(2026, 2, 3),
        time(4, 5, 6, 7),
        timedelta(days=-1, seconds=3, microseconds=5),
        Decimal("1.10"),
        UUID("12345678123456781234567812345678"),
    ],
    ids=itertools.count(),  # not by their values: a set's order is another one in each process
)
def test_data_comes_back_equal_and_of_the_same_type(data: Any) -> None:
    again = SERIALIZER.loads(SERIALIZER.dumps(data))
    assert again == data
    assert type(again) is type(data)


BERLIN = ZoneInfo("Europe/Berlin")
NAIVE = datetime.fromisoformat("2026-07-01T12:00:00")


@pytest.mark.parametrize(
    ("data", "encoded"),
    [
        (NAIVE, {"value": "2026-07-01T12:00:00"}),
        (NAIVE.replace(fold=1), {"value": "2026-07-01T12:00:00", "fold": 1}),
        (datetime(2026, 7, 1, 12, tzinfo=UTC), {"value": "2026-07-01T12:00:00+00:00"}),
        (datetime(2026, 7, 1, 12, tzinfo=BERLIN), {"value": "2026-07-01T12:00:00", "zone": "Europe/Berlin"}),
        (datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN), {"value": "2026-10-25T02:30:00", "zone": "Europe/Berlin"}),
        (
            datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=1),
            {"value": "2026-10-25T02:30:00", "zone": "Europe/Berlin", "fold": 1},
        ),
        (datetime(2026, 3, 29, 2, 30, tzinfo=BERLIN), {"value": "2026-03-29T02:30:00", "zone": "Europe/Berlin"}),
        (time(2, 30, tzinfo=BERLIN), {"value": "02:30:00", "zone": "Europe/Berlin"}),
        (time(2, 30, fold=1), {"value": "02:30:00", "fold": 1}),
        (time(2, 30, tzinfo=timezone(timedelta(hours=1))), {"value": "02:30:00+01:00"}),
    ],
    ids=str,
)
def test_times_come_back_with_zone_and_fold(data: Any, encoded: dict[str, Any]) -> None:
    content = SERIALIZER.dumps(data)
    again = SERIALIZER.loads(content)
    assert (again, again.tzinfo, again.fold) == (data, data.tzinfo, data.fold)
    assert json.loads(content) == {"$type": type(data).__name__, **encoded}


class Summer(tzinfo):
    """A zone of another library, whose clocks change at 3."""

    def utcoffset(self, moment: datetime | None) -> timedelta | None:
        return None if moment is None else timedelta(hours=2 - (moment.fold if moment.hour == 2 else 0))

    def dst(self, moment: datetime | None) -> timedelta | None:
        return self.utcoffset(moment)

    def tzname(self, moment: datetime | None) -> str:
        return "summer"


def test_a_zone_of_another_library_becomes_an_offset_where_that_is_equal() -> None:
    data = datetime(2026, 7, 1, 12, tzinfo=Summer())
    again = SERIALIZER.loads(SERIALIZER.dumps(data))
    assert again == data
    assert again.tzinfo == timezone(timedelta(hours=2))


@pytest.mark.parametrize(
    ("data", "zone"),
    [
        (datetime(2026, 10, 25, 2, 30, tzinfo=Summer()), "test_serializer.Summer"),
        (time(2, 30, tzinfo=Summer()), "test_serializer.Summer"),
        (datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo.no_cache("Europe/Berlin")), "zoneinfo.ZoneInfo"),
    ],
    ids=str,
)
def test_times_that_would_come_back_unequal_are_refused(data: Any, zone: str) -> None:
    with pytest.raises(SerializationError) as caught:
        SERIALIZER.dumps({"at": [data]})
    assert str(caught.value).replace(f"{__name__}.", "test_serializer.") == (
        f"data['at'][0] has a time zone of {zone} that cannot be stored; "
        "use zoneinfo.ZoneInfo, or convert the time to UTC"
    )


@pytest.mark.parametrize("kind", [str, int, float, bytes, list, dict, tuple, set, Decimal, UUID, timedelta])
def test_subclasses_are_refused(kind: type) -> None:
    special = type("Special", (kind,), {})
    values: dict[type, Any] = {UUID: special(int=1) if kind is UUID else None}
    with pytest.raises(SerializationError, match="Special, which JSON cannot hold"):
        SERIALIZER.dumps([values.get(kind) or special()])


def test_nan_comes_back() -> None:
    assert math.isnan(SERIALIZER.loads(SERIALIZER.dumps(math.nan)))


def test_plain_data_is_plain_json() -> None:
    assert SERIALIZER.dumps({"b": [1, 2.5, None, True], "a": "ü"}) == '{"a":"ü","b":[1,2.5,null,true]}'.encode()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({1: "a", 2: "b"}, {2: "b", 1: "a"}),
        ({"$type": 1, "a": 2}, {"a": 2, "$type": 1}),
        ({(1, 2): {3: 4, 5: 6}}, {(1, 2): {5: 6, 3: 4}}),
        ({8, 0}, {0, 8}),  # two that a set iterates in the order they came in
        (frozenset({"a", 1}), frozenset({1, "a"})),
    ],
    ids=itertools.count(),  # not by their values: a set's order is another one in each process
)
def test_equal_data_gives_equal_bytes(one: Any, other: Any) -> None:
    assert SERIALIZER.dumps(one) == SERIALIZER.dumps(other)


class Colour(StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    ("data", "where"),
    [
        (object(), "data is a builtins.object"),
        ({"a": [1, {"b": 1j}]}, "data['a'][1]['b'] is a builtins.complex"),
        ([Colour.RED], "data[0] is a test_serializer.Colour"),
        ({"a": OrderedDict()}, "data['a'] is a collections.OrderedDict"),
        ({Colour.RED: 1}, "data key is a test_serializer.Colour"),
        ({frozenset({1j})}, "data member member is a builtins.complex"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_json_cannot_hold_is_named_with_its_place(data: Any, where: str) -> None:
    with pytest.raises(SerializationError) as caught:
        SERIALIZER.dumps(data)
    assert str(caught.value).replace(f"{__name__}.", "test_serializer.") == (
        f"{where}, which JSON cannot hold; return plain data, or give the pipeline a serializer of its own"
    )


def test_data_that_contains_itself_is_refused() -> None:
    data: list[Any] = []
    data.append(data)
    with pytest.raises(SerializationError, match="nested too deeply or contains itself"):
        SERIALIZER.dumps(data)


def test_a_number_with_too_many_digits_is_refused() -> None:
    with pytest.raises(SerializationError, match="cannot be written as JSON"):
        SERIALIZER.dumps([10**5000])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff",
        b'{"$type":"no such type","value":1}',
        b'{"$type":"date"}',
        b'{"$type":"date","value":"yesterday"}',
        b'{"$type":"Decimal","value":"one"}',
        b'{"$type":"timedelta","value":7}',
        b'{"$type":["list"],"value":7}',
        b"[" * 100_000,
    ],
    ids=lambda data: ascii(data[:40]),
)
def test_bytes_that_it_did_not_write_are_refused(data: bytes) -> None:
    with pytest.raises(SerializationError, match="not data that JSONSerializer wrote"):
        SERIALIZER.loads(data)


def test_a_digest_is_sha_256_in_hex() -> None:
    assert digest_of(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
