"""The pipelines of the demo, each with the server that it calls."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from forge import Pipeline

from . import examples
from .errors import DemoError

if TYPE_CHECKING:
    from ..telemetry.providers import Providers


class Example(ABC):
    """A pipeline over a folder of Python files."""

    total: int
    """Number of samples in its source."""
    missing: str
    """Error message for a folder without samples."""

    @abstractmethod
    @contextmanager
    def pipeline(self, storage: str, out: Path) -> Iterator[Pipeline]:
        """Create the pipeline, and run the server that it calls while the block lasts."""

    @contextmanager
    def instrumented(self, telemetry: Providers) -> Iterator[None]:  # noqa: ARG002 - uses no other library
        """Instrument the libraries that the pipeline uses, while the block lasts."""
        yield


class Corpus(Example):
    """Functions and classes of source code, labelled by a service."""

    missing = "no .py files below it; choose a folder with Python code"

    def __init__(self, folder: Path, limit: int | None, max_cost: Decimal | None) -> None:
        if max_cost is not None:
            raise DemoError("--max-cost: the pipeline corpus has no costs; use --pipeline labels")
        self._example: Any = examples.load_example("code_corpus")
        self._folder = folder
        self._limit = limit
        self.total = len(self._example.python_files(folder, limit))

    @contextmanager
    def pipeline(self, storage: str, out: Path) -> Iterator[Pipeline]:
        with examples.load_example("annotation_service").AnnotationService() as service:
            yield self._example.code_corpus(
                self._folder, limit=self._limit, storage=storage, out=out, annotate_url=service.url
            )


class Labels(Example):
    """Paragraphs of documentation, labelled and embedded by a language model."""

    missing = "no .py files with a docstring in it; choose a folder with Python modules"

    def __init__(self, folder: Path, limit: int | None, max_cost: Decimal | None) -> None:
        self._example: Any = examples.load_example("llm_labels")
        self._folder = folder
        self._limit = limit
        self._max_cost = max_cost
        self.total = sum(1 for _ in self._example.documentation(folder, limit))

    @contextmanager
    def pipeline(self, storage: str, out: Path) -> Iterator[Pipeline]:  # noqa: ARG002 - writes no files
        with examples.load_example("llm_server").LLMServer() as server:
            yield self._example.llm_labels(
                self._folder, limit=self._limit, storage=storage, url=server.url, max_cost=self._max_cost
            )

    @contextmanager
    def instrumented(self, telemetry: Providers) -> Iterator[None]:
        instrumentation: Any = import_module("opentelemetry.instrumentation.genai.openai")
        instrumentor = instrumentation.OpenAIInstrumentor()
        instrumentor.instrument(
            tracer_provider=telemetry.tracer_provider,
            meter_provider=telemetry.meter_provider,
            logger_provider=telemetry.logger_provider,
        )
        try:
            yield
        finally:
            instrumentor.uninstrument()


EXAMPLES: Final[Mapping[str, type[Corpus] | type[Labels]]] = {"corpus": Corpus, "labels": Labels}
"""The examples, by the value of `--pipeline`."""
