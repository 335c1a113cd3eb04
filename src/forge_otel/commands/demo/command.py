"""The command `forge-otel demo`."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import click

from ..command import command, dollars, json_option, positive
from ..pages import pages_options
from ..run_options import prometheus_option, rerun_option, runner_option


@command("demo", extra="demo")
@click.option(
    "--pipeline",
    type=click.Choice(["corpus", "labels"]),
    default="corpus",
    help="corpus: source code, as above; labels: documentation of modules, labelled and embedded by a language model "
    "that a server on this machine simulates.",
)
@runner_option
@click.option(
    "--input",
    "folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    show_default="Python's standard library",
    help="Folder with Python files.",
)
@click.option(
    "--limit", type=positive, default=500, metavar="N", help="Maximum number of files, spread over the input."
)
@click.option("--max-cost", type=dollars, metavar="USD", help="Stop at this amount of costs; for --pipeline labels.")
@click.option("--storage", metavar="URL", show_default="SQLite in --out", help="sqlite:///FILE or postgresql://…")
@click.option(
    "--otlp",
    metavar="ENDPOINT",
    help="Also send the telemetry to this endpoint: by gRPC to port 4317, by HTTP with protobuf to any other.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), default="demo-out", metavar="DIR", help="Folder for all results."
)
@rerun_option
@prometheus_option
@pages_options
@json_option
def demo(
    *,
    pipeline: str,
    runner: str,
    folder: Path | None,
    limit: int,
    max_cost: Decimal | None,
    storage: str | None,
    otlp: str | None,
    out: Path,
    rerun: bool,
    prometheus: int | None,
    trace_url: str | None,
    logs_url: str | None,
    as_json: bool,
) -> int:
    """Run a pipeline on real files and view its telemetry.

    Builds a dataset of source code: splits Python files into functions and classes, labels them with a service,
    measures and stores them. Writes the telemetry to DIR/telemetry/{traces,metrics,logs}.jsonl, replacing the files of
    earlier runs. A second run skips the samples that the first one finished. --runner ray starts Ray on this machine.

    Exit codes: 0 if no sample failed, 1 if the run failed, 3 if some samples failed, 4 if too many did, 128 plus the
    signal that ended it.
    """
    from .demo import Options, run_demo  # noqa: PLC0415

    return run_demo(
        Options(
            pipeline=pipeline,
            runner=runner,
            folder=folder,
            limit=limit,
            max_cost=max_cost,
            storage=storage,
            otlp=otlp,
            out=out,
            rerun=rerun,
            prometheus=prometheus,
            pages={"trace": trace_url, "logs": logs_url},
            as_json=as_json,
        )
    )
