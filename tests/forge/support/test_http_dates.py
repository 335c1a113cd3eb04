"""Every form of a `Retry-After`, in every local zone."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import pytest

from forge.support.http_dates import parse_date, seconds_to_wait

NOW = 784_111_777.0  # the date of the RFC's examples
FORMS = [
    "Sun, 06 Nov 1994 08:50:37 GMT",
    "Sunday, 06-Nov-94 08:50:37 GMT",
    "Sun Nov  6 08:50:37 1994",
    "Sun, 06 Nov 1994 08:50:37 -0000",
    "Sun, 06 Nov 1994 10:50:37 +0200",
    " Sun, 06 Nov 1994 08:50:37 GMT ",
]


@pytest.fixture(params=["America/New_York", "Asia/Tokyo", "UTC"])
def local_zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patched:
        patched.setenv("TZ", request.param)
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("local_zone")
@pytest.mark.parametrize("text", FORMS)
def test_every_form_of_a_date_in_every_local_zone(text: str) -> None:
    assert seconds_to_wait(text, NOW) == 60
    assert seconds_to_wait(text, NOW + 3600) == 0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120),
        (" 0 ", 0),
        ("1.5", 1.5),
        ("-5", 0),
        ("9" * 400, math.inf),
        ("inf", None),
        ("nan", None),
        ("1e3", None),
        ("1_0", None),
        ("\u0661", None),
        ("soon", None),
        ("", None),
        ("Sun, 06 Nov 99999 08:50:37 GMT", None),
        ("Sun, 31 Feb 1994 08:50:37 GMT", None),
    ],
)
def test_seconds_and_what_is_neither(text: str, seconds: float | None) -> None:
    assert seconds_to_wait(text, NOW) == seconds


def test_a_year_of_two_digits_is_at_most_50_years_ahead() -> None:
    def year(digits: str, now: float) -> int:
        moment = parse_date(f"Monday, 01-Mar-{digits} 00:00:00 GMT", now)
        assert moment is not None
        return time.gmtime(moment).tm_year

    in_2026 = 1_790_000_000.0
    assert [year(digits, in_2026) for digits in ("26", "68", "69", "76", "77", "99")] == [
        2026, 2068, 2069, 2076, 1977, 1999
    ]  # fmt: skip
    assert [year(digits, NOW) for digits in ("94", "44", "45", "00")] == [1994, 2044, 1945, 2000]
