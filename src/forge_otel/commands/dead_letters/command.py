"""The commands `forge dlq`."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..command import SETTINGS, Group, age, command, json_option, positive, print_json
from ..errors import CommandError
from ..run_options import files_option, runner_option, settings_option
from ..storage import opened, storage_option

if TYPE_CHECKING:
    from forge import DeadLetter, SQLStorage
    from forge.history.dead_letters import DeadLetterFilter


@click.group("dlq", cls=Group, context_settings=SETTINGS)
def dlq() -> None:
    """List, inspect, replay and drop dead letters: the samples that failed.

    There is one for each failed sample. A run or a replay in which the sample succeeds removes it.
    """


def filters(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that choose dead letters; the function gets their values as `chosen`, for `filter_of`."""
    options = (
        click.option("--pipeline", metavar="NAME", help="Only those of this pipeline."),
        click.option("--stage", "where", metavar="NAME", help="Only those of this stage, measurement or storage."),
        click.option("--error", "error_type", metavar="TYPE", help="Only those with this class of error."),
        click.option("--run", "run", metavar="RUN", help="Only those of this run: its id, the start of it, or last."),
        click.option("--id", "ids", multiple=True, metavar="ID", help="Only that of this sample; may be repeated."),
        click.option("--older-than", type=age, metavar="AGE", help="Only those that failed before: 90d, 12h, 30m ago."),
        click.option("--newer-than", type=age, metavar="AGE", help="Only those that failed since."),
    )
    names = ("pipeline", "where", "error_type", "run", "ids", "older_than", "newer_than")

    @functools.wraps(function)
    def with_filters(**values: Any) -> Any:
        return function(chosen={name: values.pop(name) for name in names}, **values)

    decorated: Callable[..., Any] = with_filters
    for option in reversed(options):
        decorated = option(decorated)
    return decorated


def filter_of(chosen: dict[str, Any], storage: SQLStorage, pipeline: str | None = None) -> DeadLetterFilter:
    """Return the filter that the options describe; `pipeline` replaces that of the options.

    Raises:
        CommandError: there is no such run.
    """
    from forge.errors import RunNotFoundError  # noqa: PLC0415
    from forge.history import find_run  # noqa: PLC0415
    from forge.history.dead_letters import DeadLetterFilter  # noqa: PLC0415

    now = time.time()
    pipeline = pipeline or chosen["pipeline"]
    run_id = None
    if chosen["run"] is not None:
        try:
            run_id = find_run(storage, chosen["run"], pipeline=pipeline).id
        except RunNotFoundError as error:
            raise CommandError(f"--run: {error}") from None
    older, newer = chosen["older_than"], chosen["newer_than"]
    return DeadLetterFilter(
        pipeline=pipeline,
        where=chosen["where"],
        error_type=chosen["error_type"],
        run_id=run_id,
        ids=chosen["ids"],
        since=None if newer is None else now - newer,
        until=None if older is None else now - older,
    )


@command("list")
@filters
@click.option("--limit", type=positive, default=20, metavar="N", help="Maximum number of them, the oldest first.")
@storage_option
@json_option
def list_letters(*, chosen: dict[str, Any], limit: int, url: str | None, as_json: bool) -> None:
    """List dead letters, with their number by stage and class of error.

    Exit codes: 0, or 2 if the storage cannot be read.
    """
    from .display import document_of, show_letters  # noqa: PLC0415

    with opened(url) as storage:
        choice = filter_of(chosen, storage)
        counts, entries = choice.count(storage), choice.find(storage, limit)
    if as_json:
        numbers = [
            {"pipeline": pipeline, "where": where, "error_type": kind, "count": count}
            for (pipeline, where, kind), count in counts.items()
        ]
        print_json({"counts": numbers, "dead_letters": [document_of(entry) for entry in entries]})
    else:
        show_letters(entries, counts)


@command("show")
@click.argument("sample_id", metavar="ID")
@click.option("--pipeline", metavar="NAME", help="Pipeline of the sample, where several have one with this id.")
@storage_option
@json_option
def show_letter(*, sample_id: str, pipeline: str | None, url: str | None, as_json: bool) -> None:
    """Show one dead letter: the error with its message, the data, the run and the trace.

    Exit codes: 0, or 2 if there is no such dead letter.
    """
    from forge.support.text import visible  # noqa: PLC0415

    from .display import document_of, show_entry  # noqa: PLC0415

    with opened(url) as storage:
        entries = storage.dead_letters(pipeline, ids=[sample_id])
    if not entries:
        raise CommandError(f"sample {sample_id!r} has no dead letter")
    if len(entries) > 1:
        names = ", ".join(visible(entry.pipeline) for entry in entries)
        raise CommandError(
            f"sample {sample_id!r} has a dead letter in several pipelines ({names}): add --pipeline NAME"
        )
    if as_json:
        print_json(document_of(entries[0], with_data=True))
    else:
        show_entry(entries[0])


@command("replay")
@click.argument("target", metavar="MODULE:PIPELINE")
@filters
@runner_option
@settings_option
@click.option("--dry-run", is_flag=True, show_default=False, help="Only show what would be replayed.")
@click.option("--otlp", metavar="ENDPOINT", help="Send the telemetry to this endpoint, as forge run does.")
@files_option
@json_option
def replay_letters(
    *,
    target: str,
    chosen: dict[str, Any],
    runner: str,
    settings: tuple[str, ...],
    dry_run: bool,
    otlp: str | None,
    files: Path | None,
    as_json: bool,
) -> int:
    """Process dead letters again, after the cause was mended.

    Takes the dead letters of the pipeline instead of its source, with the data that they had: all of them, or those
    that the options choose. A sample that succeeds loses its dead letter; one that fails again gets a new one. It is a
    run of its own type, `replay`; its spans link to those of the failures.

    Exit codes: those of forge run.
    """
    from .replay import replay  # noqa: PLC0415

    return replay(
        target, chosen, runner=runner, settings=settings, dry_run=dry_run, otlp=otlp, files=files, as_json=as_json
    )


@command("drop")
@filters
@click.option("--all", "everything", is_flag=True, show_default=False, help="Drop all of them, without a filter.")
@click.option("--dry-run", is_flag=True, show_default=False, help="Only show what would be dropped.")
@click.option("--yes", is_flag=True, show_default=False, help="Do not ask.")
@storage_option
@json_option
def drop_letters(
    *, chosen: dict[str, Any], everything: bool, dry_run: bool, yes: bool, url: str | None, as_json: bool
) -> int:
    """Drop dead letters, after showing them and asking.

    Their samples keep the status dlq, so the next run tries them again; to leave them out, change the source.

    Exit codes: 0, 1 if the answer was no, 2 if nothing was chosen or the storage cannot be used.
    """
    from forge.history.dead_letters import drop_dead_letters  # noqa: PLC0415

    from .display import document_of, show_dropped, show_letters  # noqa: PLC0415

    with opened(url, writable=not dry_run) as storage:
        choice = filter_of(chosen, storage)
        if choice.chooses_all and not everything:
            raise CommandError("name what to drop with --stage, --error, --run, --id or an age, or add --all")
        entries = choice.find(storage)
        if as_json and not (yes or dry_run):
            raise CommandError("--json cannot ask: add --yes, or --dry-run")
        if not as_json:
            show_letters(entries, choice.count(storage), verb="would be dropped" if dry_run else "to be dropped")
        dropped: list[DeadLetter] = []
        if entries and not dry_run:
            if not yes and not _confirmed(len(entries)):
                return 1
            dropped = drop_dead_letters(storage, entries)
    if as_json:
        documents = [document_of(each) for each in entries]
        print_json({"dead_letters": documents, "dropped_ids": [each.sample_id for each in dropped]})
    elif dropped:
        show_dropped(dropped)
    return 0


def _confirmed(count: int) -> bool:
    """Ask before something is dropped.

    Raises:
        CommandError: nobody can answer.
    """
    try:
        return click.confirm(f"Drop {'this dead letter' if count == 1 else f'these {count} dead letters'}?", err=True)
    except click.Abort as abort:
        if isinstance(abort.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise CommandError("nothing was dropped, because nobody answered; --yes drops without asking") from None


dlq.add_command(list_letters)
dlq.add_command(show_letter)
dlq.add_command(replay_letters)
dlq.add_command(drop_letters)
