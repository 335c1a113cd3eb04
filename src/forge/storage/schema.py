"""The tables, the same for SQLite and PostgreSQL."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()
"""The tables in their latest form. A change needs a migration of existing databases (`migrations.py`)."""

# By code point, as SQLite sorts, whatever locale the PostgreSQL database was made with.
_Text = Text().with_variant(Text(collation="C"), "postgresql")

samples = Table(
    "forge_samples",
    metadata,
    Column("pipeline", _Text, primary_key=True),
    Column("id", _Text, primary_key=True),
    Column("status", _Text, nullable=False),
    Column("pipeline_id", _Text, nullable=False),
    Column("run_id", _Text, nullable=False),
    Column("parent", _Text),
    Column("input_digest", _Text),
    Column("digest", _Text),
    Column("data", LargeBinary),
    Column("reason", _Text),
    Column("children", _Text, nullable=False, comment="JSON list of ids"),
    Column("revision", Integer, nullable=False, comment="1 when inserted, one more for each change"),
    Index("forge_samples_parent", "pipeline", "parent"),
)

measurements = Table(
    "forge_measurements",
    metadata,
    # Grows with every row, so it tells which of two values of the same time is the newer one.
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("pipeline", _Text, nullable=False),
    Column("sample_id", _Text, nullable=False),
    Column("key", _Text, nullable=False),
    Column("version", _Text, nullable=False),
    Column("digest", _Text, nullable=False),
    Column("value", LargeBinary, nullable=False),
    Column("created_at", Double, nullable=False, comment="Unix time"),
    UniqueConstraint("pipeline", "sample_id", "key", "version", "digest", name="forge_measurements_key"),
)

costs = Table(
    "forge_costs",
    metadata,
    # Of the measured values that cost something. Most cost nothing, and they need no further column.
    Column("pipeline", _Text, primary_key=True),
    Column("sample_id", _Text, primary_key=True),
    Column("key", _Text, primary_key=True),
    Column("version", _Text, primary_key=True),
    Column("digest", _Text, primary_key=True),
    Column("amount", _Text, nullable=False, comment="decimal, US dollars"),
)

dead_letters = Table(
    "forge_dead_letters",
    metadata,
    Column("pipeline", _Text, primary_key=True),
    Column("sample_id", _Text, primary_key=True),
    Column("source", _Text, nullable=False),
    # `where` is a word of SQL, and would have to be quoted in everybody's queries.
    Column("place", _Text, nullable=False),
    Column("error_type", _Text, nullable=False),
    Column("message", _Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("time", Double, nullable=False, comment="Unix time"),
    Column("data", LargeBinary),
    Column("run_id", _Text, nullable=False),
    Column("pipeline_id", _Text, nullable=False),
    Column("parent", _Text),
    Column("derived_by", _Text),
    Column("input_digest", _Text),
    Column("digest", _Text),
    Column("carrier", _Text, nullable=False, comment="JSON object"),
    Index("forge_dead_letters_time", "pipeline", "time", "sample_id"),
)

runs = Table(
    "forge_runs",
    metadata,
    Column("id", _Text, primary_key=True),
    Column("pipeline", _Text, nullable=False),
    Column("pipeline_id", _Text, nullable=False),
    Column("started", Double, nullable=False, comment="Unix time"),
    Column("ended", Double, comment="Unix time"),
    Column("outcome", _Text),
    Column("record", _Text, nullable=False, comment="JSON object"),
    # The process that drives the run, and its last sign of life. Without them: a run of an earlier release.
    Column("host", _Text),
    Column("pid", BigInteger),
    Column("process", _Text, comment="tells it from others that get the pid later"),
    Column("heartbeat", Double, comment="Unix time, by the clock of the database"),
    Index("forge_runs_started", "pipeline", "started"),
)

manifests = Table(
    "forge_manifests",
    metadata,
    # The samples that a run has settled, in compressed chunks (`manifests.py`).
    Column("run_id", _Text, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("content", LargeBinary, nullable=False),
)

steps = Table(
    "forge_steps",
    metadata,
    # The steps of the samples in a chunk of a manifest (`steps.py`), which only the story of one sample needs.
    Column("run_id", _Text, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("content", LargeBinary, nullable=False),
)

schema_versions = Table(
    "forge_schema",
    metadata,
    # One row.
    Column("version", Integer, primary_key=True, autoincrement=False),
)
