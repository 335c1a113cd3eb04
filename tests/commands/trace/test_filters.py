"""Conditions on spans and log records."""

from __future__ import annotations

import pytest

from forge_otel.commands.errors import CommandError
from forge_otel.commands.trace.filters import parse
from forge_otel.commands.trace.records import LogRecord, Span

RESOURCE = {"service.name": "corpus"}
SPAN = Span(
    "ab12",
    "cd",
    "",
    "forge.stage annotate",
    0,
    1_500_000_000,
    True,
    "429, Too Many Requests",
    {
        "forge.stage.name": "annotate",
        "forge.sample.id": "a b",
        "error.type": "rate_limit",
        "forge.stage.batch.size": 16,
        "forge.stage.queue.wait": 0.25,
        "forge.stage.batch.failed": True,
    },
    RESOURCE,
)
LOG = LogRecord("forge.stage.retry", 0, "ab12", "cd", "INFO", "Stage retries: annotate", {}, RESOURCE)


@pytest.mark.parametrize(
    ("text", "span", "log"),
    [
        ("", True, True),
        ("forge.stage.name=annotate error.type=rate_limit", True, False),
        ("forge.stage.name=annotate error.type=timeout", False, False),
        ("forge.sample.id='a b'", True, False),
        ("error.type=", False, True),
        ("error.type!=timeout", True, True),
        ("error.type!=rate_limit", False, True),
        ("forge.stage.batch.size=16", True, False),
        ("forge.stage.batch.size>15 forge.stage.batch.size<=16.0", True, False),
        ("forge.stage.queue.wait>=250ms", True, False),
        ("forge.stage.batch.failed=true", True, False),
        ("duration>1s", True, False),
        ("duration>1.5", False, False),
        ("duration<0.1m", True, False),
        ("status=error", True, False),
        ("name~^forge\\.stage", True, True),
        ("name=forge.stage.retry", False, True),
        ("name!~annotate$", False, True),
        ("trace_id~^ab", True, True),
        ("severity=info", False, True),
        ("service.name=corpus", True, True),
        ("message~retries", False, True),
        ("too many", True, False),
        ("ANNOTATE", True, True),
    ],
)
def test_conditions(text: str, span: bool, log: bool) -> None:
    matches = parse(text)
    assert (matches(SPAN), matches(LOG)) == (span, log)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name~(", "name~(: is not a regular expression: missing ), unterminated subpattern at position 0"),
        ("duration>soon", "duration>soon: 'soon' is not a number, or a duration like 1.5s"),
        ("name='a", "\"name='a\": No closing quotation; quote values with blanks, like forge.sample.id='a b'"),
    ],
)
def test_what_is_no_condition(text: str, message: str) -> None:
    with pytest.raises(CommandError) as caught:
        parse(text)
    assert str(caught.value) == message


def test_a_misspelled_key_is_named() -> None:
    matches = parse("forge.stage.nam=annotate")
    assert not matches(SPAN)
    assert matches.suggestion() == "no record has forge.stage.nam; there is forge.stage.name"
    matches = parse("forge.stage.name=other qqq=1")
    assert not matches(SPAN)
    assert matches.suggestion() == "no record has qqq"
    matches = parse("forge.stage.name=other")
    assert not matches(SPAN)
    assert matches.suggestion() == ""
