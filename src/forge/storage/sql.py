"""Samples, measured values, dead letters and runs in SQLite or PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    Connection,
    Row,
    Select,
    delete,
    func,
    select,
    tuple_,
)

from ..errors import ConfigurationError
from ..pipeline.sample import SampleStatus
from ..support import numbers
from ..support.clock import Clock, SystemClock
from ..support.money import ZERO
from ..support.text import escape, unescape
from . import engine, statements
from .database import Database
from .dead_letter_records import DeadLetterRecords
from .engine import backend_of, check_options, has_current_schema, is_in_memory, parse_url, schema_version, shown
from .gate import Gate
from .records import DeadLetter, DeadLetterKey, ReadResult, SampleRecord, WriteOutcome, WriteResult
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
from .run_records import RunRecords
from .schema import costs, dead_letters, measurements, samples

_PAGE = 200
"""Rows whose content is read together."""


class SQLStorage(RunRecords, DeadLetterRecords):
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
                count += len(statements.lock_rows(connection, pipeline, chunk))
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

    def __reduce__(self) -> tuple[Any, ...]:
        # Connections stay at home: another process opens its own.
        return _rebuild, (type(self), self._url.render_as_string(hide_password=False), self._settings)

    @property
    def url(self) -> str:
        """Address of the database, without its password."""
        return shown(self._url)

    def __repr__(self) -> str:
        return f"SQLStorage({self.url!r})"

    def _rows(self, chosen: Select[Any]) -> Sequence[Sequence[Any]]:
        return self._database.read(lambda connection: connection.execute(chosen).all())

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
