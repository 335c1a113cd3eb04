"""Records of runs, and their manifests."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Double, cast, delete, extract, func, insert, select, update

from ..errors import StorageError
from ..support import processes
from ..support.text import escape
from .database import Database
from .engine import backend_of, is_in_memory
from .manifests import ManifestEntry, decode, find
from .records import RunRow
from .rows import checked_limit
from .schema import manifests, runs, steps
from .steps import SampleSteps
from .steps import decode as decode_steps

_CHUNKS: Final = 64
"""Chunks of a manifest that are read together."""


class RunRecords:
    """The part of a storage that keeps runs."""

    _database: Database

    def begin_run(
        self, run_id: str, pipeline: str, pipeline_id: str, started: float, record: Mapping[str, Any]
    ) -> None:
        """Store the start of a run in this process, at this Unix time; `record` is plain data for JSON."""
        process = processes.current()
        row = {
            "id": run_id,
            "pipeline": pipeline,
            "pipeline_id": pipeline_id,
            "started": started,
            "record": json.dumps(record),
            "host": escape(process.host),
            "pid": process.pid,
            "process": process.birth,
        }

        def work(connection: Connection) -> None:
            connection.execute(insert(runs).values(heartbeat=self._now()), row)

        def stored(connection: Connection, _: None) -> bool:
            return connection.execute(select(runs.c.id).where(runs.c.id == run_id)).first() is not None

        self._database.write(work, stored)

    def beat(self, run_id: str) -> None:
        """Store the heartbeat of a run: the time, by the clock of the database. Tried once, and not waited for.

        Raises:
            Exception: it cannot be stored now.
        """
        if is_in_memory(self._database.url):
            return  # no other process can look at it
        change = update(runs).where(runs.c.id == run_id).values(heartbeat=self._now())
        self._database.write_once(lambda connection: connection.execute(change))

    def update_run(self, run_id: str, record: Mapping[str, Any]) -> None:
        """Replace the record of a run that has no end. Tried once, and not waited for.

        Raises:
            Exception: it cannot be stored now.
        """
        change = update(runs).where(runs.c.id == run_id, runs.c.ended.is_(None)).values(record=json.dumps(record))
        self._database.write_once(lambda connection: connection.execute(change))

    def end_run(self, run_id: str, ended: float, outcome: str, record: Mapping[str, Any]) -> None:
        """Store the end of a run: its Unix time and outcome; `record` replaces the one from its start.

        Raises:
            StorageError: if there is no such run.
        """
        row = {"ended": ended, "outcome": str(outcome), "record": json.dumps(record)}
        change = update(runs).where(runs.c.id == run_id).values(row)
        if self._database.write(lambda connection: connection.execute(change).rowcount) == 0:
            raise StorageError(f"run {run_id!r} cannot be ended: it is not stored, so it never began here")

    def runs(
        self,
        pipeline: str | None = None,
        limit: int | None = None,
        *,
        skip: int = 0,
        prefix: str = "",
        before: float | None = None,
    ) -> list[RunRow]:
        """Return the runs of one pipeline, or of all, the newest first, without the first `skip` of them; optionally
        only those whose ids begin with a prefix, or that started before a Unix time.
        """
        silence = (self._now() - runs.c.heartbeat).label("silence")
        columns = [column for column in runs.c if column is not runs.c.heartbeat]
        chosen = select(*columns, silence).order_by(runs.c.started.desc(), runs.c.id.desc()).limit(checked_limit(limit))
        if skip:
            chosen = chosen.offset(checked_limit(skip))
        if before is not None:
            chosen = chosen.where(runs.c.started < before)
        if prefix:
            chosen = chosen.where(runs.c.id.startswith(prefix, autoescape=True))
        if pipeline is not None:
            chosen = chosen.where(runs.c.pipeline == pipeline)
        rows = self._database.read(lambda connection: connection.execute(chosen).mappings().all())
        return [RunRow(**{**row, "record": json.loads(row["record"])}) for row in rows]

    def delete_runs(self, run_ids: Iterable[str]) -> int:
        """Remove the records and manifests of runs; returns the number of runs removed. Samples stay."""
        ids = sorted(set(run_ids))

        def work(connection: Connection) -> int:
            for table in (manifests, steps):
                connection.execute(delete(table).where(table.c.run_id.in_(ids)))
            return connection.execute(delete(runs).where(runs.c.id.in_(ids))).rowcount

        return self._database.write(work)

    def add_manifest(self, run_id: str, number: int, chunk: bytes, steps_chunk: bytes | None = None) -> None:
        """Store a chunk of a run's manifest, as `manifests.encode` returns it, and the steps of its samples, as
        `steps.encode` does; chunks are numbered from 0.
        """
        row = {"run_id": run_id, "number": number, "content": chunk}
        this = select(manifests.c.number).where(manifests.c.run_id == run_id, manifests.c.number == number)

        def work(connection: Connection) -> None:
            connection.execute(insert(manifests), row)
            if steps_chunk is not None:
                connection.execute(insert(steps), {**row, "content": steps_chunk})

        self._database.write(work, lambda connection, _: connection.execute(this).first() is not None)

    def manifest(self, run_id: str) -> Iterator[ManifestEntry]:
        """Yield the samples that a run has settled, in the order in which they did, from a few chunks at a time.

        Of a run that was killed, up to 1 023 samples are missing; of runs of earlier releases all of them.
        """
        first = 0
        while chunks := self._manifest_chunks(run_id, first):
            for chunk in chunks:
                yield from decode(chunk)
            first += len(chunks)

    def manifest_entries(self, run_id: str, sample_id: str) -> list[tuple[ManifestEntry, SampleSteps | None]]:
        """Return the entries of a sample in a run's manifest, with its steps: one if it has settled in the run, more if
        its id came several times.
        """
        found = []
        first = 0
        while chunks := self._manifest_chunks(run_id, first):
            for number, chunk in enumerate(chunks, first):
                for place, entry in find(chunk, sample_id):
                    taken = self._steps_chunk(run_id, number)
                    found.append((entry, None if taken is None else decode_steps(taken, place)))
            first += len(chunks)
        return found

    def _now(self) -> ColumnElement[float]:
        """Return the Unix time by the clock of the database, which is the same for all hosts that use a server."""
        if backend_of(self._database.url) == "sqlite":
            return (func.julianday("now", type_=Double) - 2440587.5) * 86400.0
        return cast(extract("epoch", func.clock_timestamp()), Double)

    def _steps_chunk(self, run_id: str, number: int) -> bytes | None:
        chosen = select(steps.c.content).where(steps.c.run_id == run_id, steps.c.number == number)
        return self._database.read(lambda connection: connection.execute(chosen).scalar_one_or_none())

    def _manifest_chunks(self, run_id: str, first: int) -> Sequence[bytes]:
        """Return some chunks of a manifest, from this number on."""
        chosen = (
            select(manifests.c.content)
            .where(manifests.c.run_id == run_id, manifests.c.number >= first)
            .order_by(manifests.c.number)
            .limit(_CHUNKS)
        )
        return self._database.read(lambda connection: connection.execute(chosen).scalars().all())
