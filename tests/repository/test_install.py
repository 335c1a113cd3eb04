"""Installing the package: the ways that the page names, the extras, and what they do to the versions of others."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path
from typing import Any

import pytest

from tests.support.needs import lacking

from .checkout import ROOT, copied, run, tool
from .test_docs import BLOCK

PAGE = ROOT / "docs" / "install.md"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def test_the_page_has_every_extra() -> None:
    table = re.findall(r"^\| `([\w-]+)` \|", PAGE.read_text().partition("## Extras")[2].partition("\n## ")[0], re.M)
    assert sorted(table) == sorted(EXTRAS)


def test_all_is_all_of_them() -> None:
    (one,) = EXTRAS["all"]
    assert one.removeprefix("forge-otel[").removesuffix("]").split(",") == sorted(EXTRAS.keys() - {"all", "dev"})
    assert "forge-otel[all]" in EXTRAS["dev"]


def test_the_page_has_every_package_of_the_base_installation() -> None:
    text = PAGE.read_text().partition("## Base installation")[2].partition("\n## ")[0]
    names = []
    for row in re.findall(r"^\| (`.*?) \|", text, re.M):
        first, *others = re.findall(r"`([\w-]+)`", row)
        prefix = first.removesuffix("-api").removesuffix("-otlp")
        names += [first, *(prefix + other if other.startswith("-") else other for other in others)]
    assert sorted(names) == sorted(re.split(r"[>=]", each)[0] for each in PROJECT["dependencies"])


@pytest.mark.slow
def test_what_is_installed_here_fits_together() -> None:
    done = run(sys.executable, "-m", "pip", "check")
    assert done.returncode == 0, done.stdout + done.stderr


def resolved(requirement: str) -> dict[str, str]:
    """The versions that pip would install in an empty environment."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
    done = subprocess.run([*command, requirement], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        lacking("needs a package index, for pip to look at versions", why=done.stderr)
    report: dict[str, Any] = json.loads(done.stdout)
    return {each["metadata"]["name"]: each["metadata"]["version"] for each in report["install"]}


@pytest.mark.slow
def test_no_extra_moves_a_version_backwards() -> None:
    """If all extras together leave the newest versions possible, so does each of them: it demands less."""
    base, everything = resolved("."), resolved(".[all]")
    assert {name for name in base if name.startswith("opentelemetry-")}
    assert {name: everything[name] for name in base if name.startswith("opentelemetry-")} == {
        name: version for name, version in base.items() if name.startswith("opentelemetry-")
    }


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A fresh virtual environment that finds all dependencies, so that pip gets nothing but the package itself."""
    folder = tmp_path_factory.mktemp("install") / ".venv"
    venv.create(folder, with_pip=True)
    scheme = sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)})
    # Without its own .pth files, among which is the one of this checkout.
    Path(scheme, "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return {
        **clean,
        "PATH": os.pathsep.join([str(folder / "bin"), os.environ["PATH"]]),
        "VIRTUAL_ENV": str(folder),
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip's way to say that there is to be none
        "PIP_IGNORE_INSTALLED": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }


@pytest.mark.slow
def test_every_way_to_install(environment: dict[str, str], tmp_path: Path) -> None:
    text = PAGE.read_text()
    repository = tmp_path / "repository"
    repository.mkdir()
    copied(repository)
    built = run(tool("python"), "-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path / "dist", cwd=ROOT)
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    # Requirements have no URLs without a host.
    variables = {**environment, "REPOSITORY": f"file://localhost{repository}", "WHEEL": wheel.name}

    for heading in ("From a clone", "From a git URL", "From a wheel"):
        section = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
        ((_, commands),) = BLOCK.findall(section)
        shell(commands, tmp_path, variables)
        where = shell("python -c 'import forge_otel; print(forge_otel.__file__)'", tmp_path / "dist", variables)
        assert where.startswith(variables["VIRTUAL_ENV"]), heading
        assert shell("forge-otel --version", tmp_path, variables).startswith("forge-otel ")
        shell("pip uninstall --yes forge-otel", tmp_path, variables)


def shell(commands: str, folder: Path, variables: dict[str, str]) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
