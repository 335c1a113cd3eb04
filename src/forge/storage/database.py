"""Transactions on a database, tried again while it does not work."""

from __future__ import annotations

import logging
import os
import random
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import URL, Connection, Engine

from ..errors import StorageError
from .engine import Engines, connect, is_in_memory, shown, unusable
from .faults import is_busy, is_fault, reason_of, remedy_of
from .gate import Gate, patience

if TYPE_CHECKING:
    from ..support.clock import Clock
    from .sql import SQLStorage

T = TypeVar("T")

_FIRST_DELAY, _LONGEST_DELAY = 0.001, 0.25
"""Seconds between two attempts, doubled each time. The first ones let another writer finish."""
_QUIET = 1.0
"""Seconds of waiting before a warning is logged."""

logger = logging.getLogger("forge")


class Database:
    """The connections of one process to a database, opened by the first use.

    A transaction that fails because of the database is repeated as a whole, for `timeout` seconds; the gate is closed
    meanwhile.
    """

    def __init__(
        self,
        owner: SQLStorage,
        url: URL,
        *,
        timeout: float,
        clock: Clock,
        options: Mapping[str, Any],
        read_only: bool = False,
    ) -> None:
        self.url = url
        self.timeout = timeout
        self.options = options
        self._read_only = read_only
        self._owner = owner
        self._clock = clock
        self._engines: Engines | None = None
        self._inherited: Engines | None = None
        self._worked = False
        self._never = threading.Event()
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._gate = Gate()

    @property
    def gate(self) -> Gate:
        """Closed while transactions are repeated."""
        self._renew_after_fork()
        return self._gate

    def open(self) -> Engines:
        """Connect, unless that has been done.

        Raises:
            StorageError: the database cannot be used. It is waited for only if it has worked before, if others lock it,
                or if its server starts.
        """
        self._renew_after_fork()
        engines = self._engines
        if engines is not None:
            return engines
        with self._lock:
            engines = self._engines
            if engines is None:
                try:
                    # A mistake is reported at once. What has worked before is a fault, and may work again.
                    lasting = self._worked and not patience.get().eager
                    engines = self._repeat(self._connect, is_fault if lasting else is_busy)
                except StorageError:
                    raise
                except Exception as error:
                    # The server's own messages say what to do.
                    remedy = f"; {remedy_of(error)}" if isinstance(getattr(error, "orig", None), sqlite3.Error) else ""
                    raise unusable(self.url, reason_of(error) + remedy) from error
                self._engines, self._worked = engines, True
            return engines

    def close(self) -> None:
        """Close the connections. The next use opens them again."""
        self._renew_after_fork()
        with self._lock:
            engines, self._engines = self._engines, None
        if engines is not None:
            engines.write.dispose()

    def read(self, work: Callable[[Connection], T]) -> T:
        """Return the result of `work` in a transaction that sees one state of the database.

        Raises:
            StorageError: the database did not work for `timeout` seconds.
        """

        def attempt() -> T:
            with self._transaction(self.open().read) as connection:
                return work(connection)

        return self._repeat(attempt, is_fault)

    def write(self, work: Callable[[Connection], T], stored: Callable[[Connection, T], bool] | None = None) -> T:
        """Commit `work`, and return its result.

        Where the connection is lost during the commit, nobody knows whether it has succeeded. The next attempt asks
        `stored` whether the result of the lost one is there; without it, `work` is just repeated.

        Raises:
            StorageError: as for `read`, or it is opened to be read only.
        """
        self._check_writable()
        unsure: list[T] = []

        def attempt() -> T:
            engine: Engine = self.open().write
            if unsure and stored is not None:
                result = unsure[0]
                with self._transaction(engine) as connection:
                    if stored(connection, result):
                        return result
            unsure.clear()
            with self._transaction(engine) as connection:
                result = work(connection)
                unsure.append(result)
            return result

        return self._repeat(attempt, is_fault)

    def write_once(self, work: Callable[[Connection], object]) -> None:
        """Commit `work`, or raise what prevents it: nothing is repeated, and the gate stays open."""
        self._check_writable()
        with self._transaction(self.open().write) as connection:
            work(connection)

    def _repeat(self, attempt: Callable[[], T], may_pass: Callable[[BaseException], bool]) -> T:
        """Make attempts until one succeeds, fails with an error that does not pass, or the time is over."""
        try:
            return attempt()
        except Exception as error:
            if not may_pass(error):
                raise
            fault: Exception = error
        waits = patience.get()
        limit = self.timeout if waits.seconds is None else min(self.timeout, waits.seconds)
        if waits.eager and not is_busy(fault):
            limit = 0
        began = self._clock.monotonic()
        warned = False
        with self.gate.hold():
            for delay in _delays():
                passed = self._clock.monotonic() - began
                stopped = passed >= limit or self._clock.wait(waits.stop or self._never, min(delay, limit - passed))
                if stopped:
                    break
                try:
                    result = attempt()
                except Exception as error:
                    if not may_pass(error):
                        raise
                    fault = error
                else:
                    if warned:
                        logger.warning("%s works again, after %.0f s", shown(self.url), passed)
                    return result
                if passed > _QUIET and not warned:
                    warned = True
                    logger.warning(
                        "%s does not work, and is tried again for up to %g s: %s; meanwhile no new calls are made",
                        *(shown(self.url), limit, reason_of(fault)),
                    )
            lost = self._given_up(fault, self._clock.monotonic() - began)
            if waits.lost is not None and waits.storage is self._owner:
                waits.lost(lost)
            raise lost from fault

    def _given_up(self, fault: Exception, passed: float) -> StorageError:
        tried = f" (tried for {passed:.0f} s)" if passed >= 1 else ""
        return StorageError(
            f"cannot use {shown(self.url)}: {reason_of(fault)}{tried}; {remedy_of(fault)}, and run again: samples that "
            "are finished are not processed again"
        )

    @contextmanager
    def _transaction(self, engine: Engine) -> Iterator[Connection]:
        """Commit a transaction at the end of the block, or roll it back if that fails."""
        with engine.connect() as connection:
            try:
                with connection.begin():
                    yield connection
            except Exception as error:
                if is_fault(error) and not is_busy(error) and not is_in_memory(self.url):
                    connection.invalidate()  # it may lead to a server or a file that is gone
                raise

    def _connect(self) -> Engines:
        return connect(self.url, timeout=self.timeout, options=self.options, read_only=self._read_only)

    def _check_writable(self) -> None:
        if self._read_only:
            raise unusable(self.url, "it was opened to be read only")

    def _renew_after_fork(self) -> None:
        """Start anew in a forked process: connections, locks and waits are those of its parent."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._inherited, self._engines = self._engines, None  # closing them would disturb the parent
            self._lock, self._gate = threading.Lock(), Gate()


def _delays() -> Iterator[float]:
    delay = _FIRST_DELAY
    while True:
        yield delay * random.uniform(0.5, 1.0)  # noqa: S311 - keeps writers apart, and nobody gains from guessing it
        delay = min(2 * delay, _LONGEST_DELAY)
