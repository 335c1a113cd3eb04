"""The run of a pipeline from the command line."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from opentelemetry.trace import Span, format_trace_id

from forge import ExitCode, Pipeline, Run, RunResult
from forge.errors import ForgeError
from forge.progress import progress

from .. import next_commands
from ..command import command_path, print_json
from ..console import Output
from ..pages import pages_of
from ..printing import print_next
from ..runners import make_runner
from ..storage import following
from ..telemetry.run_report import report, show
from .load import load

if TYPE_CHECKING:
    from forge.runner import Runner

    from ...instrumentor import ForgeInstrumentor
    from ..telemetry.prometheus import PrometheusEndpoint
    from ..telemetry.providers import Providers


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of the command."""

    target: str
    runner: str
    limit: int | None
    settings: Sequence[str]
    rerun: bool
    otlp: str | None
    files: Path | None
    prometheus: int | None
    as_json: bool
    pages: Mapping[str, str | None] = field(default_factory=dict)
    """Templates of the addresses of pages about a trace, by what they show."""
    start: Callable[[Runner, Pipeline], Run] | None = None
    """Creates the run; None for one of the pipeline's source."""


def run_pipeline(options: Options) -> int:
    """Run a pipeline; return the exit code of its run.

    Raises:
        CommandError: there is no such pipeline, or an option is invalid.
    """
    with ExitStack() as stack:
        output = stack.enter_context(ExitStack())
        if options.as_json:
            output.enter_context(redirect_stdout(sys.stderr))  # what the pipeline prints is not part of the document
        runner = make_runner(options.runner, resume=not options.rerun, introspect=True)
        pipeline = load(options.target, options.settings)
        telemetry = _Telemetry(options, pipeline, stack) if _wants_telemetry(options) else None
        run = options.start(runner, pipeline) if options.start else runner.run(pipeline, limit=options.limit)
        if telemetry is not None:
            run.worker_carrier.update(telemetry.providers.variables())
        command = command_path()  # which is known on this thread only
        run.when_ended(lambda: _explain_termination(run, command))
        error = _drive(run)
        if telemetry is not None:
            telemetry.finish()
        output.close()
        if run.result is None:
            assert error is not None
            raise error
        if telemetry is not None:
            document = report(run.result, telemetry.providers, telemetry.pages)
        else:
            document = run.result.to_dict()
        if options.as_json:
            print_json(document)
        else:
            if isinstance(error, Exception) and not isinstance(error, ForgeError):
                traceback.print_exception(error)
            out = Output()
            show(document, out)
            print_next(_next(run, options), out)
        interrupted = isinstance(error, KeyboardInterrupt)
        if telemetry is not None and telemetry.prometheus is not None and not interrupted:
            telemetry.serve()
        if interrupted:
            _explain_resumption(command, "interrupted", pipeline)
        return run.result.exit_code


class _Telemetry:
    """The telemetry that options ask for: the pipeline is instrumented, until the stack is closed."""

    def __init__(self, options: Options, pipeline: Pipeline, stack: ExitStack) -> None:
        from ...instrumentor import ForgeInstrumentor  # noqa: PLC0415 - a run without telemetry does without
        from ..telemetry.prometheus import PrometheusEndpoint  # noqa: PLC0415
        from ..telemetry.providers import Providers  # noqa: PLC0415

        self.prometheus: PrometheusEndpoint | None = None
        if options.prometheus is not None:
            self.prometheus = PrometheusEndpoint(options.prometheus)
            stack.callback(self.prometheus.close)
        self.providers: Providers = Providers(
            pipeline.name, options.files, option="--files", endpoint=options.otlp, prometheus=self.prometheus
        )
        self._instrumentor: ForgeInstrumentor = ForgeInstrumentor()
        self.pages: dict[str, str] = {}
        """Addresses of pages about the run's trace, once it has ended."""

        def run_ended(span: Span, _: Run, __: RunResult) -> None:
            if span.is_recording():
                self.pages.update(pages_of(format_trace_id(span.get_span_context().trace_id), options.pages))

        self._instrumentor.instrument(
            on_run_end=run_ended,
            tracer_provider=self.providers.tracer_provider,
            meter_provider=self.providers.meter_provider,
            logger_provider=self.providers.logger_provider,
        )
        stack.callback(self._instrumentor.uninstrument)

    def finish(self) -> None:
        """Deliver what there is."""
        telemetry = self._instrumentor.telemetry
        assert telemetry is not None
        self.providers.finish(telemetry.delivery, telemetry.config.shutdown_timeout)

    def serve(self) -> None:
        """Serve the final metrics until they are scraped once."""
        from ..telemetry.prometheus import serve  # noqa: PLC0415

        assert self.prometheus is not None
        serve(self.prometheus)


def _wants_telemetry(options: Options) -> bool:
    return any(option is not None for option in (options.otlp, options.files, options.prometheus))


def _drive(run: Run) -> BaseException | None:
    """Drain the run, showing its progress; return the exception that ended it early, if any."""
    try:
        with progress(run, keys=True), run:
            run.drain()
    except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001 - reported below
        return error
    return None


def _next(run: Run, options: Options) -> Iterator[str]:
    """Yield commands that show more."""
    storage, result = run.pipeline.storage, run.result
    if storage is not None and result is not None:
        place = ["--storage", storage.url]
        yield following("forge show", result.run_id[:8], options=place)
        if result.ledger.dlq:
            yield following("forge dlq list", options=place)
    if options.files is not None:
        yield next_commands.command("forge-otel", "read", str(options.files))


def _explain_termination(run: Run, command: str) -> None:
    """Say how to go on when a signal is about to end the process: nothing else is done before."""
    if run.result is not None and run.result.exit_code in (ExitCode.TERMINATED, ExitCode.HUNG_UP):
        _explain_resumption(command, "terminated", run.pipeline)


def _explain_resumption(command: str, how: str, pipeline: Pipeline) -> None:
    does = "continues where this one stopped" if pipeline.storage is not None else "starts over: it has no storage"
    print(f"{command}: {how}; the same command {does}", file=sys.stderr, flush=True)  # noqa: T201
