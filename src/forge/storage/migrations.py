"""Versions of the schema, and the migrations between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from sqlalchemy import Column, Connection, Table, func, insert, inspect, select, text, update
from sqlalchemy.schema import CreateColumn, SetColumnComment

from ..support.text import escape
from .schema import costs, dead_letters, measurements, metadata, runs, samples, schema_versions

Migration: TypeAlias = Callable[[Connection], None]
"""Changes tables of the version before into those of the next one, in the caller's transaction."""


def version_of(connection: Connection) -> int:
    """Return the version of the stored schema; 0 if there is none."""
    tables = inspect(connection)
    if tables.has_table(schema_versions.name):
        stored = connection.execute(select(func.max(schema_versions.c.version))).scalar()
        if stored is not None:
            return int(stored)
    return 1 if tables.has_table(samples.name) else 0  # version 1, of 0.1.0, is not written down


def is_current(connection: Connection) -> bool:
    """Return True if all tables are there, as this release writes them."""
    there = set(inspect(connection).get_table_names())
    return there.issuperset(metadata.tables) and version_of(connection) == VERSION


def migrate(connection: Connection, migrations: Sequence[Migration] | None = None) -> None:
    """Bring the schema to the latest version, in the caller's transaction; `migrations` replaces the known ones.

    The caller holds a lock, so that of several processes that connect at the same time one migrates.

    Raises:
        NewerSchemaError: a newer release has written it.
    """
    migrations = MIGRATIONS if migrations is None else migrations
    latest, stored = 1 + len(migrations), version_of(connection)
    if stored > latest:
        raise NewerSchemaError(
            f"a newer release of forge-otel has migrated it to schema version {stored}, and this one knows up to "
            f"{latest}; install the newer release (pip install --upgrade forge-otel), or use another database"
        )
    for migration in migrations[max(stored, 1) - 1 :] if stored else ():
        migration(connection)
    metadata.create_all(connection)  # after the migrations, which would not expect tables in their latest form
    if stored != latest:
        connection.execute(schema_versions.delete())
        connection.execute(insert(schema_versions).values(version=latest))


class NewerSchemaError(Exception):
    """The schema is of a newer version than this release knows."""


def _escape_ids(connection: Connection) -> None:
    r"""Escape what looks like an escape in ids, such as `C:\u0000`: since version 2, ids are stored escaped."""
    ids: list[tuple[Table, Column[str]]] = [
        (samples, samples.c.id),
        (samples, samples.c.parent),
        (measurements, measurements.c.sample_id),
        (costs, costs.c.sample_id),
        (dead_letters, dead_letters.c.sample_id),
        (dead_letters, dead_letters.c.parent),
    ]
    for table, column in ids:
        suspects = connection.execute(select(column).distinct().where(column.contains(r"\u", autoescape=True)))
        for stored in suspects.scalars().all():
            if (escaped := escape(stored)) != stored:
                connection.execute(update(table).where(column == stored).values({column: escaped}))


def _add_processes_of_runs(connection: Connection) -> None:
    """Add the process and the heartbeat to runs."""
    for column in (runs.c.host, runs.c.pid, runs.c.process, runs.c.heartbeat):
        definition = CreateColumn(column).compile(dialect=connection.dialect)
        connection.execute(text(f"ALTER TABLE {runs.name} ADD COLUMN {definition}"))
        if connection.dialect.supports_comments and column.comment:
            connection.execute(SetColumnComment(column))


MIGRATIONS: tuple[Migration, ...] = (_escape_ids, _add_processes_of_runs)
"""The migration from version 1 to 2, from 2 to 3, and so on. Add to its end only."""

VERSION = 1 + len(MIGRATIONS)
"""Version of the schema that this release writes."""
