"""The command `forge new`."""

from __future__ import annotations

import json

import click

from ..command import command, json_option


@command("new")
@click.argument("name")
@json_option
def new(*, name: str, as_json: bool) -> None:
    """Write a small project that works: a pipeline, its test, a file for its telemetry, and a README.

    It is written to the folder NAME, which must not exist or be empty. NAME is also the name of the pipeline: letters,
    digits, `_` and `-`.

    Exit codes: 0, or 2 if the project cannot be written.
    """
    from .project import write  # noqa: PLC0415

    folder, files = write(name)
    if as_json:
        print(json.dumps({"folder": str(folder), "files": [str(file) for file in files]}, indent=2))  # noqa: T201
        return
    for file in files:
        print(f"wrote {file}")  # noqa: T201
    print(f"next: cd {folder} && forge run pipeline:pipeline")  # noqa: T201
