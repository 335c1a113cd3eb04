"""Fixtures of the tests of the examples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import openai
import pytest

from forge_otel.commands.demo import examples

if TYPE_CHECKING:
    from collections.abc import Iterator

server = examples.load_example("llm_server")


@pytest.fixture
def running() -> Iterator[Any]:
    with server.LLMServer() as running:
        yield running


@pytest.fixture
def client(running: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=running.url, api_key="unused", max_retries=0) as client:
        yield client
