"""The command `forge run`."""

from __future__ import annotations

from pathlib import Path

import click

from ..command import command, json_option, positive
from ..pages import pages_options
from ..run_options import files_option, prometheus_option, rerun_option, runner_option, settings_option


@command("run")
@click.argument("target", metavar="MODULE:PIPELINE")
@runner_option
@click.option("--limit", type=positive, metavar="N", help="Take only the first N samples.")
@settings_option
@rerun_option
@click.option(
    "--otlp",
    metavar="ENDPOINT",
    help="Send the telemetry to this endpoint: by gRPC to port 4317, by HTTP with protobuf to any other.",
)
@files_option
@prometheus_option
@pages_options
@json_option
def run(
    *,
    target: str,
    runner: str,
    limit: int | None,
    settings: tuple[str, ...],
    rerun: bool,
    otlp: str | None,
    files: Path | None,
    prometheus: int | None,
    trace_url: str | None,
    logs_url: str | None,
    as_json: bool,
) -> int:
    """Run a pipeline, show its progress, and print its report.

    MODULE:PIPELINE is a pipeline in a module of the current folder or of an installed package, or a function that
    returns one: `forge run pipeline:corpus --set folder=texts`. Values have the types of the function's annotations.
    Without --otlp, --files and --prometheus there is no telemetry but that of opentelemetry-instrument.

    Exit codes: 0 if no sample failed, 1 if the run failed, 2 if there is no such pipeline, 3 if some samples failed, 4
    if too many did, 128 plus the signal that ended it.
    """
    from .run import Options, run_pipeline  # noqa: PLC0415

    return run_pipeline(
        Options(
            target=target,
            runner=runner,
            limit=limit,
            settings=settings,
            rerun=rerun,
            otlp=otlp,
            files=files,
            prometheus=prometheus,
            pages={"trace": trace_url, "logs": logs_url},
            as_json=as_json,
        )
    )
