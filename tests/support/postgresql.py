"""A PostgreSQL server of the tests' own: a new cluster in a temporary folder, on loopback only."""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from .ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

INSTALL = "apt-get install postgresql"
PATH = os.pathsep.join(
    [os.environ.get("PATH", os.defpath), *sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True)]
)


def is_installed() -> bool:
    return all(shutil.which(name, path=PATH) for name in ("initdb", "pg_ctl", "postgres"))


class Server:
    """A running server."""

    def __init__(self, folder: Path, port: int, password: str) -> None:
        self.port = port
        self._folder = folder
        self._password = password

    def url(self, database: str) -> str:
        return f"postgresql://postgres:{self._password}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start the server, and wait until it takes connections."""
        options = f"-F -h 127.0.0.1 -p {self.port} -k ''"
        log = self._folder / "log"
        try:
            _run("pg_ctl", "start", "--wait", "--silent", "--pgdata", self._folder / "data", "--log", log,
                 "--options", options)  # fmt: skip
        except subprocess.CalledProcessError as error:
            raise RuntimeError(f"PostgreSQL did not start:\n{log.read_text()}") from error

    def stop(self) -> None:
        """Stop the server at once, as a crash would."""
        _run("pg_ctl", "stop", "--wait", "--silent", "--mode=immediate", "--pgdata", self._folder / "data")

    def end_connections(self, url: str) -> int:
        """End all connections to a database, as an administrator would; returns their number."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            name = url.rpartition("/")[2]
            ended = connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
            ).fetchall()
        return len(ended)

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """The URL of an empty database that is dropped at the end."""
        name = f"test_{uuid.uuid4().hex}"
        self._execute(f"CREATE DATABASE {name}")
        try:
            yield self.url(name)
        finally:
            self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())


@contextlib.contextmanager
def running_server() -> Iterator[Server]:
    """Start a server, and stop it at the end."""
    folder = Path(tempfile.mkdtemp(prefix="forge-postgresql-"))
    password = secrets.token_hex(16)
    data = folder / "data"
    (folder / "password").write_text(password)
    if os.geteuid() == 0:
        for path in (folder, folder / "password"):
            shutil.chown(path, "postgres", "postgres")
    try:
        _run("initdb", "--pgdata", data, "--username=postgres", f"--pwfile={folder / 'password'}",
             "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync")  # fmt: skip
        server = Server(folder, free_port(), password)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


def _run(program: str, *arguments: str | Path) -> None:
    executable = shutil.which(program, path=PATH)
    assert executable is not None
    command = [executable, *map(str, arguments)]
    as_root = os.geteuid() == 0  # which PostgreSQL refuses
    user = "postgres" if as_root else None
    # The server that pg_ctl leaves behind must not hold on to our pipes.
    nowhere = subprocess.DEVNULL
    subprocess.run(
        command,
        check=True,
        cwd="/",
        stdin=nowhere,
        stdout=nowhere,
        stderr=nowhere,
        user=user,
        group=user,
        extra_groups=[] if as_root else None,
    )
