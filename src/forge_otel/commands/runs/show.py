"""The command `forge show`."""

from __future__ import annotations

import click

from ..command import command, json_option, print_json
from ..errors import CommandError
from ..storage import opened, storage_option


@command("show")
@click.argument("reference", metavar="RUN", default="last")
@click.argument("sample_id", metavar="[SAMPLE]", required=False)
@click.option("--pipeline", metavar="NAME", help="Count last and last~1 among the runs of this pipeline.")
@storage_option
@json_option
def show(*, reference: str, sample_id: str | None, pipeline: str | None, url: str | None, as_json: bool) -> None:
    """Show the record of a run, or the story of one of its samples.

    RUN is the beginning of a run's id, `last` (the default) or `last~1`. The record has outcomes, stages with their
    percentiles, measurements, costs, failures with their first messages, revision and definition. The story of a SAMPLE
    has its steps with waits, retries and errors, its measured values, its dead letter, its parent and children.

    Exit codes: 0, or 2 if there is no such run or sample.
    """
    from forge.errors import RunNotFoundError, SampleNotFoundError  # noqa: PLC0415
    from forge.history import find_run, stored_by, story_of  # noqa: PLC0415

    from .display import show_run, show_story  # noqa: PLC0415

    try:
        with opened(url) as storage:
            run = find_run(storage, reference, pipeline=pipeline)
            story = story_of(storage, run, sample_id) if sample_id is not None else None
            is_ambiguous = story is not None and len(storage.dead_letters(ids=[story.id], limit=2)) > 1
            stored = stored_by(storage, run) if run.ended is None and story is None else None
    except (RunNotFoundError, SampleNotFoundError) as error:
        raise CommandError(str(error)) from None
    if as_json:
        print_json(story.to_dict() if story else run.to_dict() | ({} if stored is None else {"stored": stored}))
    elif story:
        show_story(story, run, is_ambiguous=is_ambiguous)
    else:
        show_run(run, stored)
