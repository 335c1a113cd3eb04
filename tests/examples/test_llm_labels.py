"""The example that asks a language model, and the server it asks, in the real API's wire format, by the real client."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from forge import BatchRunner, SampleStatus, SQLStorage, StreamingRunner
from forge.runner import Runner
from forge_otel.commands.demo import examples
from tests.support.runs import ledger

server = examples.load_example("llm_server")
example = examples.load_example("llm_labels")

SYSTEM = "Answer with one of network, text, system, other."
MODES = ("REFUSED_ALWAYS", "LIMITED_ONCE", "BROKEN_ONCE", "CHATTY_ONCE")


def text_that_is(mode: str | None) -> str:
    """The first of a series of texts that the server treats in this way only; None for none of them."""

    def fits(text: str) -> bool:
        number = server.number_of(text)
        return all((number % getattr(server, other) == 0) == (other == mode) for other in MODES)

    return next(
        text for n in itertools.count() if fits(text := f"The server number {n} opens its socket for a client.")
    )


PLAIN, REFUSED, LIMITED, BROKEN, CHATTY = (text_that_is(mode) for mode in (None, *MODES))


def ask(client: openai.OpenAI, text: str) -> Any:
    return client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]
    )


def test_a_completion_says_what_it_used(running: Any, client: openai.OpenAI) -> None:
    first, second = ask(client, PLAIN), ask(client, PLAIN)
    assert first.choices[0].message.content == "network"
    sent = len(re.findall(r"\w+|[^\w\s]", SYSTEM)) + len(re.findall(r"\w+|[^\w\s]", PLAIN))
    assert (first.usage.prompt_tokens, first.usage.completion_tokens, first.usage.total_tokens) == (sent, 1, sent + 1)
    assert first.usage.prompt_tokens_details.cached_tokens == 0
    assert second.usage.prompt_tokens_details.cached_tokens == len(re.findall(r"\w+|[^\w\s]", SYSTEM))
    account = running.ledger["gpt-4o-mini"]
    assert (account.calls, account.input_tokens, account.output_tokens) == (2, 2 * sent, 2)
    assert account.cached_input_tokens == second.usage.prompt_tokens_details.cached_tokens


@pytest.mark.parametrize("include_usage", [True, False])
def test_a_streamed_completion_is_the_same_in_parts(running: Any, client: openai.OpenAI, include_usage: bool) -> None:
    chunks = list(
        client.chat.completions.create(
            model="gpt-4o-mini",
            messages=[{"role": "system", "content": SYSTEM}, {"role": "user", "content": CHATTY}],
            stream=True,
            stream_options={"include_usage": include_usage},
        )
    )
    content = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    assert "".join(content) == "Well, I would say that it is network, but it depends."
    assert len(content) == 1 + 11 + 1
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    said = [chunk.usage for chunk in chunks if chunk.usage is not None]
    account = running.ledger["gpt-4o-mini"]
    assert account.output_tokens == 14
    assert [usage.completion_tokens for usage in said] == ([14] if include_usage else [])
    assert [usage.prompt_tokens for usage in said] == ([account.input_tokens] if include_usage else [])


def test_embeddings_in_base64_and_in_plain_numbers(running: Any, client: openai.OpenAI) -> None:
    packed = client.embeddings.create(model="text-embedding-3-small", input=[PLAIN, "two words"])
    plain = client.embeddings.create(model="text-embedding-3-small", input="two words", encoding_format="float")
    assert [each.index for each in packed.data] == [0, 1]
    assert math.hypot(*packed.data[0].embedding) == pytest.approx(1, rel=1e-6)
    assert packed.data[1].embedding == pytest.approx(plain.data[0].embedding, rel=1e-6)
    assert plain.usage.prompt_tokens == 2
    account = running.ledger["text-embedding-3-small"]
    assert (account.calls, account.input_tokens) == (2, packed.usage.prompt_tokens + 2)


@pytest.mark.parametrize(
    ("text", "status", "error"),
    [(LIMITED, 429, openai.RateLimitError), (BROKEN, 500, openai.InternalServerError)],
)
def test_what_fails_the_first_time_costs_nothing(
    running: Any, client: openai.OpenAI, text: str, status: int, error: type[openai.APIStatusError]
) -> None:
    with pytest.raises(error) as caught:
        ask(client, text)
    if status == 429:
        assert caught.value.response.headers["Retry-After"] == "1"
        assert caught.value.code == "rate_limit_exceeded"
    assert ask(client, text).choices[0].message.content == "network"
    assert running.ledger["gpt-4o-mini"].calls == 1
    assert running.answers == {status: 1, 200: 1}


def test_what_is_refused_is_refused_again(running: Any, client: openai.OpenAI) -> None:
    for _ in range(2):
        with pytest.raises(openai.BadRequestError):
            ask(client, REFUSED)
    assert running.answers == {400: 2}
    assert running.ledger == {}


def module(folder: Path, name: str, *paragraphs: str) -> None:
    (folder / name).write_text('"""' + "\n\n".join(paragraphs) + '"""\n')


def run_example(runner: Runner, running: Any, folder: Path, **options: Any) -> Any:
    settings: dict[str, Any] = {"limit": None, "storage": f"sqlite:///{folder}/labels.db", "max_cost": None}
    pipeline = example.llm_labels(folder, url=running.url, **{**settings, **options})
    return runner.run(pipeline).drain()


@pytest.mark.slow
@pytest.mark.parametrize("make", [BatchRunner, StreamingRunner])
def test_the_example_labels_what_is_prose_and_asks_nothing_twice(
    make: Callable[[], Runner], running: Any, tmp_path: Path
) -> None:
    module(tmp_path, "a.py", PLAIN, "Too short.", CHATTY)
    module(tmp_path, "b.py", BROKEN, REFUSED)
    (tmp_path / "c.py").write_text("# without documentation\n")
    result = run_example(make(), running, tmp_path)
    assert ledger(result) == {"admitted": 2, "derived": 5, "split": 2, "ready": 3, "skipped": 1, "dlq": 1}
    assert result.dead_letters == {("stage", "is_prose", "client_error"): 1}
    storage = SQLStorage(f"sqlite:///{tmp_path}/labels.db")
    found = {record.id: record.data for record in storage.query("llm_labels", status=SampleStatus.READY).samples}
    storage.close()
    assert sorted(found) == ["a.py#0", "a.py#2", "b.py#0"]
    assert all(b'"label":"network"' in (data or b"") for data in found.values())
    # Two questions for each of the three, one for the short one; chatter to both questions, and a 500 to both.
    assert running.ledger["gpt-4o-mini"].calls == 2 * 3 + 1 + 2
    assert running.answers[500] == 2
    assert [stage.retries for stage in result.stages] == [0, 2, 2]

    before = running.ledger["gpt-4o-mini"].calls
    again = run_example(make(), running, tmp_path)
    assert ledger(again) == {"admitted": 2, "derived": 2, "split": 1, "unchanged": 2, "dlq": 1}
    assert running.ledger["gpt-4o-mini"].calls == before


@pytest.mark.slow
def test_the_limit_is_a_number_of_modules(running: Any, tmp_path: Path) -> None:
    for name in ("a.py", "b.py", "c.py"):
        module(tmp_path, name, PLAIN)
    assert run_example(BatchRunner(), running, tmp_path, limit=2).ledger.admitted == 2


def test_the_pipeline_has_no_word_about_telemetry() -> None:
    assert example.__file__ is not None
    text = Path(example.__file__).read_text().lower()
    assert [word for word in ("otel", "telemetry", "usage.report", "span", "metric") if word in text] == []
