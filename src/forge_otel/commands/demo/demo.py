"""The run of the demo."""

from __future__ import annotations

import logging
import os
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from opentelemetry.trace import Span, format_trace_id
from sqlalchemy import URL

from forge import ExitCode, RayRunner, Run, RunResult, SQLStorage
from forge.errors import ConfigurationError, StorageError
from forge.progress import progress
from forge_otel import ForgeInstrumentor

from ..command import print_json
from ..console import Output
from ..pages import pages_of
from ..runners import make_runner
from ..telemetry.prometheus import PrometheusEndpoint, serve
from ..telemetry.providers import Providers
from ..telemetry.run_report import report, show
from . import examples
from .errors import DemoError
from .pipelines import EXAMPLES


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of the command."""

    pipeline: str
    runner: str
    folder: Path | None
    limit: int
    max_cost: Decimal | None
    storage: str | None
    otlp: str | None
    out: Path
    rerun: bool
    prometheus: int | None
    pages: Mapping[str, str | None]
    as_json: bool


def run_demo(options: Options) -> int:
    """Run the demo; return the exit code of its run.

    Raises:
        DemoError: an option is invalid.
    """
    runner = make_runner(options.runner, resume=not options.rerun)
    _check_ray(options.runner)
    folder = _input(options.folder)
    out = _out(options.out)
    storage = options.storage or URL.create("sqlite", database=str(out / f"{options.pipeline}.db")).render_as_string()
    _check_storage(storage)
    example = EXAMPLES[options.pipeline](folder, options.limit, options.max_cost)
    if not example.total:
        raise DemoError(f"--input {folder}: {example.missing}")
    with ExitStack() as stack:
        stack.enter_context(_log_file(out / "demo.log"))
        prometheus = None
        if options.prometheus is not None:
            prometheus = PrometheusEndpoint(options.prometheus)
            stack.callback(prometheus.close)
        telemetry = Providers(
            "forge-demo",
            out / "telemetry",
            option="--out",
            replace=True,
            endpoint=options.otlp,
            prometheus=prometheus,
        )
        pipeline = stack.enter_context(example.pipeline(storage, out.absolute()))
        instrumentor = ForgeInstrumentor()
        pages: dict[str, str] = {}

        def run_ended(span: Span, _: Run, __: RunResult) -> None:
            if span.is_recording():
                pages.update(pages_of(format_trace_id(span.get_span_context().trace_id), options.pages))

        instrumentor.instrument(
            on_run_end=run_ended,
            tracer_provider=telemetry.tracer_provider,
            meter_provider=telemetry.meter_provider,
            logger_provider=telemetry.logger_provider,
        )
        stack.callback(instrumentor.uninstrument)
        stack.enter_context(example.instrumented(telemetry))
        if options.runner == RayRunner.name:
            stack.enter_context(examples.on_local_ray())
        run = runner.run(pipeline)
        run.worker_carrier.update(telemetry.variables(files=True))
        run.when_ended(lambda: _explain_termination(run, options.rerun))
        error = _drive(run, example.total)
        interrupted = isinstance(error, KeyboardInterrupt)
        assert instrumentor.telemetry is not None
        telemetry.finish(instrumentor.telemetry.delivery, instrumentor.telemetry.config.shutdown_timeout)
        if run.result is None:
            assert error is not None
            raise error
        document = report(run.result, telemetry, pages)
        if options.as_json:
            print_json(document)
        else:
            show(document, Output())
        if prometheus and not interrupted:
            serve(prometheus)
        if interrupted:
            _explain_resumption("interrupted", options.rerun)
    return run.result.exit_code


def _explain_resumption(how: str, rerun: bool) -> None:
    same = "without --rerun, it" if rerun else "the same command"
    print(f"forge-otel demo: {how}; {same} continues where this one stopped", file=sys.stderr, flush=True)  # noqa: T201


def _explain_termination(run: Run, rerun: bool) -> None:
    """Say how to go on when a signal is about to end the process: nothing else is done before."""
    if run.result is not None and run.result.exit_code in (ExitCode.TERMINATED, ExitCode.HUNG_UP):
        _explain_resumption("terminated", rerun)


def _drive(run: Run, total: int) -> BaseException | None:
    """Drain the run with a progress display; return the exception that ended it early, if any."""
    try:
        with progress(run, total=total, keys=True), run:
            run.drain()
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - reported by the summary
        return error
    return None


def _check_ray(runner: str) -> None:
    address = os.environ.get("RAY_ADDRESS", "local")
    if runner == RayRunner.name and address != "local":
        raise DemoError(
            f"--runner ray: RAY_ADDRESS is {address}, but the demo's services answer on this machine only; unset it"
        )


def _input(path: Path | None) -> Path:
    folder = path or Path(sysconfig.get_path("stdlib"))
    if not folder.exists():
        raise DemoError(f"--input {folder}: there is no such folder")
    if not folder.is_dir():
        raise DemoError(f"--input {folder}: not a folder")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise DemoError(f"--input {folder}: no permission to read it")
    return folder


def _out(out: Path) -> Path:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DemoError(f"--out {out}: cannot create this folder: {error.strerror}") from None
    if not os.access(out, os.W_OK | os.X_OK):
        raise DemoError(f"--out {out}: no permission to write there")
    return out


def _check_storage(url: str) -> None:
    try:
        storage = SQLStorage(url)
        storage.open()
        storage.close()
    except (ConfigurationError, StorageError) as error:
        raise DemoError(f"--storage: {' '.join(str(error).split())}") from None


@contextmanager
def _log_file(path: Path) -> Iterator[None]:
    """Write the log records of libraries to a file instead of the display."""
    handler = logging.FileHandler(path, mode="w", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()
