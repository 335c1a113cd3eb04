"""`python -m tools.generate`: write the generated files of this checkout."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from forge_otel.checker.findings import RegistryError

from . import REGISTRY, GenerateError, generate

ERROR = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Generate files; return the exit code: 1 if a file differs with `--check`, 2 if nothing can be generated."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.generate",
        description="Writes the files of a checkout of forge-otel that are generated from its registry, if they "
        "differ: constants, reference, dashboards, rules.",
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a file differs")
    parser.add_argument(
        "--root", type=Path, default=Path(), metavar="DIR", help="checkout (default: the current directory)"
    )
    options = parser.parse_args(arguments)
    try:
        paths = generate(options.root, check=options.check)
    except GenerateError as error:
        return _complain(str(error))
    except RegistryError as error:
        command = f"forge-otel semconv check {options.root / REGISTRY}"
        return _complain(f"the registry has errors ({len(error.findings)}): `{command}` lists them")
    for path in paths:
        print(path)
    if options.check and paths:
        print("These differ from the registry: run `make generate`")
        return 1
    if not paths:
        print("Everything generated is up to date.")
    return 0


def _complain(message: str) -> int:
    print(f"tools.generate: {message}", file=sys.stderr)
    return ERROR


if __name__ == "__main__":
    sys.exit(main())
