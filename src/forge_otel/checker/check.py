"""Checking a registry against the rules."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .findings import Finding
from .load import REGISTRY, try_load
from .model import Registry
from .rules import ALL


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The result of checking a registry."""

    findings: tuple[Finding, ...]
    """Sorted by file and line; empty if the registry is valid."""
    files: int
    registry: Registry | None
    """None if a file was unusable; the rules are not checked then."""

    def text(self) -> str:
        """Return one line for each finding, and a summary line."""
        found = len(self.findings)
        verdict = f"{found} finding{'s' * (found != 1)}" if found else "No findings"
        definitions = ", ".join(f"{count} {kind}" for kind, count in self._definitions().items())
        if self.registry is None:
            definitions = "some could not be used, so references and names were not checked"
        return "\n".join([*map(str, self.findings), f"{verdict} in {self.files} files: {definitions}."])

    def to_json(self) -> dict[str, Any]:
        """Return the report as data for `json.dumps`."""
        return {
            "findings": [
                {
                    "file": str(finding.place.file),
                    "line": finding.place.line,
                    "rule": finding.rule,
                    "message": finding.message,
                }
                for finding in self.findings
            ],
            "files": self.files,
            "definitions": self._definitions(),
        }

    def _definitions(self) -> dict[str, int]:
        """Return the number of definitions of each kind."""
        if self.registry is None:
            return {}
        kinds = ("attributes", "entities", "spans", "metrics", "events")
        return {kind: len(getattr(self.registry, kind)) for kind in kinds}


def check(directory: Path = REGISTRY) -> CheckReport:
    """Check a registry: its files, their structure, its references and the rules in `RULES`.

    Raises:
        NoRegistryError: there is no such directory, or no manifest in it.
    """
    reading = try_load(directory)
    findings = set(reading.findings)
    if reading.registry is not None:
        findings.update(finding for rule in ALL for finding in rule(reading.registry))
    return CheckReport(tuple(sorted(findings)), reading.files, reading.registry)
