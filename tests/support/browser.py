"""A headless Chromium for the tests of pages."""

from __future__ import annotations

import functools
import json
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

from tools import browser

from .needs import lacking
from .tools import tool


def chromium() -> browser.Browser:
    """Start a browser; without Chromium the test skips, or fails under ``CI=true``."""
    return browser.Browser(_program())


def text_of(url: str, folder: Path) -> str:
    """What is at a URL when its scripts have run, with its markup; `folder` is for the browser's own files."""
    options = ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}")
    command = [_program(), *options, "--virtual-time-budget=20000", "--dump-dom", url]
    return unescape(subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout)


def _program() -> str:
    program = browser.find()
    if program is None:
        lacking(f"needs Chromium: {browser.INSTALL}")
    return program


def accessibility(page: browser.Browser) -> list[str]:
    """What axe finds wrong in the page as it is, one line for each element."""
    page.evaluate(_axe(tool("axe")))
    found: list[dict[str, Any]] = page.evaluate("axe.run().then((results) => results.violations)")
    return [
        f"{violation['id']}: {' '.join(map(json.dumps, node['target']))}: {node['failureSummary']}"
        for violation in found
        for node in violation["nodes"]
    ]


@functools.cache
def _axe(file: Path) -> str:
    return f"{file.read_text(encoding='utf-8')}; null"
