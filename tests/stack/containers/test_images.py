"""`tools/stack/check_images.sh`, with the images that stand for the published ones: it takes them, and no others."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

from tests.support.compose import ROOT, dotenv, image_table

if TYPE_CHECKING:
    from pathlib import Path

    from .engine import Engine

SCRIPT = "tools/stack/check_images.sh"
ABSENT = f"{dotenv()['GRAFANA_IMAGE']}: cannot be had\n"
"""The one that cannot be built here."""


def check(engine: Engine, checkout: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return engine.run(str(checkout / SCRIPT), *options, check=False)


def test_the_images_are_as_the_table_says(containers: Engine) -> None:
    done = check(containers, ROOT, "--no-pull")

    assert (done.returncode, done.stderr) == (1, ABSENT)
    names = [dotenv()[row["variable"]] for row in image_table() if row["variable"] != "GRAFANA_IMAGE"]
    assert done.stdout.splitlines() == [f"{name}: looked at" for name in names]


def test_it_says_what_differs(containers: Engine, tmp_path: Path) -> None:
    images = dotenv()
    (tmp_path / "tools" / "stack").mkdir(parents=True)
    shutil.copy(ROOT / ".env", tmp_path)
    shutil.copy(ROOT / SCRIPT, tmp_path / SCRIPT)
    rows = (
        ["OTELCOL_IMAGE", "/otelcol", "10001", "", "sh"],
        ["PROMETHEUS_IMAGE", "/bin/prometheus", "root", "/", "sh wget"],
        ["STATSD_IMAGE", "", "", "", "sh wget2"],
        ["INIT_IMAGE", "", "", "", "sh wget"],
    )
    (tmp_path / "tools" / "stack" / "images.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))

    done = check(containers, tmp_path, "--no-pull")

    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"{images['OTELCOL_IMAGE']}: the entry point is '/otelcol-contrib', not '/otelcol'",
        f"{images['OTELCOL_IMAGE']}: there is no sh in it",
        f"{images['PROMETHEUS_IMAGE']}: the user is 'nobody', not 'root'",
        f"{images['PROMETHEUS_IMAGE']}: the working directory is '/prometheus', not '/'",
        f"{images['STATSD_IMAGE']}: there is no wget2 in it",
    ]


def test_it_says_what_cannot_be_pulled(containers: Engine, tmp_path: Path) -> None:
    (tmp_path / "tools" / "stack").mkdir(parents=True)
    (tmp_path / ".env").write_text(
        "INIT_IMAGE=127.0.0.1:9/busybox:1\nGRAFANA_IMAGE=127.0.0.1:9/grafana:1\nVICTORIA_LOGS_PLUGIN=a@1\n"
    )
    (tmp_path / "tools" / "stack" / "images.tsv").write_text("INIT_IMAGE\t\t\t\tsh\n")
    shutil.copy(ROOT / SCRIPT, tmp_path / SCRIPT)

    done = check(containers, tmp_path)

    assert done.returncode == 1
    assert "127.0.0.1:9/busybox:1: cannot be had\n" in done.stderr
    assert done.stdout == ""


def test_other_options_are_none(tmp_path: Path) -> None:
    done = subprocess.run([ROOT / SCRIPT, "--nopull"], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (2, f"usage: {ROOT / SCRIPT} [--no-pull]\n")
