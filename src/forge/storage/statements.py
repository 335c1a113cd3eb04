"""The statements that are run for every sample, or every batch of them.

They are built once, because SQLAlchemy takes longer to build one than SQLite takes to run it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import BindParameter, Connection, Executable, Table, and_, bindparam, delete, func, insert, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from .schema import costs, dead_letters, measurements, samples

# Parameters of the statements: the name of a pipeline, and a list of sample ids.
_PIPELINE: BindParameter[str] = bindparam("pipeline")
_IDS: BindParameter[str] = bindparam("ids", expanding=True)

_CONTENT = ("status", "pipeline_id", "parent", "input_digest", "digest", "data", "reason", "children")
"""Columns that are compared: rows equal in them are unchanged."""

IDS = select(samples.c.id).where(samples.c.pipeline == _PIPELINE, samples.c.id.in_(_IDS))
"""Existing ids among the given ones."""

SAMPLES = select(samples).where(samples.c.pipeline == _PIPELINE, samples.c.id.in_(_IDS))

VALUES = (
    select(measurements.c.sample_id, measurements.c.key, measurements.c.version, measurements.c.value)
    .join(
        samples,
        and_(
            samples.c.pipeline == measurements.c.pipeline,
            samples.c.id == measurements.c.sample_id,
            samples.c.digest == measurements.c.digest,
        ),
    )
    .where(measurements.c.pipeline == _PIPELINE, measurements.c.sample_id.in_(_IDS))
    .order_by(measurements.c.created_at, measurements.c.number)
)
"""The values kept for the samples' present digests, the newest last."""

CACHED_VALUES = select(measurements.c.sample_id, measurements.c.digest, measurements.c.value).where(
    measurements.c.pipeline == _PIPELINE,
    measurements.c.sample_id.in_(_IDS),
    measurements.c.key == bindparam("key"),
    measurements.c.version == bindparam("version"),
    measurements.c.digest.in_(bindparam("digests", expanding=True)),
)

ALL_VALUES = select(measurements.c.sample_id, measurements.c.digest, measurements.c.value).where(
    measurements.c.pipeline == _PIPELINE,
    measurements.c.sample_id.in_(_IDS),
    measurements.c.key == bindparam("key"),
    measurements.c.version == bindparam("version"),
)
"""All values of one measurement."""

COSTS = select(costs.c.sample_id, costs.c.digest, costs.c.amount).where(
    costs.c.pipeline == _PIPELINE,
    costs.c.sample_id.in_(_IDS),
    costs.c.key == bindparam("key"),
    costs.c.version == bindparam("version"),
)
"""Costs of the cached values of one measurement."""

_its_letters = and_(dead_letters.c.pipeline == _PIPELINE, dead_letters.c.sample_id.in_(_IDS))

DEAD_LETTERS = select(dead_letters).where(_its_letters)
DEAD_LETTER_KEYS = select(
    dead_letters.c.pipeline,
    dead_letters.c.sample_id,
    dead_letters.c.source,
    dead_letters.c.place,
    dead_letters.c.time,
).where(_its_letters)
DELETE_DEAD_LETTERS = delete(dead_letters).where(_its_letters)


# For samples that are not there, so that it need not be asked what became of each row. Without a clause for conflicts
# SQLAlchemy makes one statement of many rows. Values of a sample whose row somebody has removed by hand are kept.
NEW_SAMPLES = insert(samples)
NEW_VALUES = insert(measurements).prefix_with("OR IGNORE", dialect="sqlite")


class Upserts(NamedTuple):
    """Statements that write rows, each with the parameters of one row or many."""

    samples: Executable
    """Gives the key and the new revision of each row that was inserted or updated."""
    values: Executable
    """Keeps what is there; gives the sizes of the values that were not."""
    costs: Executable
    """Keeps what is there, as `values` does."""
    dead_letters: Executable


@functools.cache
def upserts(backend: str) -> Upserts:
    """Return the statements for `sqlite` or `postgresql`."""

    def insert_into(table: Table) -> postgresql.Insert | sqlite.Insert:
        return postgresql.insert(table) if backend == "postgresql" else sqlite.insert(table)

    sample = insert_into(samples)
    letter = insert_into(dead_letters)
    return Upserts(
        # The comparison is left to the database: no data travels back, and no other writer gets in between.
        samples=sample.on_conflict_do_update(
            index_elements=[samples.c.pipeline, samples.c.id],
            set_={name: sample.excluded[name] for name in (*_CONTENT, "run_id")} | {"revision": samples.c.revision + 1},
            where=or_(*(samples.c[name].is_distinct_from(sample.excluded[name]) for name in _CONTENT)),
        ).returning(samples.c.pipeline, samples.c.id, samples.c.revision),
        values=insert_into(measurements).on_conflict_do_nothing().returning(func.length(measurements.c.value)),
        costs=insert_into(costs).on_conflict_do_nothing(),
        dead_letters=letter.on_conflict_do_update(
            index_elements=[dead_letters.c.pipeline, dead_letters.c.sample_id],
            set_={column.name: letter.excluded[column.name] for column in dead_letters.c if not column.primary_key},
        ),
    )


def lock_rows(connection: Connection, pipeline: str, ids: Sequence[str]) -> Sequence[str]:
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
