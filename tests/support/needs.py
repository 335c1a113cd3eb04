"""What tests need that may not be there."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def lacking(what: str, *, why: str = "") -> NoReturn:
    """End a test that cannot run: it is skipped on a user's machine, and fails under ``CI=true``.

    `what` says what is missing and how to get it; `why` is added where the test fails.
    """
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what}\n{why}".rstrip())
    pytest.skip(what)
