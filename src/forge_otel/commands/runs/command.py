"""The command `forge runs`."""

from __future__ import annotations

import json

import click

from ..command import command, json_option, positive
from ..storage import opened, storage_option


@command("runs")
@click.option("--pipeline", metavar="NAME", help="Only the runs of this pipeline.")
@click.option("--limit", type=positive, default=20, metavar="N", help="Maximum number of runs.")
@storage_option
@json_option
def runs(*, pipeline: str | None, limit: int, url: str | None, as_json: bool) -> None:
    """List the runs that a storage has recorded.

    The newest comes first. A run can be named by the beginning of its id; `last` is the newest one, and `last~1` the
    one before.

    Exit codes: 0, or 2 if the storage cannot be read.
    """
    from forge import history  # noqa: PLC0415

    from .display import show_runs  # noqa: PLC0415

    with opened(url) as storage:
        found = history.runs(storage, pipeline=pipeline, limit=limit)
    if as_json:
        print(json.dumps([run.to_dict() for run in found], indent=2, ensure_ascii=False))  # noqa: T201
    else:
        show_runs(found)
