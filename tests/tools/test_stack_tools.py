"""``tools/stack``: the programs of the stack tests are found, or it is said how to get them."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.tools import STACK

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder that is all of the ``PATH``."""
    folder = tmp_path / "programs"
    folder.mkdir()
    return folder


def run(tmp_path: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"FORGE_OTEL_TOOLS": str(tmp_path / "cache"), "PATH": str(tmp_path / "programs")} | variables
    command = [sys.executable, str(STACK), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def script(path: Path, *lines: str) -> None:
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)


def test_what_is_not_there_is_not_built_when_only_searched_for(tmp_path: Path, programs: Path) -> None:
    found = run(tmp_path, "--find", "otelcol-forge", "statsd")

    assert found.returncode == 1
    assert found.stdout == ""
    assert found.stderr.splitlines() == [
        "otelcol-forge-0.158.0 is not here; build it with: python3 tools/stack otelcol-forge",
        "statsd-0.9.0 is not here; build it with: python3 tools/stack statsd",
    ]
    assert not (tmp_path / "cache").exists()


def test_a_build_says_what_it_lacks(tmp_path: Path, programs: Path) -> None:
    built = run(tmp_path, "prometheus")

    assert built.returncode == 1
    assert built.stderr == (
        "prometheus-3.16.0 needs go, which is not on the PATH. "
        "Install Go from https://go.dev/dl, or any older one with: apt-get install golang-go\n"
    )


def test_what_was_built_is_found_again(tmp_path: Path, programs: Path) -> None:
    script(programs / "node")
    script(
        programs / "npm", f"PATH={os.defpath}", "mkdir -p node_modules/statsd/bin", ">node_modules/statsd/bin/statsd"
    )
    built = run(tmp_path, "statsd")
    (programs / "npm").unlink()

    found = run(tmp_path, "statsd")

    assert (built.returncode, found.returncode) == (0, 0)
    assert found.stdout == built.stdout
    assert built.stdout.endswith("/node_modules/statsd/bin/statsd\n")


def test_an_environment_works_where_it_is_found(tmp_path: Path, programs: Path) -> None:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    script(
        programs / version,
        "mkdir -p environment/bin",
        """printf '#!/bin/sh\necho "ran $1"\n' >environment/bin/python""",
        """printf '#!%s/environment/bin/python\n' "$PWD" >environment/bin/dagster""",
        "chmod +x environment/bin/*",
    )

    built = run(tmp_path, "dagster", PATH=os.pathsep.join([str(programs), os.defpath]))

    assert built.returncode == 0, built.stderr
    program = built.stdout.strip()
    assert program.endswith("/environment/bin/dagster")
    ran = subprocess.run([program], capture_output=True, text=True, check=False)
    assert ran.stdout == f"ran {program}\n"


def test_a_build_that_fails_leaves_nothing_behind(tmp_path: Path, programs: Path) -> None:
    script(programs / "node")
    script(programs / "npm", f"PATH={os.defpath}", "mkdir node_modules", "exit 3")

    built = run(tmp_path, "statsd")

    assert built.returncode == 1
    assert "statsd-0.9.0 was not built: npm ci" in built.stderr
    assert "(exit code 3)" in built.stderr
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.slow
def test_a_program_from_elsewhere_can_be_named(tmp_path: Path, programs: Path) -> None:
    script(programs / "otelcol-contrib")

    found = run(tmp_path, "--find", "otelcol-forge", FORGE_OTEL_TOOL_OTELCOL_FORGE="otelcol-contrib")
    lost = run(tmp_path, "otelcol-forge", FORGE_OTEL_TOOL_OTELCOL_FORGE="otelcol-extra")

    assert found.stdout == f"{programs / 'otelcol-contrib'}\n"
    assert lost.returncode == 1
    assert lost.stderr == "otelcol-forge: FORGE_OTEL_TOOL_OTELCOL_FORGE=otelcol-extra is not a program\n"


def test_an_unknown_name_is_misuse(tmp_path: Path, programs: Path) -> None:
    found = run(tmp_path, "--find", "grafana")

    assert found.returncode == 2
    assert "unknown: grafana; there are promtool, prometheus," in found.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "manifest", sorted(STACK.glob("*/requirements.txt")), ids=lambda manifest: manifest.parent.name
)
def test_environments_have_what_forge_otel_needs(manifest: Path) -> None:
    project = tomllib.loads((STACK.parents[1] / "pyproject.toml").read_text())["project"]
    needed = map(Requirement, [*project["dependencies"], *project["optional-dependencies"]["auto"]])
    lines = [line for line in manifest.read_text().splitlines() if not line.startswith("#")]
    pinned = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}

    for each in needed:
        version = pinned.get(canonicalize_name(each.name), "")
        assert version, f"{each.name} is missing"
        assert each.specifier.contains(version, prereleases=True), each
