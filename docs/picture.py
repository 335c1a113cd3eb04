"""Makes docs/demo.svg and docs/trace-page.png from a real run of the demo: `make picture`."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from io import StringIO
from pathlib import Path
from urllib.parse import quote

from rich.console import Console

from forge import ExitCode
from forge_otel.commands.telemetry.run_report import show
from tools.browser import INSTALL, Browser, find

DOCS = Path(__file__).parent
COMMAND = [sys.executable, "-m", "forge_otel.commands.cli"]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        demo = [*COMMAND, "demo", "--json", "--out", "demo-out"]
        done = subprocess.run(demo, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode in {ExitCode.OK, ExitCode.SAMPLES_FAILED}, done.stderr
        console = Console(record=True, width=96, file=StringIO(), force_terminal=True, color_system="truecolor")
        show(json.loads(done.stdout), console)
        (DOCS / "demo.svg").write_text(console.export_svg(title="make demo"))
        page(Path(folder))


def page(folder: Path) -> None:
    """Write the picture of the page on the run, opened on a sample that failed."""
    trace = [*COMMAND, "trace"]
    subprocess.run([*trace, "page", "demo-out/telemetry", "--html", "run.html"], cwd=folder, check=True)
    top = subprocess.run([*trace, "top", "demo-out/telemetry", "--json"], cwd=folder, capture_output=True, check=True)
    places = [row["first"] for row in json.loads(top.stdout)["errors"]]
    sample = next(place["sample_id"] for place in places if place["sample_id"])
    program = find()
    if program is None:
        sys.exit(f"docs/trace-page.png needs Chromium: {INSTALL}")
    with Browser(program) as browser:
        browser.emulate(width=1280, height=1440)
        browser.open(folder / "run.html", f"#sample={quote(sample, safe='')}")
        browser.screenshot(DOCS / "trace-page.png")


if __name__ == "__main__":
    main()
