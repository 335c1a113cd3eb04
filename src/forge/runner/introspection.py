"""Introspection: the runs in progress in this process, for others of the same user, through a Unix socket."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import stat
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..support.formatting import seconds
from ..support.text import on_one_line
from .in_flight import look

if TYPE_CHECKING:
    from .run import Run

logger = logging.getLogger("forge")

_TIMEOUT: Final = 5.0
"""Seconds in which the other side must read or write."""


def folders() -> list[Path]:
    """Return the folders in which sockets may be, the one for new ones first: that of the user's session, and one of
    the user's own for temporary files, which a process without a session uses.
    """
    session = os.environ.get("XDG_RUNTIME_DIR")
    temporary = Path(tempfile.gettempdir()) / f"forge-{os.getuid()}"
    return [Path(session) / "forge", temporary] if session else [temporary]


class Introspection:
    """Answers on a socket, and on SIGUSR1, while runs that allow it are in progress."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: list[Run] = []
        self._server: _Server | None = None
        self._handles_signal = False

    def add(self, run: Run) -> None:
        """Open the socket, unless it is open. Never raises: a run goes on without it."""
        with self._lock:
            self._runs.append(run)
            if self._server is None:
                try:
                    self._server = _Server(self)
                except (OSError, AttributeError) as error:  # or there are no such sockets on this system
                    logger.warning("the runs of this process cannot be looked at with forge ps: %s", error)
        self._handle_signal()

    def remove(self, run: Run) -> None:
        """Close the socket with the last run."""
        with self._lock:
            if run not in self._runs:
                return
            self._runs.remove(run)
            server = None
            if not self._runs:
                server, self._server = self._server, None
        if server is not None:
            server.close()
            self._restore_signal()

    def document(self) -> dict[str, Any]:
        """Return what is in flight, as plain data for JSON."""
        with self._lock:
            runs = list(self._runs)
        return {"pid": os.getpid(), "runs": [look(run).to_dict() for run in runs]}

    def _handle_signal(self) -> None:
        """Handle SIGUSR1, where it would kill the process; only the main thread can."""
        number = getattr(signal, "SIGUSR1", None)
        if number is None or threading.current_thread() is not threading.main_thread():
            return
        if not self._handles_signal and signal.getsignal(number) is signal.SIG_DFL:
            with suppress(ValueError):  # not the main interpreter
                signal.signal(number, self._on_signal)
                self._handles_signal = True

    def _restore_signal(self) -> None:
        if self._handles_signal and threading.current_thread() is threading.main_thread():
            if signal.getsignal(signal.SIGUSR1) == self._on_signal:
                signal.signal(signal.SIGUSR1, signal.SIG_DFL)
            self._handles_signal = False

    def _on_signal(self, *_: Any) -> None:
        # On a thread of its own: what was interrupted may hold a lock.
        threading.Thread(target=self._print, daemon=True, name="forge-ps").start()

    def _print(self) -> None:
        with suppress(Exception):
            sys.stderr.write("\n".join(lines(self.document())) + "\n")
            sys.stderr.flush()

    def forget(self) -> None:
        """Forget everything in a forked process: runs and socket are its parent's."""
        handles = self._handles_signal
        self.__init__()  # type: ignore[misc]
        if handles:
            signal.signal(signal.SIGUSR1, signal.SIG_DFL)


class _Server:
    """The socket of this process, with the thread that answers on it."""

    def __init__(self, introspection: Introspection) -> None:
        self._introspection = introspection
        place = folders()[0]
        with suppress(FileExistsError):
            place.mkdir(mode=0o700)
        _check(place)
        self._path = place / f"{os.getpid()}.sock"
        new = self._path.with_suffix(".new")
        new.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            # It has its name when it answers. Nobody else sees it before it has its mode: the folder is the owner's.
            self._socket.bind(str(new))
            new.chmod(0o600)
            self._socket.listen()
            new.rename(self._path)
            self._thread = threading.Thread(target=self._serve, daemon=True, name="forge-introspection")
            self._thread.start()
        except BaseException:
            self._socket.close()
            for path in (new, self._path):
                path.unlink(missing_ok=True)
            raise

    def close(self) -> None:
        """Remove the socket, and end the thread."""
        self._path.unlink(missing_ok=True)
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self._socket.close()
        if self._thread is not threading.current_thread():
            self._thread.join(_TIMEOUT)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                connection.settimeout(_TIMEOUT)
                connection.sendall(self._answer())

    def _answer(self) -> bytes:
        try:
            return json.dumps(self._introspection.document()).encode()
        except Exception as error:
            logger.debug("the runs of this process cannot be looked at", exc_info=True)
            return json.dumps({"pid": os.getpid(), "runs": [], "error": type(error).__name__}).encode()


def _check(place: Path) -> None:
    """Check the folder of the sockets.

    Raises:
        OSError: it belongs to somebody else, or others may enter it.
    """
    found = place.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise PermissionError(f"{place} must be a folder of your own that nobody else may enter (chmod 700)")


def ask(path: Path) -> dict[str, Any]:
    """Return what the process with this socket has in flight.

    Raises:
        OSError: nobody answers there.
        ValueError: the answer is not whole.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_TIMEOUT)
        connection.connect(str(path))
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    document: dict[str, Any] = json.loads(b"".join(parts))
    return document


def ask_all() -> list[dict[str, Any]]:
    """Return what every process of the user has in flight that can be looked at, or that it does not answer. Sockets of
    processes that are gone are removed.

    Raises:
        PermissionError: the folder of the sockets is not the user's own.
    """
    found = []
    for place in folders():
        if not place.exists():
            continue
        _check(place)
        for path in sorted(place.glob("*.sock")):
            try:
                found.append(ask(path))
            except ConnectionRefusedError:
                path.unlink(missing_ok=True)
            except FileNotFoundError:  # it has just ended
                continue
            except (OSError, ValueError) as error:
                found.append({"pid": int(path.stem), "runs": [], "error": str(error) or type(error).__name__})
    return found


def lines(document: dict[str, Any]) -> list[str]:
    """Return what a process has in flight as lines of plain text."""
    out = []
    if "error" in document:
        out.append(f"process {document['pid']} does not answer: {on_one_line(document['error'], 200)}")
    for run in document["runs"]:
        kind = "" if run["type"] == "full" else f", {run['type']}"
        out.append(
            f"{on_one_line(run['pipeline'], 60)} {run['run_id'][:8]} (process {document['pid']}{kind}): "
            f"{run['settled']} settled in {seconds(run['duration'])}, the last {seconds(run['silence'])} ago; "
            f"{run['active']} in flight"
        )
        out += lines_of(run)
    return out


def lines_of(run: dict[str, Any]) -> list[str]:
    """Return the samples of a run in flight, as `RunInFlight.to_dict()` has them, as lines of plain text."""
    out = []
    if run["source"]:
        out.append("  reading the source")
        out += [f"      {on_one_line(line, 300)}" for line in run["source"]]
    out += _calls([each for each in run["samples"] if each["state"] in ("call", "retry")])
    out += _in_workers([each for each in run["samples"] if each["state"] == "worker"])
    out += _waiting([each for each in run["samples"] if each["state"] not in ("call", "retry", "worker")])
    if (more := run["active"] - sum(each["count"] for each in run["samples"])) > 0:
        out.append(f"  and {more} more")
    return out


def _calls(samples: list[dict[str, Any]]) -> Iterator[str]:
    """Yield each sample in a call, with the stack unless it is that of the one before."""
    shown = None
    for sample in samples:
        tries = f", attempt {sample['attempt']}" if (sample["attempt"] or 1) > 1 else ""
        where = on_one_line(sample["where"], 80)
        yield f"  {on_one_line(sample['sample_id'], 80)}: {sample['state']} of {where}{_for(sample['duration'])}{tries}"
        if sample["stack"] and sample["stack"] != shown:
            yield from (f"      {on_one_line(line, 300)}" for line in sample["stack"])
        shown = sample["stack"] or shown


def _in_workers(samples: list[dict[str, Any]]) -> Iterator[str]:
    """Yield a line for each block that a worker process has."""
    for sample in samples:
        where, worker = on_one_line(sample["where"], 80), on_one_line(sample["worker"], 80)
        first = on_one_line(sample["sample_id"], 80)
        yield f"  {sample['count']} in {where}{_for(sample['duration'])} (process {worker}), first {first}"


def _waiting(samples: list[dict[str, Any]]) -> Iterator[str]:
    """Yield a line for all samples that wait for the same, with the one that has waited longest."""
    groups: dict[tuple[str, str | None], list[dict[str, Any]]] = {}
    for sample in samples:
        groups.setdefault((sample["state"], sample["where"]), []).append(sample)
    for (state, where), waiting in groups.items():
        place = "" if where is None else f" for {on_one_line(where, 80)}"
        first = waiting[0]
        count = sum(each["count"] for each in waiting)
        yield f"  {count} {state}{place}, first {on_one_line(first['sample_id'], 80)}{_for(first['duration'])}"


def _for(duration: float | None) -> str:
    return "" if duration is None else f" for {seconds(duration)}"


introspection: Final = Introspection()
"""The introspection of this process."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=introspection.forget)
