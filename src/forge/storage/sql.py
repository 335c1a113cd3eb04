"""Samples, measured values, dead letters and runs in SQLite or PostgreSQL."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Double,
    Row,
    Select,
    cast,
    delete,
    extract,
    func,
    insert,
    select,
    tuple_,
    update,
)

from ..errors import ConfigurationError, StorageError
from ..pipeline.failure import FailureSource
from ..pipeline.sample import SampleStatus
from ..support import numbers, processes
from ..support.clock import Clock, SystemClock
from ..support.money import ZERO
from ..support.text import escape, unescape
from . import engine, statements
from .database import Database
from .engine import backend_of, check_options, has_current_schema, is_in_memory, parse_url, schema_version, shown
from .gate import Gate
from .manifests import ManifestEntry, decode, find
from .records import DeadLetter, DeadLetterKey, ReadResult, RunRow, SampleRecord, WriteOutcome, WriteResult
from .rows import (
    check,
    checked_limit,
    chunks,
    cost_row,
    dead_letter_key_of,
    dead_letter_of,
    dead_letter_row,
    sample_of,
    sample_row,
    value_rows,
)
from .schema import costs, dead_letters, manifests, measurements, runs, samples, steps
from .steps import SampleSteps
from .steps import decode as decode_steps

_PAGE = 200
"""Rows whose content is read together."""
_CHUNKS = 64
"""Chunks of a manifest that are read together."""


class SQLStorage:
    """The storage of pipelines in SQLite (`sqlite:///corpus.db`) or PostgreSQL (`postgresql://user@host/database`).

    Nothing is opened before the first use. All methods may be called from several threads, and several
    processes may share one database. `sqlite://` keeps everything in memory, until `close`.

    A transaction that fails because of the database (locked, full, read-only, gone, …) is tried again as a whole for
    `timeout` seconds (default: 60); then the method raises `StorageError`, which says what to do. Errors of the content
    are raised as SQLAlchemy's. A method that failed has changed nothing.

    `options` go to SQLAlchemy's `create_engine`: `pool_size=20`, or `connect_args={"sslmode": "require"}` for the
    driver. With `read_only`, nothing is created, migrated, locked or written, so a file on a read-only disk, or a user
    without the right to write, is enough. `clock` is for tests.

    Raises:
        ConfigurationError: for a URL that is none, that names another kind of database, or a form of SQLite that cannot
            be used by several connections; for a negative timeout; for an option that does not exist or that the
            storage sets itself.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float | None = None,
        read_only: bool = False,
        clock: Clock | None = None,
        **options: Any,
    ) -> None:
        self._url = parse_url(url)
        seconds = engine._LOCK_TIMEOUT if timeout is None else timeout
        if not numbers.is_finite(seconds):
            raise ConfigurationError(
                f"SQLStorage: timeout must be a number of seconds from 0, not {numbers.shown(timeout)}"
            )
        check_options(self._url, options)
        self._settings = {"timeout": timeout, "read_only": read_only, "clock": clock, **options}
        self._database = Database(
            self, self._url, timeout=seconds, clock=clock or SystemClock(), options=options, read_only=read_only
        )

    @property
    def backend(self) -> str:
        """`sqlite` or `postgresql`."""
        return backend_of(self._url)

    @property
    def gate(self) -> Gate:
        """Closed while operations wait for the database to work again; runs hold up calls of user code meanwhile."""
        return self._database.gate

    def open(self) -> None:
        """Connect, create missing tables, and migrate those of an earlier release. Every other method does it too;
        doing it again costs nothing.

        Raises:
            StorageError: if the driver, the folder, the permission or the server is missing, the file is no database,
                or a newer release of forge-otel has migrated the database.
        """
        self._database.open()

    def schema_version(self) -> int:
        """Return the version of the stored schema, without creating or migrating anything; 0 if there are no tables.

        Raises:
            StorageError: as for `open`.
        """
        return schema_version(self._url, timeout=self._database.timeout)

    def has_current_schema(self) -> bool:
        """Return True if `open` has nothing to create and nothing to migrate: the storage can be read with `read_only`.

        Raises:
            StorageError: as for `open`.
        """
        return has_current_schema(self._url, timeout=self._database.timeout)

    def close(self) -> None:
        """Close the connections. The next use opens them again."""
        self._database.close()

    def release(self) -> None:
        """Close the connections, unless the database would be gone with them, being one in memory."""
        if not is_in_memory(self._url):
            self.close()

    def write(self, records: Sequence[SampleRecord]) -> WriteResult:
        """Store samples with their new values and dead letters, all in one transaction or not at all.

        A row with the same content stays as it is, run id included. Values that are there already are kept.
        Of records with the same id the last one counts, the others are `unchanged`.

        Raises:
            UnstorableError: before anything is written, for an id of more than 2 048 bytes, for a pipeline's name that
                no database can hold, or for values without a digest.
        """
        last = {(record.pipeline, record.id): index for index, record in enumerate(records)}
        # Every writer locks the sample rows first, in the same order, so that no two wait for each other.
        written = [records[last[key]] for key in sorted(last)]
        for record in written:
            check(record)
        if not written:
            return WriteResult((), 0)

        def work(connection: Connection) -> tuple[dict[tuple[str, str], int], int, tuple[DeadLetterKey, ...]]:
            new, old = self._new_and_old(connection, written)
            revisions = self._write_samples(connection, new, old)
            size = self._write_values(connection, new, old)
            self._write_costs(connection, written)
            return revisions, size, self._write_dead_letters(connection, written)

        def stored(connection: Connection, result: tuple[dict[tuple[str, str], int], Any, Any]) -> bool:
            # A row of this revision and run is there only if all of them are. Where no row changes, nothing is lost by
            # doing it again.
            for (pipeline, sample_id), revision in result[0].items():
                chosen = {"pipeline": pipeline, "ids": [escape(sample_id)]}
                found = connection.execute(statements.SAMPLES, chosen).first()
                run_id = records[last[pipeline, sample_id]].run_id
                return found is not None and (found.revision, found.run_id) == (revision, run_id)
            return False

        revisions, size, superseded = self._database.write(work, stored)
        outcomes = []
        for index, record in enumerate(records):
            key = (record.pipeline, record.id)
            if last[key] == index and record.dead_letter is not None:
                size += len(record.dead_letter.data or b"")
            revision = revisions.get(key) if last[key] == index else None
            if revision is None:
                outcomes.append(WriteOutcome.UNCHANGED)
                continue
            outcomes.append(WriteOutcome.INSERTED if revision == 1 else WriteOutcome.UPDATED)
            size += len(record.data or b"")
        return WriteResult(tuple(outcomes), size, superseded)

    def read(self, pipeline: str, ids: Iterable[str]) -> ReadResult:
        """Read the samples with these ids, as far as they exist."""
        wanted = list(chunks(ids))

        def work(connection: Connection) -> ReadResult:
            rows = [
                row
                for chunk in wanted
                for row in connection.execute(statements.SAMPLES, {"pipeline": pipeline, "ids": chunk})
            ]
            return _load(connection, pipeline, rows)

        return self._database.read(work)

    def query(
        self,
        pipeline: str,
        *,
        status: SampleStatus | None = None,
        parent: str | None = None,
        limit: int | None = None,
    ) -> ReadResult:
        """Read the samples with this status and parent, sorted by id."""
        conditions = [samples.c.pipeline == pipeline]
        if status is not None:
            conditions.append(samples.c.status == SampleStatus(status).value)
        if parent is not None:
            conditions.append(samples.c.parent == escape(parent))
        chosen = select(samples).where(*conditions).order_by(samples.c.id).limit(checked_limit(limit))
        return self._database.read(lambda connection: _load(connection, pipeline, connection.execute(chosen).all()))

    def ids_like(self, pipeline: str, part: str, limit: int) -> list[str]:
        """Return ids of samples in which a text occurs, sorted."""
        chosen = (
            select(samples.c.id)
            .where(samples.c.pipeline == pipeline, samples.c.id.contains(escape(part), autoescape=True))
            .order_by(samples.c.id)
            .limit(checked_limit(limit))
        )
        found = self._database.read(lambda connection: connection.execute(chosen).scalars().all())
        return [unescape(each) for each in found]

    def measured(self, pipeline: str, pairs: Iterable[tuple[str, str]], key: str, version: str) -> dict[str, bytes]:
        """Return cached values for pairs of sample id and digest of its data, by sample id."""
        wanted = dict(pairs)

        def work(connection: Connection) -> dict[str, bytes]:
            found: dict[str, bytes] = {}
            for ids in chunks(wanted):
                digests = sorted({wanted[unescape(sample_id)] for sample_id in ids})
                rows = connection.execute(
                    statements.CACHED_VALUES,
                    {"pipeline": pipeline, "ids": ids, "key": key, "version": version, "digests": digests},
                )
                for row in rows:
                    sample_id = unescape(row.sample_id)
                    if wanted[sample_id] == row.digest:
                        found[sample_id] = row.value
            return found

        return self._database.read(work)

    def costs(self, pipeline: str, pairs: Iterable[tuple[str, str]], key: str, version: str) -> dict[str, Decimal]:
        """Return the costs of computing cached values, in US dollars, by sample id; free values are left out."""
        wanted = dict(pairs)

        def work(connection: Connection) -> dict[str, Decimal]:
            found: dict[str, Decimal] = {}
            for ids in chunks(wanted):
                chosen = {"pipeline": pipeline, "ids": ids, "key": key, "version": version}
                for row in connection.execute(statements.COSTS, chosen):
                    sample_id = unescape(row.sample_id)
                    if wanted[sample_id] == row.digest:
                        found[sample_id] = Decimal(row.amount)
            return found

        return self._database.read(work)

    def values(
        self, pipeline: str, ids: Iterable[str], key: str, version: str
    ) -> dict[tuple[str, str], tuple[bytes, Decimal]]:
        """Return all cached values of these samples with what computing them has cost, by sample id and digest."""
        wanted = list(chunks(ids))

        def work(connection: Connection) -> dict[tuple[str, str], tuple[bytes, Decimal]]:
            found: dict[tuple[str, str], tuple[bytes, Decimal]] = {}
            for chunk in wanted:
                chosen = {"pipeline": pipeline, "ids": chunk, "key": key, "version": version}
                amounts = {
                    (row.sample_id, row.digest): Decimal(row.amount)
                    for row in connection.execute(statements.COSTS, chosen)
                }
                for row in connection.execute(statements.ALL_VALUES, chosen):
                    cost = amounts.get((row.sample_id, row.digest), ZERO)
                    found[unescape(row.sample_id), row.digest] = row.value, cost
            return found

        return self._database.read(work)

    def has_costs(self, pipeline: str) -> bool:
        """Return True if any value had a cost."""
        chosen = select(costs.c.key).where(costs.c.pipeline == pipeline).limit(1)
        return self._database.read(lambda connection: connection.execute(chosen).first() is not None)

    def delete(self, pipeline: str, ids: Iterable[str]) -> int:
        """Remove samples with their values and dead letters; returns the number of samples removed."""
        wanted = list(chunks(ids))

        def work(connection: Connection) -> int:
            count = 0
            for chunk in wanted:
                count += len(_lock_rows(connection, pipeline, chunk))
                for table in (measurements, costs, dead_letters):
                    connection.execute(delete(table).where(table.c.pipeline == pipeline, table.c.sample_id.in_(chunk)))
                connection.execute(delete(samples).where(samples.c.pipeline == pipeline, samples.c.id.in_(chunk)))
            return count

        def stored(connection: Connection, _: int) -> bool:
            return not any(
                connection.execute(statements.IDS, {"pipeline": pipeline, "ids": chunk}).first() for chunk in wanted
            )

        return self._database.write(work, stored)

    def count(self, pipeline: str) -> int:
        """Return the number of stored samples."""
        counted = select(func.count()).select_from(samples).where(samples.c.pipeline == pipeline)
        return self._database.read(lambda connection: connection.execute(counted).scalar_one())

    def statuses(self, pipeline: str, run_id: str) -> dict[SampleStatus, int]:
        """Return the number of stored samples that a run was the last to change, by status."""
        counted = (
            select(samples.c.status, func.count())
            .where(samples.c.pipeline == pipeline, samples.c.run_id == run_id)
            .group_by(samples.c.status)
            .order_by(samples.c.status)
        )
        rows = self._database.read(lambda connection: connection.execute(counted).all())
        return {SampleStatus(status): number for status, number in rows}

    def dead_letters(
        self,
        pipeline: str | None = None,
        *,
        ids: Iterable[str] | None = None,
        where: str | None = None,
        error_type: str | None = None,
        run_id: str | None = None,
        since: float | None = None,
        until: float | None = None,
        limit: int | None = None,
    ) -> list[DeadLetter]:
        """Return the dead letters of one pipeline, or of all, the oldest first; optionally only those with these ids,
        of this place, error and run, that failed from `since` and before `until` (Unix times).
        """
        chosen = select(dead_letters).where(*_letters(pipeline, where, error_type, run_id, since, until))
        order = (dead_letters.c.time, dead_letters.c.sample_id, dead_letters.c.pipeline)
        if ids is None:
            found = [chosen.order_by(*order).limit(checked_limit(limit))]
        else:
            found = [chosen.where(dead_letters.c.sample_id.in_(chunk)) for chunk in chunks(ids)]

        def work(connection: Connection) -> list[DeadLetter]:
            return [dead_letter_of(row) for selection in found for row in connection.execute(selection)]

        entries = self._database.read(work)
        return entries if ids is None else sorted(entries, key=_age)[: checked_limit(limit)]

    def count_dead_letters(
        self,
        pipeline: str | None = None,
        *,
        where: str | None = None,
        error_type: str | None = None,
        run_id: str | None = None,
        since: float | None = None,
        until: float | None = None,
    ) -> dict[tuple[str, str, str], int]:
        """Return the numbers of dead letters by (pipeline, place, error type), chosen as by `dead_letters`; the
        largest first.
        """
        columns = (dead_letters.c.pipeline, dead_letters.c.place, dead_letters.c.error_type)
        counted = (
            select(*columns, func.count())
            .where(*_letters(pipeline, where, error_type, run_id, since, until))
            .group_by(*columns)
            .order_by(func.count().desc(), *columns)
        )
        rows = self._database.read(lambda connection: connection.execute(counted).all())
        return {(name, place, kind): count for name, place, kind, count in rows}

    def drop_dead_letters(self, pipeline: str, ids: Iterable[str]) -> list[DeadLetter]:
        """Remove dead letters; returns those removed, the oldest first. The samples' rows stay."""
        wanted = list(chunks(ids))

        def work(connection: Connection) -> list[DeadLetter]:
            dropped: list[DeadLetter] = []
            for chunk in wanted:
                _lock_rows(connection, pipeline, chunk)
                removal = delete(dead_letters).where(
                    dead_letters.c.pipeline == pipeline, dead_letters.c.sample_id.in_(chunk)
                )
                dropped.extend(dead_letter_of(row) for row in connection.execute(removal.returning(dead_letters)))
            return dropped

        def stored(connection: Connection, _: list[DeadLetter]) -> bool:
            return not any(
                connection.execute(statements.DEAD_LETTER_KEYS, {"pipeline": pipeline, "ids": chunk}).first()
                for chunk in wanted
            )

        dropped = self._database.write(work, stored)
        return sorted(dropped, key=_age)

    def dead_letter_state(self, pipeline: str) -> tuple[dict[tuple[FailureSource, str], int], float | None]:
        """Return the number of dead letters by (source, where), and the Unix time of the oldest."""
        counted = (
            select(dead_letters.c.source, dead_letters.c.place, func.count(), func.min(dead_letters.c.time))
            .where(dead_letters.c.pipeline == pipeline)
            .group_by(dead_letters.c.source, dead_letters.c.place)
        )
        rows = self._database.read(lambda connection: connection.execute(counted).all())
        depth = {(FailureSource(source), place): number for source, place, number, _ in rows}
        return depth, min((oldest for *_, oldest in rows), default=None)

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
        if is_in_memory(self._url):
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

    def contents(self) -> Iterator[tuple[str, str, bytes | None]]:
        """Yield all stored data of samples, of all pipelines: name of the pipeline, id of the sample, and its data, one
        of its measured values, or the data of its dead letter.
        """
        for table, sample_id, content, keys in (
            (samples, samples.c.id, samples.c.data, (samples.c.pipeline, samples.c.id)),
            (measurements, measurements.c.sample_id, measurements.c.value, (measurements.c.number,)),
            (dead_letters, dead_letters.c.sample_id, dead_letters.c.data, tuple(dead_letters.primary_key)),
        ):
            page: Select[Any] = select(table.c.pipeline, sample_id, content, *keys).order_by(*keys).limit(_PAGE)
            rows = self._rows(page)
            while rows:
                for name, stored_id, data, *_ in rows:
                    yield name, unescape(stored_id), data
                rows = self._rows(page.where(tuple_(*keys) > tuple_(*rows[-1][3:])))

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

    def __reduce__(self) -> tuple[Any, ...]:
        # Connections stay at home: another process opens its own.
        return _rebuild, (type(self), self._url.render_as_string(hide_password=False), self._settings)

    @property
    def url(self) -> str:
        """Address of the database, without its password."""
        return shown(self._url)

    def __repr__(self) -> str:
        return f"SQLStorage({self.url!r})"

    def _now(self) -> ColumnElement[float]:
        """Return the Unix time by the clock of the database, which is the same for all hosts that use a server."""
        if self.backend == "sqlite":
            return (func.julianday("now", type_=Double) - 2440587.5) * 86400.0
        return cast(extract("epoch", func.clock_timestamp()), Double)

    def _rows(self, chosen: Select[Any]) -> Sequence[Sequence[Any]]:
        return self._database.read(lambda connection: connection.execute(chosen).all())

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

    def _new_and_old(
        self, connection: Connection, records: Sequence[SampleRecord]
    ) -> tuple[Sequence[SampleRecord], Sequence[SampleRecord]]:
        """Split records into those that are not stored, until this transaction ends, and those that may be."""
        if self.backend != "sqlite":
            return [], records  # another writer may store one of them until this one does
        known = {
            (pipeline, unescape(sample_id))
            for pipeline, ids in _by_pipeline(records)
            for chunk in chunks(ids)
            for sample_id in connection.execute(statements.IDS, {"pipeline": pipeline, "ids": chunk}).scalars()
        }
        if not known:
            return records, []
        new = [record for record in records if (record.pipeline, record.id) not in known]
        return new, [record for record in records if (record.pipeline, record.id) in known]

    def _write_samples(
        self, connection: Connection, new: Sequence[SampleRecord], old: Sequence[SampleRecord]
    ) -> dict[tuple[str, str], int]:
        """Write rows of samples; returns the new revisions of those inserted or updated."""
        if new:
            connection.execute(statements.NEW_SAMPLES, [sample_row(record) for record in new])
        revisions = {(record.pipeline, record.id): 1 for record in new}
        if old:
            rows = connection.execute(statements.upserts(self.backend).samples, [sample_row(record) for record in old])
            revisions |= {(pipeline, unescape(sample_id)): revision for pipeline, sample_id, revision in rows}
        return revisions

    def _write_values(self, connection: Connection, new: Sequence[SampleRecord], old: Sequence[SampleRecord]) -> int:
        """Write measured values; returns the bytes of those that were not there yet."""
        now = time.time()
        size = 0
        if rows := value_rows(new, now):
            connection.execute(statements.NEW_VALUES, rows)
            size = sum(len(row["value"]) for row in rows)
        if rows := value_rows(old, now):
            size += sum(connection.execute(statements.upserts(self.backend).values, rows).scalars())
        return size

    def _write_costs(self, connection: Connection, records: Sequence[SampleRecord]) -> None:
        rows = [cost_row(record, *kept, amount) for record in records for kept, amount in record.costs.items()]
        if rows:
            connection.execute(statements.upserts(self.backend).costs, rows)

    def _write_dead_letters(self, connection: Connection, records: Sequence[SampleRecord]) -> tuple[DeadLetterKey, ...]:
        """Write and remove dead letters; returns those that were there before."""
        superseded = []
        settled = {(record.pipeline, record.id) for record in records if record.dead_letter is None}
        for pipeline, ids in _by_pipeline(records):
            for chunk in chunks(ids):
                of = {"pipeline": pipeline, "ids": chunk}
                before = [dead_letter_key_of(row) for row in connection.execute(statements.DEAD_LETTER_KEYS, of)]
                superseded.extend(before)
                gone = [escape(key.sample_id) for key in before if (pipeline, key.sample_id) in settled]
                if gone:
                    connection.execute(statements.DELETE_DEAD_LETTERS, {"pipeline": pipeline, "ids": gone})
        rows = [dead_letter_row(record, record.dead_letter) for record in records if record.dead_letter]
        if rows:
            connection.execute(statements.upserts(self.backend).dead_letters, rows)
        return tuple(superseded)


def _rebuild(kind: type[SQLStorage], url: str, settings: dict[str, Any]) -> SQLStorage:
    return kind(url, **settings)


def _by_pipeline(records: Sequence[SampleRecord]) -> Iterator[tuple[str, list[str]]]:
    for pipeline in sorted({record.pipeline for record in records}):
        yield pipeline, [record.id for record in records if record.pipeline == pipeline]


def _lock_rows(connection: Connection, pipeline: str, ids: Sequence[str]) -> Sequence[str]:
    """Lock the rows of these samples until the transaction ends; returns the ids that exist."""
    return (
        connection.execute(
            select(samples.c.id)
            .where(samples.c.pipeline == pipeline, samples.c.id.in_(ids))
            .order_by(samples.c.id)
            .with_for_update()
        )
        .scalars()
        .all()
    )


def _load(connection: Connection, pipeline: str, rows: Sequence[Row[Any]]) -> ReadResult:
    ids = [unescape(row.id) for row in rows]
    values: dict[str, dict[str, tuple[str, bytes]]] = {}
    entries: dict[str, DeadLetter] = {}
    for chunk in chunks(ids):
        of = {"pipeline": pipeline, "ids": chunk}
        for sample_id, key, version, value in connection.execute(statements.VALUES, of):
            values.setdefault(sample_id, {})[key] = (version, value)  # the newest comes last
        entries.update((row.sample_id, dead_letter_of(row)) for row in connection.execute(statements.DEAD_LETTERS, of))
    found = tuple(sample_of(row, values.get(row.id, {}), entries.get(row.id)) for row in rows)
    size = sum(len(record.data or b"") + sum(map(len, record.values.values())) for record in found)
    size += sum(len(entry.data or b"") for entry in entries.values())
    return ReadResult(found, size)


def _age(entry: DeadLetter) -> tuple[float, str, str]:
    return entry.time, entry.sample_id, entry.pipeline


def _letters(  # noqa: PLR0917 - the arguments of `dead_letters`, in their order
    pipeline: str | None,
    where: str | None,
    error_type: str | None,
    run_id: str | None,
    since: float | None,
    until: float | None,
) -> list[ColumnElement[bool]]:
    """Return the conditions that choose dead letters."""
    letters = dead_letters.c
    given = [
        (letters.pipeline, pipeline),
        (letters.place, where),
        (letters.error_type, error_type),
        (letters.run_id, run_id),
    ]
    conditions: list[ColumnElement[bool]] = [column == value for column, value in given if value is not None]
    if since is not None:
        conditions.append(letters.time >= since)
    if until is not None:
        conditions.append(letters.time < until)
    return conditions
