"""The display of a run's progress while a block lasts. No fault in it reaches the run."""

from __future__ import annotations

import contextvars
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO

from ..support.text import on_one_line
from .keyboard import SUSPEND, Keyboard

if TYPE_CHECKING:
    from ..runner.run import Run
    from .tracker import Tracker

logger = logging.getLogger("forge")

LINE_EVERY = 30.0
"""Seconds between two lines where there is neither a terminal nor a notebook."""
POLL = 0.02
"""Seconds between two looks whether the run has begun."""
PATIENCE = 1.0
"""Seconds that the end of the block waits for a display that is being written."""


class Display(Protocol):
    """A way to show progress. One thread makes all calls, except for the last `stop`, which comes after them."""

    every: float
    """Seconds between two refreshes."""
    keys: Mapping[str, Callable[[], None]]
    """Functions of keys, if it has any."""
    is_keyboard_open: bool
    """Set to True if keys are read while it is shown."""

    def start(self) -> None:
        """Show the display."""

    def refresh(self) -> None:
        """Show the present state."""

    def stop(self) -> None:
        """Show the last state, or remove the display, and restore the terminal."""


@contextmanager
def progress(
    run: Run,
    *,
    total: int | None = None,
    stream: TextIO | None = None,
    every: float = LINE_EVERY,
    keys: bool = False,
) -> Iterator[Run]:
    """Show the progress of a run while the block lasts, or until the run has ended.

    On a terminal it is a bar, with the rate and, where the source has a length, the time left; and a line for each
    stage. In a notebook it is the same as a table below the cell. Elsewhere, such as in a log file, it is a line every
    30 seconds. A fault of the display ends the display, and not the run. With `keys`, what is typed is not echoed, and
    the program does not get it.

    Args:
        run: The run, which need not have begun.
        total: Number of samples in the source, if it has no `len()`.
        stream: Where to write; by default stderr, and in a notebook the output of the cell.
        every: Seconds between two lines where `stream` is no terminal.
        keys: Whether `p`, typed in the terminal, toggles between the table and the samples in flight.
    """
    shown = _Shown(run, total, stream, every, keys=keys)
    run.when_ended(shown.close)
    shown.open()
    try:
        yield run
    finally:
        shown.close()


class _Shown:
    """A display with the thread that refreshes it."""

    def __init__(self, run: Run, total: int | None, stream: TextIO | None, every: float, *, keys: bool) -> None:
        self._run = run
        self._takes_keys = keys
        self._keyboard: Keyboard | None = None
        self._total = total
        self._stream = stream
        self._every = every
        self._display: Display | None = None
        self._started = False
        self._done = threading.Event()
        self._closing = threading.Lock()
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Show the display. Never raises an `Exception`."""
        if self._run.result is not None:
            return
        try:
            from .tracker import Tracker  # noqa: PLC0415 - with what it imports

            self._display = choose(Tracker(self._run, self._total), self._stream, self._every)
            if self._display is None:
                return
            if self._takes_keys and self._display.keys:
                self._keyboard = Keyboard.of_process()
                self._display.is_keyboard_open = self._keyboard is not None
            context = contextvars.copy_context()  # in which a notebook finds the cell
            self._thread = threading.Thread(
                target=context.run, args=(self._refresh, self._display), daemon=True, name="forge-progress"
            )
            self._thread.start()
        except Exception as error:  # noqa: BLE001 - a display never harms a run
            self._give_up(error)

    def close(self) -> None:
        """Remove the display, once. Never raises an `Exception`, and waits for a moment only."""
        with self._closing:
            display, self._display = self._display, None
            self._done.set()
            if self._keyboard is not None:
                self._keyboard.close()
            if display is None or self._thread is None or self._thread is threading.current_thread():
                return
            self._thread.join(PATIENCE)
            if self._thread.is_alive() or not self._started:  # the terminal takes nothing, and would not take more
                return
            try:
                display.stop()
            except Exception as error:  # noqa: BLE001
                self._give_up(error)

    def _refresh(self, display: Display) -> None:
        try:
            # Before the run begins, a signal kills the process at once, and leaves the terminal as it is.
            while not self._run.began:
                if self._done.wait(POLL):
                    return
            self._started = True
            if self._keyboard is not None:
                self._keyboard.take()
            display.start()
            while not self._done.wait(display.every):
                if self._keyboard is not None:
                    self._press(display, self._keyboard)
                display.refresh()
        except Exception as error:  # noqa: BLE001
            self._give_up(error)

    def _press(self, display: Display, keyboard: Keyboard) -> None:
        for key in keyboard.read():
            if key == SUSPEND:
                display.stop()
                keyboard.suspend()
                keyboard.take()
                display.start()
            elif key in display.keys:
                display.keys[key]()

    def _give_up(self, error: Exception) -> None:
        try:
            what = on_one_line(str(error), 200)
            logger.warning(
                "the progress of %r is not shown: %s: %s", self._run.pipeline.name, type(error).__name__, what
            )
        except Exception:  # noqa: BLE001, S110 - nor does its log
            pass


def choose(tracker: Tracker, stream: TextIO | None, every: float) -> Display | None:
    """Return the display for a stream; None if there is nothing to write to."""
    from .log import LogLines  # noqa: PLC0415 - the others import rich and IPython

    if stream is None:
        if is_notebook():
            from .notebook import NotebookTable  # noqa: PLC0415

            return NotebookTable(tracker)
        stream = sys.stderr
    if stream is None:
        return None
    if stream.isatty():
        from .terminal import TerminalTable  # noqa: PLC0415

        table = TerminalTable(tracker, stream)
        if table.is_possible:
            return table
    return LogLines(tracker, stream, every)


def is_notebook() -> bool:
    """Return True if the code runs in the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")
