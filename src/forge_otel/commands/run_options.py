"""Options that several commands have which run a pipeline."""

from __future__ import annotations

from pathlib import Path

import click

from .command import port

runner_option = click.option(
    "--runner",
    type=click.Choice(["streaming", "batch", "ray"]),
    default="streaming",
    help="streaming: all stages at the same time; batch: one call at a time; ray: on a Ray cluster.",
)

settings_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Argument of the function MODULE:PIPELINE, which returns the pipeline. Repeat it for others and for lists.",
)

rerun_option = click.option(
    "--rerun",
    is_flag=True,
    show_default=False,
    help="Process finished samples again; measurements come from the cache.",
)

files_option = click.option(
    "--files",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Append the telemetry to DIR/{traces,metrics,logs}.jsonl.",
)

prometheus_option = click.option(
    "--prometheus",
    type=port,
    metavar="PORT",
    help="Serve the metrics on this port of 127.0.0.1, after the end of the run until they are scraped once.",
)
