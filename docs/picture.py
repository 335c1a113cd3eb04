"""Makes docs/demo.svg from a real run of the demo: `make picture`."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from io import StringIO
from pathlib import Path

from rich.console import Console

from forge import ExitCode
from forge_otel.commands.demo.run_report import show


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "forge_otel.commands.cli", "demo", "--json", "--out", "demo-out"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode in {ExitCode.OK, ExitCode.SAMPLES_FAILED}, done.stderr
    console = Console(record=True, width=96, file=StringIO(), force_terminal=True, color_system="truecolor")
    show(json.loads(done.stdout), console)
    Path(__file__).with_name("demo.svg").write_text(console.export_svg(title="make demo"))


if __name__ == "__main__":
    main()
