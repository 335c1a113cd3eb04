"""`tools/stack/check_images.sh`, with the images that stand for the published ones: it takes them, and no others."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from tests.support.compose import ROOT, dotenv, image_table

if TYPE_CHECKING:
    from pathlib import Path

    from .engine import Engine

SCRIPT = "tools/stack/check_images.sh"
ABSENT = {dotenv()["GRAFANA_IMAGE"]}
"""The one that cannot be built here."""


def check(engine: Engine, checkout: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return engine.run(str(checkout / SCRIPT), *options, check=False)


def test_the_images_are_as_the_table_says(containers: Engine) -> None:
    names = [dotenv()[row["variable"]] for row in image_table()]
    absent = [name for name in names if containers.run("docker", "image", "inspect", name, check=False).returncode]
    # A user's own engine has what it was asked for before.
    assert set(absent) == ABSENT or os.environ.get("CI") != "true"

    done = check(containers, ROOT, "--no-pull")

    assert done.returncode == (1 if absent else 0)
    assert done.stderr.splitlines() == [f"{name}: cannot be had" for name in absent]
    assert done.stdout.splitlines() == [f"{name}: looked at" for name in names if name not in absent]


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


def test_it_needs_docker(tmp_path: Path) -> None:
    for program in ("bash", "dirname"):
        found = shutil.which(program)
        assert found is not None
        (tmp_path / program).symlink_to(found)

    done = subprocess.run([ROOT / SCRIPT], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)

    said = f"{ROOT / SCRIPT} needs Docker: https://docs.docker.com/get-started/get-docker/\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


def test_it_needs_an_engine_that_answers(containers: Engine) -> None:
    done = check(containers.told(DOCKER_HOST="unix:///nowhere.sock"), ROOT, "--no-pull")

    assert (done.returncode, done.stdout) == (2, "")
    assert "unix:///nowhere.sock" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_without_pulling_it_needs_no_network(containers: Engine, tmp_path: Path) -> None:
    image = dotenv()["INIT_IMAGE"]
    (tmp_path / "tools" / "stack").mkdir(parents=True)
    (tmp_path / ".env").write_text(f"INIT_IMAGE={image}\nGRAFANA_IMAGE={image}\nVICTORIA_LOGS_PLUGIN=a@1\n")
    (tmp_path / "tools" / "stack" / "images.tsv").write_text("INIT_IMAGE\t\t\t\tsh\n")
    shutil.copy(ROOT / SCRIPT, tmp_path / SCRIPT)

    done = check(containers, tmp_path, "--no-pull")

    assert (done.returncode, done.stdout, done.stderr) == (0, f"{image}: looked at\n", "")
