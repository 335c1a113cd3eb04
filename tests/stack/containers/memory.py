"""How much memory the containers use, watched while something runs."""

from __future__ import annotations

import json
import threading
from collections import Counter
from typing import TYPE_CHECKING

from .engine import PROJECT

if TYPE_CHECKING:
    from types import TracebackType

    from .engine import Engine

UNITS = {"GiB": 2**30, "MiB": 2**20, "KiB": 2**10, "B": 1}


class Peaks:
    """The most that each service was seen to use, and its limit, in bytes.

    Asked again and again, since only some kernels keep the peak, and count files that can be read again.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.used: Counter[str] = Counter()
        self.limits: Counter[str] = Counter()

    def __enter__(self) -> Peaks:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def __str__(self) -> str:
        return "\n".join(
            f"{name:14} {used / 2**20:4.0f} of {self.limits[name] / 2**20:.0f} MiB"
            for name, used in sorted(self.used.items())
        )

    def _watch(self) -> None:
        while not self._ended.is_set():
            listed = self._engine.docker(
                *("ps", "--filter", f"label=com.docker.compose.project={PROJECT}"),
                *("--format", '{{.ID}} {{.Label "com.docker.compose.service"}}'),
            )
            services = dict(line.split() for line in listed.splitlines())
            # One that ends meanwhile is an error.
            said = self._engine.run("docker", "stats", "--no-stream", "--format", "{{json .}}", *services, check=False)
            for each in map(json.loads, said.stdout.splitlines()):
                used, _, limit = each["MemUsage"].partition(" / ")
                name = services[each["ID"]]
                self.used[name] = max(self.used[name], _bytes(used))
                self.limits[name] = max(self.limits[name], _bytes(limit))  # 0 for one that is about to go


def _bytes(text: str) -> int:
    """What `docker stats` writes, as a number."""
    unit = next(unit for unit in UNITS if text.endswith(unit))
    return round(float(text.removesuffix(unit)) * UNITS[unit])
