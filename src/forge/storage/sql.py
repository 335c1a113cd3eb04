"""Samples, measured values, dead letters and runs in SQLite or PostgreSQL."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    Engine,
    QueuePool,
    Row,
    Table,
    and_,
    create_engine,
    delete,
    event,
    func,
    insert,
    make_url,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from ..dead_letters import DeadLetter, FailureSource
from ..errors import ConfigurationError, StorageError
from ..sample import SampleStatus
from .records import DeadLetterKey, ReadResult, RunRow, SampleRecord, WriteOutcome, WriteResult
from .schema import dead_letters, measurements, metadata, runs, samples

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_DRIVERS = {
    "sqlite": "sqlite+pysqlite",
    "sqlite+pysqlite": "sqlite+pysqlite",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}

_LOCK_TIMEOUT = 60.0
"""Seconds that a writer waits for another one to let go of the SQLite file, or for a free connection."""
_CONNECT_TIMEOUT = "10"
"""Seconds in which a PostgreSQL server must answer, unless the URL says otherwise."""
_CHUNK = 1000
"""Ids in one statement; SQLite allows 32 766 variables."""
_CREATION_LOCK = 0x666F726765
"""Number of the PostgreSQL lock under which tables are created."""

_CONTENT = ("status", "pipeline_id", "parent", "input_digest", "digest", "data", "reason", "children")
"""A row that is equal in these is unchanged."""


class _Engines(NamedTuple):
    write: Engine
    read: Engine
    pid: int


class SQLStorage:
    """What pipelines store, in SQLite (`sqlite:///corpus.db`) or PostgreSQL (`postgresql://user@host/database`).

    Nothing is opened before the first use. All methods may be called from several threads, and several
    processes may share one database. Errors of the database itself are raised as SQLAlchemy's; a method that
    failed has changed nothing. `sqlite://` keeps everything in memory, until `close`.

    Raises:
        ConfigurationError: for a URL that is none, or names another kind of database.
    """

    def __init__(self, url: str) -> None:
        try:
            parsed = make_url(url)
        except ArgumentError:
            raise ConfigurationError(
                f"SQLStorage({url!r}): not a database URL; write sqlite:///file.db or postgresql://user@host/database"
            ) from None
        if parsed.drivername not in _DRIVERS:
            raise ConfigurationError(
                f"SQLStorage: {parsed.drivername!r} is no database it knows; there are {', '.join(_DRIVERS)}"
            )
        self._url = parsed
        self._engines: _Engines | None = None
        self._inherited: _Engines | None = None
        self._lock = threading.Lock()

    @property
    def backend(self) -> str:
        """`sqlite` or `postgresql`."""
        return _DRIVERS[self._url.drivername].partition("+")[0]

    def open(self) -> None:
        """Connect, and create missing tables. Every other method does it too; doing it again costs nothing.

        Raises:
            StorageError: if the driver, the folder, the permission or the server is missing, or the file is
                no database.
        """
        self._open()

    def close(self) -> None:
        """Close the connections. The next use opens them again."""
        with self._lock:
            engines, self._engines = self._own(), None
        if engines is not None:
            engines.write.dispose()

    def write(self, records: Sequence[SampleRecord]) -> WriteResult:
        """Store samples with their new values and dead letters, all in one transaction or not at all.

        A row with the same content stays as it is, run id included. Values that are there already are kept.
        Of records with the same id the last one counts, the others are `unchanged`.

        Raises:
            StorageError: before anything is written, for an id that no database text can hold, or for values
                without a digest.
        """
        last = {(record.pipeline, record.id): index for index, record in enumerate(records)}
        # Every writer locks the sample rows first, in the same order, so that no two wait for each other.
        written = [records[last[key]] for key in sorted(last)]
        for record in written:
            _check(record)
        if not written:
            return WriteResult((), 0)
        with self._open().write.begin() as connection:
            revisions = self._write_samples(connection, written)
            values_size = self._write_values(connection, written)
            superseded = self._write_dead_letters(connection, written)
        outcomes = []
        size = values_size
        for index, record in enumerate(records):
            key = (record.pipeline, record.id)
            revision = revisions.get(key) if last[key] == index else None
            if revision is None:
                outcomes.append(WriteOutcome.UNCHANGED)
                continue
            outcomes.append(WriteOutcome.INSERTED if revision == 1 else WriteOutcome.UPDATED)
            size += len(record.data or b"")
        return WriteResult(tuple(outcomes), size, superseded)

    def read(self, pipeline: str, ids: Iterable[str]) -> ReadResult:
        """The samples that there are among these ids."""
        with self._open().read.begin() as connection:
            rows = [
                row
                for chunk in _chunks(ids)
                for row in connection.execute(
                    select(samples).where(samples.c.pipeline == pipeline, samples.c.id.in_(chunk))
                )
            ]
            return _load(connection, pipeline, rows)

    def query(
        self,
        pipeline: str,
        *,
        status: SampleStatus | None = None,
        parent: str | None = None,
        limit: int | None = None,
    ) -> ReadResult:
        """The samples with this status and parent, ordered by id."""
        conditions = [samples.c.pipeline == pipeline]
        if status is not None:
            conditions.append(samples.c.status == SampleStatus(status).value)
        if parent is not None:
            conditions.append(samples.c.parent == parent)
        with self._open().read.begin() as connection:
            rows = connection.execute(select(samples).where(*conditions).order_by(samples.c.id).limit(limit))
            return _load(connection, pipeline, rows.all())

    def measured(self, pipeline: str, pairs: Iterable[tuple[str, str]], key: str, version: str) -> dict[str, bytes]:
        """The values kept for these pairs of a sample id and its data's digest, by sample id."""
        wanted = dict(pairs)
        found: dict[str, bytes] = {}
        with self._open().read.begin() as connection:
            for ids in _chunks(wanted):
                rows = connection.execute(
                    select(measurements.c.sample_id, measurements.c.digest, measurements.c.value).where(
                        measurements.c.pipeline == pipeline,
                        measurements.c.sample_id.in_(ids),
                        measurements.c.key == key,
                        measurements.c.version == version,
                        measurements.c.digest.in_({wanted[sample_id] for sample_id in ids}),
                    )
                )
                found.update((row.sample_id, row.value) for row in rows if wanted[row.sample_id] == row.digest)
        return found

    def delete(self, pipeline: str, ids: Iterable[str]) -> int:
        """Remove samples with their values and dead letters; says how many samples there were."""
        count = 0
        with self._open().write.begin() as connection:
            for chunk in _chunks(ids):
                count += len(_lock_rows(connection, pipeline, chunk))
                for table in (measurements, dead_letters):
                    connection.execute(delete(table).where(table.c.pipeline == pipeline, table.c.sample_id.in_(chunk)))
                connection.execute(delete(samples).where(samples.c.pipeline == pipeline, samples.c.id.in_(chunk)))
        return count

    def count(self, pipeline: str) -> int:
        """How many samples are stored."""
        with self._open().read.begin() as connection:
            return connection.execute(
                select(func.count()).select_from(samples).where(samples.c.pipeline == pipeline)
            ).scalar_one()

    def dead_letters(
        self,
        pipeline: str,
        *,
        ids: Iterable[str] | None = None,
        where: str | None = None,
        error_type: str | None = None,
        limit: int | None = None,
    ) -> list[DeadLetter]:
        """The dead letters of these ids, this place and this error, the oldest first."""
        conditions = [dead_letters.c.pipeline == pipeline]
        if where is not None:
            conditions.append(dead_letters.c.place == where)
        if error_type is not None:
            conditions.append(dead_letters.c.error_type == error_type)
        chosen = select(dead_letters).where(*conditions)
        with self._open().read.begin() as connection:
            if ids is None:
                ordered = chosen.order_by(dead_letters.c.time, dead_letters.c.sample_id).limit(limit)
                return [_dead_letter(row) for row in connection.execute(ordered)]
            found = [
                _dead_letter(row)
                for chunk in _chunks(ids)
                for row in connection.execute(chosen.where(dead_letters.c.sample_id.in_(chunk)))
            ]
        return sorted(found, key=_age)[:limit]

    def drop_dead_letters(self, pipeline: str, ids: Iterable[str]) -> list[DeadLetter]:
        """Remove dead letters; gives back those that there were, the oldest first. The samples' rows stay."""
        dropped: list[DeadLetter] = []
        with self._open().write.begin() as connection:
            for chunk in _chunks(ids):
                _lock_rows(connection, pipeline, chunk)
                removal = delete(dead_letters).where(
                    dead_letters.c.pipeline == pipeline, dead_letters.c.sample_id.in_(chunk)
                )
                dropped.extend(_dead_letter(row) for row in connection.execute(removal.returning(dead_letters)))
        return sorted(dropped, key=_age)

    def dead_letter_state(self, pipeline: str) -> tuple[dict[tuple[FailureSource, str], int], float | None]:
        """How many dead letters there are by (source, where), and the oldest one's Unix time."""
        counted = (
            select(dead_letters.c.source, dead_letters.c.place, func.count(), func.min(dead_letters.c.time))
            .where(dead_letters.c.pipeline == pipeline)
            .group_by(dead_letters.c.source, dead_letters.c.place)
        )
        with self._open().read.begin() as connection:
            rows = connection.execute(counted).all()
        depth = {(FailureSource(source), place): number for source, place, number, _ in rows}
        return depth, min((oldest for *_, oldest in rows), default=None)

    def begin_run(
        self, run_id: str, pipeline: str, pipeline_id: str, started: float, record: Mapping[str, Any]
    ) -> None:
        """Store that a run has begun, at this Unix time; `record` is what JSON can hold."""
        row = {
            "id": run_id,
            "pipeline": pipeline,
            "pipeline_id": pipeline_id,
            "started": started,
            "record": json.dumps(record),
        }
        with self._open().write.begin() as connection:
            connection.execute(insert(runs), row)

    def end_run(self, run_id: str, ended: float, outcome: str, record: Mapping[str, Any]) -> None:
        """Store how and when (Unix time) a run has ended; `record` replaces the one from its begin.

        Raises:
            StorageError: if there is no such run.
        """
        change = update(runs).where(runs.c.id == run_id)
        with self._open().write.begin() as connection:
            changed = connection.execute(change.values(ended=ended, outcome=str(outcome), record=json.dumps(record)))
            if changed.rowcount == 0:
                raise StorageError(f"run {run_id!r} cannot be ended: it is not stored, so it never began here")

    def runs(self, pipeline: str | None = None, limit: int | None = None) -> list[RunRow]:
        """The runs of one pipeline, or of all, the newest first."""
        chosen = select(runs).order_by(runs.c.started.desc(), runs.c.id.desc()).limit(limit)
        if pipeline is not None:
            chosen = chosen.where(runs.c.pipeline == pipeline)
        with self._open().read.begin() as connection:
            return [
                RunRow(**{**row, "record": json.loads(row["record"])}) for row in connection.execute(chosen).mappings()
            ]

    def __reduce__(self) -> tuple[type[SQLStorage], tuple[str]]:
        # Connections stay at home: another process opens its own.
        return type(self), (self._url.render_as_string(hide_password=False),)

    def __repr__(self) -> str:
        return f"SQLStorage({self._url.render_as_string()!r})"

    def _open(self) -> _Engines:
        engines = self._engines
        if engines is not None and engines.pid == os.getpid():
            return engines
        with self._lock:
            engines = self._own()
            if engines is None:
                engines = self._engines = self._connect()
            return engines

    def _own(self) -> _Engines | None:
        """What this process opened. What a fork handed down is kept aside: closing it would disturb the parent."""
        if self._engines is not None and self._engines.pid != os.getpid():
            self._inherited, self._engines = self._engines, None
        return self._engines

    def _connect(self) -> _Engines:
        url = self._url.set(drivername=_DRIVERS[self._url.drivername])
        try:
            engine = self._sqlite_engine(url) if self.backend == "sqlite" else _postgresql_engine(url)
        except ImportError as error:
            raise self._unusable(f'{error}; pip install "forge-otel[postgresql]" installs the driver') from error
        try:
            with engine.begin() as connection:
                if self.backend == "postgresql":
                    # Two processes that create the same table at once would fail, even with IF NOT EXISTS.
                    connection.execute(select(func.pg_advisory_xact_lock(_CREATION_LOCK)))
                metadata.create_all(connection)
        except SQLAlchemyError as error:
            engine.dispose()
            raise self._unusable(str(error.orig if isinstance(error, DBAPIError) else error)) from error
        # Several statements of one read see the same state of the database.
        reading = {"sqlite_begin": "BEGIN"} if self.backend == "sqlite" else {"isolation_level": "REPEATABLE READ"}
        return _Engines(engine, engine.execution_options(**reading), os.getpid())

    def _sqlite_engine(self, url: URL) -> Engine:
        if sqlite3.sqlite_version_info < (3, 35):
            raise self._unusable(f"SQLite 3.35 or newer is needed; this Python has {sqlite3.sqlite_version}")
        in_memory = url.database in (None, "", ":memory:")
        if url.database and not in_memory and not url.database.startswith("file:"):
            folder = Path(url.database).absolute().parent
            if not folder.is_dir():
                raise self._unusable(f"there is no folder {folder}; create it first")
        engine = create_engine(
            url,
            poolclass=QueuePool,
            # A database in memory is its connection, so there must be one only.
            pool_size=1 if in_memory else 5,
            max_overflow=0 if in_memory else 10,
            pool_timeout=_LOCK_TIMEOUT,
            connect_args={"timeout": _LOCK_TIMEOUT, "check_same_thread": False},
        )

        @event.listens_for(engine, "connect")
        def connect(connection: sqlite3.Connection, _record: Any) -> None:
            connection.isolation_level = None  # no BEGIN but ours
            # Readers go on while somebody writes. A commit survives the process, if not a power failure.
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            # A transaction that reads first and locks later fails when somebody else has written in between.
            options = connection.get_execution_options()
            connection.exec_driver_sql(options.get("sqlite_begin", "BEGIN IMMEDIATE"))

        return engine

    def _unusable(self, reason: str) -> StorageError:
        return StorageError(f"cannot use {self._url.render_as_string()}: {' '.join(reason.split())}")

    def _insert(self, table: Table) -> postgresql.Insert | sqlite.Insert:
        return postgresql.insert(table) if self.backend == "postgresql" else sqlite.insert(table)

    def _write_samples(self, connection: Connection, records: Sequence[SampleRecord]) -> dict[tuple[str, str], int]:
        """The new revisions of the rows that were inserted or updated."""
        upsert = self._insert(samples)
        # The comparison is left to the database: no data travels back, and no other writer gets in between.
        upsert = upsert.on_conflict_do_update(
            index_elements=[samples.c.pipeline, samples.c.id],
            set_={name: upsert.excluded[name] for name in (*_CONTENT, "run_id")} | {"revision": samples.c.revision + 1},
            where=or_(*(samples.c[name].is_distinct_from(upsert.excluded[name]) for name in _CONTENT)),
        )
        rows = connection.execute(
            upsert.returning(samples.c.pipeline, samples.c.id, samples.c.revision),
            [_sample_row(record) for record in records],
        )
        return {(pipeline, sample_id): revision for pipeline, sample_id, revision in rows}

    def _write_values(self, connection: Connection, records: Sequence[SampleRecord]) -> int:
        """The bytes of the values that were not there yet."""
        now = time.time()
        rows = [
            {
                "pipeline": record.pipeline,
                "sample_id": record.id,
                "key": key,
                "version": version,
                "digest": record.digest,
                "value": value,
                "created_at": now,
            }
            for record in records
            for (key, version), value in record.values.items()
        ]
        if not rows:
            return 0
        keep = self._insert(measurements).on_conflict_do_nothing()
        inserted = connection.execute(keep.returning(func.length(measurements.c.value)), rows)
        return sum(inserted.scalars())

    def _write_dead_letters(self, connection: Connection, records: Sequence[SampleRecord]) -> tuple[DeadLetterKey, ...]:
        """The dead letters that were there before."""
        superseded = []
        settled = {(record.pipeline, record.id) for record in records if record.dead_letter is None}
        for pipeline in sorted({record.pipeline for record in records}):
            for chunk in _chunks(record.id for record in records if record.pipeline == pipeline):
                mine = and_(dead_letters.c.pipeline == pipeline, dead_letters.c.sample_id.in_(chunk))
                before = _dead_letter_keys(connection, mine)
                superseded.extend(before)
                gone = [key.sample_id for key in before if (pipeline, key.sample_id) in settled]
                if gone:
                    connection.execute(
                        delete(dead_letters).where(
                            dead_letters.c.pipeline == pipeline, dead_letters.c.sample_id.in_(gone)
                        )
                    )
        rows = [_dead_letter_row(record, record.dead_letter) for record in records if record.dead_letter]
        if rows:
            upsert = self._insert(dead_letters)
            contents = [column.name for column in dead_letters.c if not column.primary_key]
            connection.execute(
                upsert.on_conflict_do_update(
                    index_elements=[dead_letters.c.pipeline, dead_letters.c.sample_id],
                    set_={name: upsert.excluded[name] for name in contents},
                ),
                rows,
            )
        return tuple(superseded)


def _postgresql_engine(url: URL) -> Engine:
    if "connect_timeout" not in url.query:
        url = url.update_query_dict({"connect_timeout": _CONNECT_TIMEOUT})
    return create_engine(url, pool_pre_ping=True, pool_timeout=_LOCK_TIMEOUT)


def _chunks(ids: Iterable[str]) -> Iterator[list[str]]:
    """Distinct ids, in order, some at a time; without those that cannot be stored, and so are not there."""
    ordered = sorted(sample_id for sample_id in set(ids) if _is_storable(sample_id))
    for start in range(0, len(ordered), _CHUNK):
        yield ordered[start : start + _CHUNK]


def _is_storable(text: str) -> bool:
    # PostgreSQL's text has no NUL, and half a surrogate pair has no encoding.
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _storable(text: str) -> str:
    """What people read, with escapes for what no database text can hold."""
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")


def _check(record: SampleRecord) -> None:
    for what, text in (("pipeline", record.pipeline), ("id", record.id), ("parent", record.parent or "")):
        if not _is_storable(text):
            raise StorageError(
                f"sample {record.id!r} cannot be stored: its {what} has a NUL or half a surrogate pair in it"
            )
    if record.values and record.digest is None:
        raise StorageError(
            f"sample {record.id!r} cannot be stored: it has measured values, but no digest to keep them by"
        )


def _lock_rows(connection: Connection, pipeline: str, ids: Sequence[str]) -> Sequence[str]:
    """Keep other writers away from these samples until the transaction ends; gives the ids that there are."""
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
    ids = [row.id for row in rows]
    values: dict[str, dict[str, tuple[str, bytes]]] = {}
    entries: dict[str, DeadLetter] = {}
    for chunk in _chunks(ids):
        kept = (
            select(measurements.c.sample_id, measurements.c.key, measurements.c.version, measurements.c.value)
            .join(
                samples,
                and_(
                    samples.c.pipeline == measurements.c.pipeline,
                    samples.c.id == measurements.c.sample_id,
                    samples.c.digest == measurements.c.digest,
                ),
            )
            .where(measurements.c.pipeline == pipeline, measurements.c.sample_id.in_(chunk))
            .order_by(measurements.c.created_at, measurements.c.number)
        )
        for sample_id, key, version, value in connection.execute(kept):
            values.setdefault(sample_id, {})[key] = (version, value)  # the newest comes last
        failed = select(dead_letters).where(dead_letters.c.pipeline == pipeline, dead_letters.c.sample_id.in_(chunk))
        entries.update((row.sample_id, _dead_letter(row)) for row in connection.execute(failed))
    found = tuple(_sample(row, values.get(row.id, {}), entries.get(row.id)) for row in rows)
    size = sum(len(record.data or b"") + sum(map(len, record.values.values())) for record in found)
    return ReadResult(found, size)


def _sample_row(record: SampleRecord) -> dict[str, Any]:
    return {
        "pipeline": record.pipeline,
        "id": record.id,
        "status": record.status.value,
        "pipeline_id": record.pipeline_id,
        "run_id": record.run_id,
        "parent": record.parent,
        "input_digest": record.input_digest,
        "digest": record.digest,
        "data": record.data,
        "reason": None if record.reason is None else _storable(record.reason),
        "children": json.dumps(record.children),
        "revision": 1,
    }


def _sample(row: Row[Any], values: Mapping[str, tuple[str, bytes]], entry: DeadLetter | None) -> SampleRecord:
    return SampleRecord(
        pipeline=row.pipeline,
        id=row.id,
        status=SampleStatus(row.status),
        pipeline_id=row.pipeline_id,
        run_id=row.run_id,
        parent=row.parent,
        input_digest=row.input_digest,
        digest=row.digest,
        data=row.data,
        reason=row.reason,
        children=tuple(json.loads(row.children)),
        values={(key, version): value for key, (version, value) in values.items()},
        dead_letter=entry,
    )


def _dead_letter_row(record: SampleRecord, entry: DeadLetter) -> dict[str, Any]:
    return {
        "pipeline": record.pipeline,
        "sample_id": record.id,
        "source": entry.source.value,
        "place": entry.where,
        "error_type": _storable(entry.error_type),
        "message": _storable(entry.message),
        "attempts": entry.attempts,
        "time": entry.time,
        "data": entry.data,
        "run_id": entry.run_id,
        "pipeline_id": entry.pipeline_id,
        "parent": entry.parent,
        "derived_by": entry.derived_by,
        "input_digest": entry.input_digest,
        "digest": entry.digest,
        "carrier": json.dumps(dict(entry.carrier)),
    }


def _dead_letter(row: Row[Any]) -> DeadLetter:
    return DeadLetter(
        pipeline=row.pipeline,
        sample_id=row.sample_id,
        source=FailureSource(row.source),
        where=row.place,
        error_type=row.error_type,
        message=row.message,
        attempts=row.attempts,
        time=row.time,
        data=row.data,
        run_id=row.run_id,
        pipeline_id=row.pipeline_id,
        parent=row.parent,
        derived_by=row.derived_by,
        input_digest=row.input_digest,
        digest=row.digest,
        carrier=json.loads(row.carrier),
    )


def _dead_letter_keys(connection: Connection, condition: ColumnElement[bool]) -> list[DeadLetterKey]:
    columns = (
        dead_letters.c.pipeline,
        dead_letters.c.sample_id,
        dead_letters.c.source,
        dead_letters.c.place,
        dead_letters.c.time,
    )
    return [
        DeadLetterKey(
            pipeline=row.pipeline,
            sample_id=row.sample_id,
            source=FailureSource(row.source),
            where=row.place,
            time=row.time,
        )
        for row in connection.execute(select(*columns).where(condition))
    ]


def _age(entry: DeadLetter) -> tuple[float, str]:
    return entry.time, entry.sample_id
