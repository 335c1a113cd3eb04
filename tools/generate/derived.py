"""Generates the files that depend on the constants, and prints the changed paths: `python -m … ROOT`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from forge_otel.checker.load import load

from . import (
    DERIVED,
    REGISTRY,
    adr,
    dashboards,
    problems,
    prometheus_rules,
    reference,
    settings,
    statsd,
    versions,
    write,
)

_GENERATORS = (reference, adr, versions, statsd, dashboards, prometheus_rules)


def main(root: Path) -> None:
    """Write the files that differ, and remove those that are no longer generated."""
    registry = load(root / REGISTRY)
    wanted = {path: text for generator in _GENERATORS for path, text in generator.files(registry).items()}
    wanted |= settings.files(root) | problems.files(root) | prometheus_rules.test_files(root, registry)
    there = {
        file.relative_to(root).as_posix()
        for folder, suffix in DERIVED.items()
        for file in (root / folder).glob(f"*{suffix}")
    }
    for path in there - wanted.keys():
        (root / path).unlink()
    sys.stdout.write(json.dumps([*write(root, wanted), *(there - wanted.keys())]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
