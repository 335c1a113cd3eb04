"""What tests need that may not be there."""

from __future__ import annotations

import importlib.metadata
import os
from typing import NoReturn

import pytest

INSTALL = "pip install -e '.[dev]'"
"""How to get all that the tests need from PyPI."""


def lacking(what: str, *, why: str = "") -> NoReturn:
    """End a test that cannot run: it is skipped on a user's machine, and fails under ``CI=true``.

    `what` says what is missing and how to get it; `why` is added where the test fails.
    """
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what}\n{why}".rstrip())
    pytest.skip(what)


def need_installed(*distributions: str) -> None:
    """End a test that needs entry points: there are some only of what is installed."""
    found = {each.name for each in importlib.metadata.distributions()}
    if missing := [name for name in distributions if name not in found]:
        lacking(f"needs {', '.join(missing)}: {INSTALL}")
