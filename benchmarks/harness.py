"""Measuring in turns: every contestant in a process of its own that is kept alive, one of them at work at a time."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

ROOT = Path(__file__).parents[1]

T = TypeVar("T")


class WorkerError(Exception):
    """A worker process ended without an answer; the message is the last that it wrote to its standard error."""


class Worker:
    """A process that answers lines of JSON with lines of JSON; see `serve`."""

    def __init__(self, module: str, *arguments: str, python: str = sys.executable, source: Path | None = None) -> None:
        """Start `python -m module` in the checkout; `source` is where an environment without our packages has them."""
        self._errors: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the worker
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "FORGE_"))}
        if source is not None:
            clean["PYTHONPATH"] = str(source)
        self._process = subprocess.Popen(
            [python, "-m", module, *arguments],
            cwd=ROOT,
            env=clean,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def hello(self) -> Any:
        """Wait until the process is ready; returns what it said then. To be called once, before it is asked anything.

        Raises:
            WorkerError: the process has ended.
        """
        return self._answer()

    def ask(self, question: Mapping[str, Any] | int) -> Any:
        """Send a question and wait for the answer.

        Raises:
            WorkerError: the process has ended.
        """
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # then there is no answer
            print(json.dumps(question), file=self._process.stdin, flush=True)
        return self._answer()

    def close(self) -> None:
        """Let the process end, and wait until it has."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()
        self._errors.close()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        code = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().strip().splitlines() or [f"exit code {code}"]
        raise WorkerError(said[-1])


def channel() -> IO[str]:
    """In a worker: return the stream for its answers. From now on, anything printed goes to the standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def serve(answers: IO[str], hello: Any, answer: Callable[[Any], Any]) -> None:
    """In a worker: say hello and answer questions until there are no more."""
    print(json.dumps(hello), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=answers, flush=True)


def in_turns(
    measures: Mapping[str, Callable[[], T]], rounds: int, progress: Callable[[str], None]
) -> dict[str, list[T]]:
    """Take the measures in turns, for several rounds; return the values of each.

    `progress` is called with the name of each before its turn.
    """
    results: dict[str, list[T]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            progress(name)
            results[name].append(measure())
    return results


def smallest_and_median(values: Sequence[float]) -> dict[str, float]:
    return {"min": min(values), "median": statistics.median(values)}


def machine() -> dict[str, Any]:
    """The processor, the operating system and the Python that the numbers depend on."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "os": _system(),
    }


def versions(*packages: str) -> dict[str, str]:
    """The versions of those of the packages that are installed."""
    found = {}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def _cpu() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _system() -> str:
    kernel = f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}"
    with contextlib.suppress(OSError):  # not on Linux
        return f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {kernel}"
    return kernel
