"""The command `forge new`."""

from __future__ import annotations

import click

from ..command import command, json_option, print_json


@command("new")
@click.argument("name")
@json_option
def new(*, name: str, as_json: bool) -> None:
    """Write a small project that works: a pipeline, its test, a file for its telemetry, and a README.

    It is written to the folder NAME, which must not exist or be empty. NAME is also the name of the pipeline: letters,
    digits, `_` and `-`.

    Exit codes: 0, or 2 if the project cannot be written.
    """
    from ..console import Output  # noqa: PLC0415
    from ..next_commands import command as command_line  # noqa: PLC0415
    from ..printing import print_next  # noqa: PLC0415
    from .project import write  # noqa: PLC0415

    folder, files = write(name)
    if as_json:
        print_json({"folder": str(folder), "files": [str(file) for file in files]})
        return
    out = Output()
    for file in files:
        out.print(f"wrote {file}", soft_wrap=True, markup=False)
    print_next([f"{command_line('cd', str(folder))} && {command_line('forge', 'run', 'pipeline:pipeline')}"], out)
