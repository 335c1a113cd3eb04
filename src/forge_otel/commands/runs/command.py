"""The commands `forge runs` and `forge runs prune`."""

from __future__ import annotations

import click

from ..command import SETTINGS, DefaultGroup, age, command, json_option, positive, print_json
from ..errors import CommandError
from ..storage import opened, storage_option


@click.group("runs", cls=DefaultGroup, context_settings=SETTINGS)
@click.option("--pipeline", metavar="NAME", help="Only the runs of this pipeline.")
@click.option("--limit", type=positive, default=20, metavar="N", help="Maximum number of runs.")
@storage_option
@json_option
@click.pass_context
def runs(ctx: click.Context, *, pipeline: str | None, limit: int, url: str | None, as_json: bool) -> None:
    """List the runs that a storage has recorded.

    The newest comes first. A run can be named by the beginning of its id; `last` is the newest one, and `last~1` the
    one before.

    Exit codes: 0, or 2 if the storage cannot be read.
    """
    if ctx.invoked_subcommand is not None:
        return
    from forge import history  # noqa: PLC0415

    from .display import show_runs  # noqa: PLC0415

    with opened(url) as storage:
        found = history.runs(storage, pipeline=pipeline, limit=limit)
    if as_json:
        print_json([run.to_dict() for run in found])
    else:
        show_runs(found)


@command("prune")
@click.option("--older-than", type=age, required=True, metavar="AGE", help="Age of what is removed: 90d, 12h, 30m.")
@click.option("--pipeline", metavar="NAME", help="Only the runs of this pipeline.")
@click.option(
    "--artifacts",
    "artifacts_url",
    metavar="URL",
    help="Remove unused artifacts as well: from this folder or store.",
)
@click.option("--dry-run", is_flag=True, show_default=False, help="Only show what would be removed.")
@storage_option
@json_option
def prune(
    *,
    older_than: float,
    pipeline: str | None,
    artifacts_url: str | None,
    dry_run: bool,
    url: str | None,
    as_json: bool,
) -> None:
    """Remove the records of old runs, and artifacts that nobody refers to.

    Goes by the time when a run has ended, or has begun if it died. Samples, measured values and dead letters stay. With
    --artifacts, those artifacts are removed that are as old and whose keys occur neither in the ids nor in the data of
    any pipeline in the storage; not while a run is in progress, nor if data is not stored as text. A store that several
    databases refer to must not be pruned.

    Exit codes: 0, or 2 if something cannot be removed.
    """
    from forge import ArtifactStore  # noqa: PLC0415
    from forge.errors import ForgeError, StorageError  # noqa: PLC0415
    from forge.history import prune as remove  # noqa: PLC0415

    from .display import show_pruned  # noqa: PLC0415

    artifacts = None if artifacts_url is None else ArtifactStore(artifacts_url)
    with opened(url, writable=not dry_run) as storage:
        try:
            pruned = remove(storage, older_than, pipeline=pipeline, artifacts=artifacts, dry_run=dry_run)
        except StorageError as error:
            option = "--artifacts" if str(error).startswith("cannot use artifacts") else "--storage"
            raise CommandError(f"{option}: {' '.join(str(error).split())}") from None
        except ForgeError as error:
            raise CommandError(" ".join(str(error).split())) from None
    if as_json:
        print_json({"dry_run": dry_run, **pruned.to_dict()})
    else:
        show_pruned(pruned, dry_run=dry_run)


runs.add_command(prune)
