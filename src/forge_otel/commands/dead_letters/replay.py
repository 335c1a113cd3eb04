"""The replay of dead letters from the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge import DeadLetter, Pipeline, Run
from forge.errors import StorageError

from ..command import print_json
from ..errors import CommandError
from ..run.load import load
from ..run.run import Options, run_pipeline
from .command import filter_of
from .display import document_of, show_letters, show_unreplayable

if TYPE_CHECKING:
    from forge.runner import Runner


def replay(
    target: str,
    chosen: dict[str, Any],
    *,
    runner: str,
    settings: tuple[str, ...],
    dry_run: bool,
    otlp: str | None,
    files: Path | None,
    as_json: bool,
) -> int:
    """Replay the dead letters of a pipeline that are chosen, or only show them; return the exit code of the run.

    Raises:
        CommandError: there is no such pipeline, it keeps no dead letters, or an option is invalid.
    """
    if dry_run:
        found = _chosen(load(target, settings), target, chosen)
        if as_json:
            print_json({"dead_letters": [document_of(entry) for entry in found]})
        else:
            _show(found, "would be replayed")
        return 0

    def start(runner: Runner, pipeline: Pipeline) -> Run:
        found = _chosen(pipeline, target, chosen)
        if not as_json:
            _show(found, "to be replayed")
        return runner.replay(pipeline, [entry.sample_id for entry in found if entry.replayable])

    return run_pipeline(
        Options(
            target=target,
            runner=runner,
            limit=None,
            settings=settings,
            rerun=False,
            otlp=otlp,
            files=files,
            prometheus=None,
            as_json=as_json,
            start=start,
        )
    )


def _chosen(pipeline: Pipeline, target: str, chosen: dict[str, Any]) -> list[DeadLetter]:
    if pipeline.storage is None:
        raise CommandError(f"{target} has no storage, so it keeps no dead letters")
    if chosen["pipeline"] not in (None, pipeline.name):
        raise CommandError(f"--pipeline {chosen['pipeline']}: {target} is the pipeline {pipeline.name!r}")
    try:
        return filter_of(chosen, pipeline.storage, pipeline.name).find(pipeline.storage)
    except StorageError as error:
        raise CommandError(" ".join(str(error).split())) from None
    finally:
        pipeline.storage.release()


def _show(entries: Sequence[DeadLetter], verb: str) -> None:
    good = [entry for entry in entries if entry.replayable]
    counts: dict[tuple[str, str, str], int] = {}
    for entry in good:
        key = (entry.pipeline, entry.where, entry.error_type)
        counts[key] = counts.get(key, 0) + 1
    show_letters(good, dict(sorted(counts.items(), key=lambda each: (-each[1], each[0]))), verb=verb)
    if lost := [entry for entry in entries if not entry.replayable]:
        show_unreplayable(lost)
