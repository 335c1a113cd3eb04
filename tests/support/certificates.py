"""Certificates for servers of tests."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

from .needs import lacking

if TYPE_CHECKING:
    from pathlib import Path


def certify(folder: Path) -> None:
    """Write a certificate for 127.0.0.1, signed by itself, and its key."""
    if shutil.which("openssl") is None:
        lacking("needs openssl: apt-get install openssl")
    command = [
        *("openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
        *("-keyout", "key.pem", "-out", "cert.pem", "-days", "1", "-subj", "/CN=gateway"),
        *("-addext", "subjectAltName=IP:127.0.0.1"),
    ]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
