"""`forge-otel doctor`."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from argparse import Namespace
from dataclasses import asdict

from .diagnosis import diagnose
from .finding import Finding


def doctor(options: Namespace) -> int:
    """Say everything as soon as it is known; returns the exit code: 1 where some telemetry does not arrive."""
    findings = []
    for finding in diagnose(sending=options.send):
        findings.append(finding)
        if not options.json:
            print(_text(finding), flush=True)  # noqa: T201 - this is a command
    if options.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))  # noqa: T201 - this is a command
    return int(any(finding.level == "error" for finding in findings))


def _text(finding: Finding) -> str:
    """One line, folded where a person reads it, without control characters."""
    head = f"{finding.level:7}  {finding.subject:8}  "
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    message = "".join(character if character.isprintable() else " " for character in finding.message)
    return textwrap.fill(message, width, initial_indent=head, subsequent_indent=" " * len(head))
