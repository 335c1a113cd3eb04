"""The command `forge ps`."""

from __future__ import annotations

import click

from ..command import command, json_option, positive, print_json
from ..errors import CommandError


@command("ps")
@click.argument("pid", required=False, type=positive, metavar="[PID]")
@json_option
def ps(*, pid: int | None, as_json: bool) -> None:
    """Show where the samples of runs in progress are: in which call, queue or wait, for how long.

    Calls are shown with their Python stack. Runs of `forge run` can be looked at, and those of runners with
    introspect=True, by their own user on the same machine. With a PID, only that process.

    Exit codes: 0, or 2 if there is no such process or nothing may be read.
    """
    from rich.text import Text  # noqa: PLC0415

    from forge.runner.introspection import ask_all, lines  # noqa: PLC0415

    from ..console import Output  # noqa: PLC0415

    try:
        found = [document for document in ask_all() if pid in (None, document["pid"])]
    except OSError as error:
        raise CommandError(str(error)) from None
    none = "no runs that can be looked at: start them with forge run, or introspect=True"
    if pid is not None and not found:
        raise CommandError(f"process {pid} has {none}")
    if as_json:
        print_json(found)
        return
    out = Output()
    if not found:
        out.print(none)
    for document in found:
        for line in lines(document):
            out.print(Text(line), soft_wrap=True)
