"""A PgBouncer in front of a PostgreSQL server: each transaction may get another connection."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from .ports import free_port
from .runs import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

INSTALL = "apt-get install pgbouncer"
_PROGRAM = shutil.which("pgbouncer", path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"]))


def is_installed() -> bool:
    return _PROGRAM is not None


@contextlib.contextmanager
def pooled(url: str) -> Iterator[str]:
    """The URL of a pooler with two connections to the database at `url`, in transaction mode."""
    assert _PROGRAM is not None
    parts = psycopg.conninfo.conninfo_to_dict(url)
    folder = Path(tempfile.mkdtemp(prefix="forge-pgbouncer-"))
    port = free_port()
    (folder / "users").write_text(f'"{parts["user"]}" "{parts["password"]}"\n')
    (folder / "pgbouncer.ini").write_text(
        f"""[databases]
{parts["dbname"]} = host={parts["host"]} port={parts["port"]} password={parts["password"]}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = plain
auth_file = {folder / "users"}
pool_mode = transaction
default_pool_size = 2
server_login_retry = 0.1
logfile = {folder / "log"}
"""
    )
    as_root = os.geteuid() == 0  # which PgBouncer refuses
    if as_root:
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, "postgres", "postgres")
    user = {"user": "postgres", "group": "postgres", "extra_groups": []} if as_root else {}
    process = subprocess.Popen([_PROGRAM, "--quiet", str(folder / "pgbouncer.ini")], **user)  # type: ignore[call-overload]
    try:
        through = url.replace(f":{parts['port']}/", f":{port}/")
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                psycopg.connect(through).close()
                break
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.05)
        yield through
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder)
