"""The results file, and the tables and the figure in the documentation."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from . import goals, pipelines, plot, tables
from .harness import ROOT

RESULTS = ROOT / "benchmarks" / "results.json"
PAGE = ROOT / "docs" / "performance.md"
PICTURE = ROOT / "docs" / "performance.svg"
TABLES: Mapping[str, tuple[Sequence[str], Callable[[Mapping[str, Any]], Sequence[tables.Table]]]] = {
    "calls": (("by-hand", "calls", "kinds"), tables.of_calls),
    "spans": (("made", "exported"), tables.of_spans),
    "minimal": (("minimal",), tables.of_minimal),
    "pipelines": (("demo", "one-at-a-time", "four-at-a-time"), tables.of_pipelines),
    "runner": (("runner",), tables.of_runner),
    "page": (("page",), tables.of_page),
}
"""The sections of the results; for each the marks in the page, and the function that makes a table for each mark."""


def save(results: Mapping[str, Any]) -> None:
    """Put the results into the file; what was not measured this time stays in it.

    That is other sections, and runs that are made only when asked for, on the same machine with the same versions.
    """
    saved = _saved()
    now, before = results.get("pipelines"), saved.get("pipelines")
    if now and before and all(now[about] == before[about] for about in ("machine", "versions")):
        results = {**results, "pipelines": {**now, "rows": _with_longer(now["rows"], before["rows"])}}
    RESULTS.write_text(json.dumps({**saved, **results}, indent=1, ensure_ascii=False) + "\n")


def _with_longer(rows: Sequence[dict[str, Any]], before: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    longest = {row["pipeline"]: row["samples"] for row in sorted(rows, key=itemgetter("samples"))}
    kept = [row for row in before if row["pipeline"] in longest]
    return [*rows, *(row for row in kept if row["samples"] > max(pipelines.USUAL, longest[row["pipeline"]]))]


def write() -> int:
    """Write the tables and the picture of the documentation; returns an exit code."""
    results = _saved()
    missing = [section for section in TABLES if section not in results]
    if missing:
        what = " and ".join(missing)
        print(f"{RESULTS.name} has no {what} yet: measure with python -m benchmarks --save", file=sys.stderr)
        return 2
    PAGE.write_text(page(PAGE.read_text(), results))
    PICTURE.write_text(plot.picture(results))
    return 0


def _saved() -> dict[str, Any]:
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return results


def page(text: str, results: Mapping[str, Any]) -> str:
    """Return the page with the tables of these results between its marks.

    Tables of sections that have not been measured stay as they are.
    """
    contents = {"goals": goals.table(results).as_markdown()}
    for section, (marks, of) in TABLES.items():
        if section in results:
            shown = of(results[section])
            contents.update(zip(marks, (table.as_markdown() for table in shown), strict=True))
            contents[f"{section}-circumstances"] = circumstances(results[section]) + "\n"
    return filled(text, contents)


def filled(text: str, contents: Mapping[str, str]) -> str:
    """Return a text with these contents between its marks, by their names."""
    for mark, content in contents.items():
        text = re.sub(
            rf"(<!-- {mark} -->\n).*?(<!-- end -->)",
            lambda found, content=content: f"{found[1]}\n{content}\n{found[2]}",  # type: ignore[misc]
            text,
            flags=re.DOTALL,
        )
    return text


def circumstances(section: Mapping[str, Any]) -> str:
    """The machine and the versions, as a sentence."""
    machine = section["machine"]
    versions = section["versions"]
    if any(isinstance(found, Mapping) for found in versions.values()):
        versions = _merged(versions)
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"{machine['cpu']}, {machine['cores']} cores, {machine['os']}, {machine['python']}; {packages}."


def _merged(environments: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """The versions of all environments; those of ours are told, of the others only where they differ."""
    ours: dict[str, str] = {}
    for name, found in environments.items():
        for package, version in found.items():
            if package not in ours:
                ours[package] = version
            elif ours[package] != version:
                ours[f"{package} ({name})"] = version
    return ours
