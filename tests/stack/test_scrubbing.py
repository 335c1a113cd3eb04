"""What looks like a secret leaves the Collector masked, wherever it stood, and is counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.waiting import wait_until

from .pipelines import finish, start_worker
from .programs import text
from .services import samples

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Stack

SECRETS = {
    "an email address": ("write to alice.b+c@mail.example.com please", "alice.b+c@mail.example.com"),
    "a URL's password": ("postgresql://forge:hunter2@db.example.com/corpus", "hunter2"),
    "a bearer token": ("Authorization: Bearer abc.DEF-123_456~789", "abc.DEF-123_456~789"),
    "a basic login": ('{"authorization": "Basic dXNlcjpodW50ZXIy"}', "dXNlcjpodW50ZXIy"),
    "a web token": ("token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl", "eyJhbGciOiJIUzI1NiJ9"),
    "an API key": ("Incorrect API key provided: sk-proj-abcdefghijklmnopqrstuv", "sk-proj-abcdefghijklmnopqrstuv"),
    "a GitHub token": ("fatal: ghp_abcdefghijklmnopqrstuvwxyz0123456789", "ghp_abcdefghijklmnopqrstuvwxyz0123456789"),
    "an AWS key": ("InvalidAccessKeyId AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7EXAMPLE"),
    "a password": ("cannot connect: password='correct horse'", "correct horse"),
    "a private key": (
        "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMG\n-----END PRIVATE KEY-----",
        "MIGHAgEAMBMG",
    ),
}
HARMLESS = "at line 12 of forge@v2: 3 input_tokens, basic information, key 0a1b2c3d4e5f, id 550e8400-e29b-41d4-a716"


def masked(collector_text: str, name: str) -> float:
    return sum(value for _, value in samples(collector_text, name))


@pytest.mark.parametrize(("message", "secret"), SECRETS.values(), ids=SECRETS.keys())
def test_it_is_masked_everywhere(stack: Stack, tmp_path: Path, message: str, secret: str) -> None:
    collector = stack.collector().run()
    finish(start_worker(collector.otlp, tmp_path / "db", {"good": 1, "bad": 1, "text": message}))

    statuses = [span["status"]["message"] for span in collector.spans() if span["status"].get("message")]
    assert statuses
    assert all("****" in status for status in statuses)
    written = [path.read_text() for path in collector.data.glob("*.jsonl")]
    for text_of_file in (*written, collector.log.read_text()):
        assert secret not in text_of_file.encode().decode("unicode_escape", errors="replace")
        assert "otel.status_description" not in text_of_file


def test_it_is_counted(stack: Stack, tmp_path: Path) -> None:
    collector = stack.collector().run()
    finish(start_worker(collector.otlp, tmp_path / "db", {"good": 5, "bad": 3, "text": "bob@example.com"}))

    spans = [span for span in collector.spans() if "redaction.masked.count" in span["attributes"]]
    logs = [log for log in collector.logs() if "redaction.masked.count" in log["attributes"]]
    assert {span["name"] for span in spans} == {"forge.sample", "forge.stage check"}
    assert {log["eventName"] for log in logs} == {"forge.stage.exception", "forge.dlq.enqueue"}
    assert (len(spans), len(logs)) == (6, 6)

    def counts() -> tuple[float, float]:
        scraped = text(f"http://{collector.scraped}/metrics")
        return masked(scraped, "scrubbed_spans_total"), masked(scraped, "scrubbed_log_records_total")

    # The body of the run's summary has the message, too.
    wait_until(lambda: counts() == (6, 7), "the counts are those of the masked records")


def test_other_text_is_left_alone(stack: Stack, tmp_path: Path) -> None:
    collector = stack.collector().run()
    finish(start_worker(collector.otlp, tmp_path / "db", {"good": 1, "bad": 1, "text": HARMLESS}))

    assert HARMLESS in {span["status"].get("message") for span in collector.spans()}
    for record in (*collector.spans(), *collector.logs()):
        assert not [key for key in record["attributes"] if key.startswith("redaction.")]
