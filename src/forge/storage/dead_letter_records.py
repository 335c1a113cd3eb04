"""Dead letters in the storage."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import ColumnElement, Connection, delete, func, select

from ..pipeline.failure import FailureSource
from . import statements
from .database import Database
from .records import DeadLetter
from .rows import checked_limit, chunks, dead_letter_of
from .schema import dead_letters


class DeadLetterRecords:
    """The part of a storage that keeps dead letters."""

    _database: Database

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
                statements.lock_rows(connection, pipeline, chunk)
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
