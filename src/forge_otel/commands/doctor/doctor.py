"""The output of the doctor."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Final, TextIO

from . import problems
from .diagnostic import Diagnostic
from .propagators import unknown_propagators

INTERRUPTED: Final = 130
_COLORS: Final = {"ok": "32", "warning": "33", "error": "31"}


def print_diagnostics(*, sending: bool, storage: str | None, as_json: bool) -> int:
    """Print each diagnostic as soon as it is known; return the exit code: 1 if some telemetry is lost."""
    out = _own_stdout()
    diagnostics: list[Diagnostic] = []
    code = 0
    try:
        for diagnostic in _diagnose(sending, storage):
            diagnostics.append(diagnostic)
            if not as_json:
                print(_text(diagnostic, out), file=out, flush=True)
    except KeyboardInterrupt:
        code = INTERRUPTED
        diagnostics.append(problems.INTERRUPTED.found("doctor", "interrupted before all checks were done"))
        if not as_json:
            print(_text(diagnostics[-1], out), file=out, flush=True)
    if as_json:
        print(json.dumps([asdict(diagnostic) for diagnostic in diagnostics], indent=2), file=out, flush=True)
    else:
        print(_summary(diagnostics, sent=sending), file=out, flush=True)
    return code or int(any(diagnostic.level == "error" for diagnostic in diagnostics))


def _diagnose(sending: bool, storage: str | None) -> Iterator[Diagnostic]:
    yield from unknown_propagators()
    # Not earlier: a wrong propagator makes this import fail, and exporters to the console take stdout in it.
    from .diagnosis import diagnose  # noqa: PLC0415

    yield from diagnose(sending=sending, storage=storage)


def _own_stdout() -> TextIO:
    """Return the standard output, which from now on is only ours: what others write to it goes to the standard error,
    also when the process exits. Exporters to the console would otherwise write between the lines.
    """
    sys.stdout.flush()
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding=sys.stdout.encoding, errors="replace")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return out


def _text(diagnostic: Diagnostic, out: TextIO) -> str:
    """Return a diagnostic as one line without control characters, wrapped for a terminal."""
    head = f"{diagnostic.level:7}  {diagnostic.subject:8}  "
    message = diagnostic.message
    if diagnostic.remedy:
        message += f" → {diagnostic.remedy}"
    if diagnostic.problem:
        message += f" [{diagnostic.problem}]"
    message = "".join(character if character.isprintable() else " " for character in message)
    if not out.isatty():
        return head + message
    width = shutil.get_terminal_size().columns
    # Addresses and paths stay whole, so that they can be copied.
    text = textwrap.fill(
        message,
        width,
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_long_words=False,
        break_on_hyphens=False,
    )
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{_COLORS[diagnostic.level]}m{text[:7]}\x1b[0m{text[7:]}"


def _summary(diagnostics: Sequence[Diagnostic], *, sent: bool) -> str:
    counts = [
        f"{count} {level}{'s' if count != 1 else ''}"
        for level in ("error", "warning")
        if (count := sum(diagnostic.level == level for diagnostic in diagnostics))
    ]
    found = ", ".join(counts) or "no errors, no warnings"
    return found if sent else f"{found}; --send tests whether telemetry arrives"
