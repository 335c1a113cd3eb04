"""OpenTelemetry Weaver takes the registry."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from forge_otel.checker.load import REGISTRY

WEAVER = shutil.which("weaver")


@pytest.mark.skipif(
    WEAVER is None, reason="needs weaver 0.25 and a network: https://github.com/open-telemetry/weaver/releases"
)
def test_the_registry() -> None:
    assert WEAVER is not None
    process = subprocess.run(
        [WEAVER, "registry", "check", "--v2", "-r", REGISTRY], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stdout + process.stderr
