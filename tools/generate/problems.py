"""The table of problems in the page on the doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from forge_otel.commands.doctor.problems import PROBLEMS

from . import DOCTOR_PAGE
from .reference import table

BEGIN: Final = (
    "<!-- Generated from src/forge_otel/commands/doctor/problems.py by `make generate`. Do not edit up to the end of "
    "the table. -->\n"
)
END: Final = "<!-- End of the table. -->\n"


def files(root: Path) -> dict[str, str]:
    """Return the page with the current table in place of the one between the markers."""
    text = (root / DOCTOR_PAGE).read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    rows = [[f"`{problem.name}`", problem.level, problem.meaning, problem.remedy] for problem in PROBLEMS]
    lines = table(["Problem", "Level", "What it means", "What to do"], rows)
    return {DOCTOR_PAGE: "\n".join([before + BEGIN, *lines, END + after])}
