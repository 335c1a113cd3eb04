"""The service that the examples ask for labels: the same texts get the same answers."""

from __future__ import annotations

import itertools
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from email.message import Message
from typing import Any

import pytest

from forge_otel.commands.demo import examples

service = examples.load_example("annotation_service")


def text_whose_hash(fits: Callable[[int], bool]) -> str:
    """The first of a series of texts whose hash, as the service takes it, is as asked."""
    return next(
        text for number in itertools.count() if fits(service.number_of(text := f"def function_{number}():\n    pass"))
    )


REFUSED = text_whose_hash(lambda number: number % service.REFUSED_ALWAYS == 0)
BROKEN = text_whose_hash(lambda number: number % service.BROKEN_ALWAYS == 0)
LIMITED = text_whose_hash(
    lambda number: (
        number % service.LIMITED_ONCE == 0 and number % service.REFUSED_ALWAYS and number % service.BROKEN_ALWAYS
    )
)
SHAKY = text_whose_hash(
    lambda number: (
        number % service.BROKEN_ONCE == 0
        and all(number % other for other in (service.REFUSED_ALWAYS, service.BROKEN_ALWAYS, service.LIMITED_ONCE))
    )
)
PLAIN = '''async def fetch(url: str) -> bytes:
    """Get it."""
'''


@pytest.fixture
def running() -> Iterator[Any]:
    with service.AnnotationService() as running:
        yield running


def ask(running: Any, *texts: str) -> tuple[int, Message, Any]:
    request = urllib.request.Request(running.url, json.dumps(texts).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.headers, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, None


def test_labels_in_the_order_of_the_texts(running: Any) -> None:
    status, _, labels = ask(running, PLAIN, "class TestIt(unittest.TestCase): ...")
    assert status == 200
    assert labels == [
        {"documented": True, "typed": True, "test": False},
        {"documented": False, "typed": False, "test": True},
    ]


def test_some_texts_are_never_accepted(running: Any) -> None:
    assert [ask(running, REFUSED)[0] for _ in range(3)] == [422, 422, 422]


def test_some_texts_always_break_it(running: Any) -> None:
    assert [ask(running, BROKEN)[0] for _ in range(3)] == [503, 503, 503]


def test_a_rate_limit_says_when_to_come_back(running: Any) -> None:
    status, headers, _ = ask(running, LIMITED)
    assert (status, headers["Retry-After"]) == (429, "1")
    assert ask(running, LIMITED)[0] == 200


def test_a_text_that_breaks_it_once(running: Any) -> None:
    assert [ask(running, SHAKY)[0] for _ in range(2)] == [503, 200]


def test_one_text_decides_for_the_batch_and_all_count_as_seen(running: Any) -> None:
    assert ask(running, PLAIN, SHAKY, LIMITED, REFUSED)[0] == 422
    assert ask(running, PLAIN, SHAKY, LIMITED)[0] == 200
    assert running.answers == {422: 1, 200: 1}


def test_a_restart_forgets(running: Any) -> None:
    assert ask(running, SHAKY)[0] == 503
    with service.AnnotationService() as another:
        assert ask(another, SHAKY)[0] == 503
