"""`forge-otel doctor`."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from argparse import Namespace
from dataclasses import asdict

from .diagnosis import diagnose
from .diagnostic import Diagnostic


def doctor(options: Namespace) -> int:
    """Print each diagnostic as soon as it is known; return the exit code: 1 if some telemetry is lost."""
    diagnostics = []
    for diagnostic in diagnose(sending=options.send, storage=options.storage):
        diagnostics.append(diagnostic)
        if not options.json:
            print(_text(diagnostic), flush=True)  # noqa: T201 - this is a command
    if options.json:
        print(json.dumps([asdict(diagnostic) for diagnostic in diagnostics], indent=2))  # noqa: T201 - this is a command
    return int(any(diagnostic.level == "error" for diagnostic in diagnostics))


def _text(diagnostic: Diagnostic) -> str:
    """Return a diagnostic as one line without control characters, wrapped for a terminal."""
    head = f"{diagnostic.level:7}  {diagnostic.subject:8}  "
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    message = "".join(character if character.isprintable() else " " for character in diagnostic.message)
    return textwrap.fill(message, width, initial_indent=head, subsequent_indent=" " * len(head))
