"""Conversion of records to rows of the tables, and back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError, UnstorableError
from ..pipeline.failure import FailureSource
from ..pipeline.sample import SampleStatus
from ..support.money import plain
from ..support.numbers import MAX_COUNT, is_count, shown
from ..support.text import escape, is_encodable, unescape
from .records import DeadLetter, DeadLetterKey, SampleRecord

if TYPE_CHECKING:
    from sqlalchemy import Row

MAX_ID = 2048
"""Maximum length of a sample's id as it is stored, in bytes of UTF-8. An index of PostgreSQL holds 2 704 bytes, which
include the names of pipeline and measurement."""

_CHUNK = 1000
"""Ids in one statement; SQLite allows 32 766 variables."""


def checked_limit(limit: int | None) -> int | None:
    """Return a maximum number of rows.

    Raises:
        ConfigurationError: it is no number of rows.
    """
    if limit is not None and not is_count(limit, 0):
        raise ConfigurationError(f"limit must be a whole number from 0 to {MAX_COUNT}, or None, not {shown(limit)}")
    return limit


def chunks(ids: Iterable[str]) -> Iterator[list[str]]:
    """Yield distinct ids in chunks, sorted and escaped: as they are stored."""
    ordered = sorted({escape(sample_id) for sample_id in ids})
    for start in range(0, len(ordered), _CHUNK):
        yield ordered[start : start + _CHUNK]


def why_not_id(sample_id: str) -> str | None:
    """Return the reason why a text is no id of a sample; None if it is one."""
    # No character takes more than six bytes, which is the length of an escape.
    if len(sample_id) * 6 <= MAX_ID or (size := len(escape(sample_id).encode())) <= MAX_ID:
        return None
    return f"its id has {size} bytes, and an index holds at most {MAX_ID}; use a digest of it as the id"


def check(record: SampleRecord) -> None:
    """Check a record before it is written.

    Raises:
        UnstorableError: no database can hold it.
    """
    if (reason := why_not_id(record.id)) is not None:
        raise UnstorableError(f"sample {record.id[:80]!r}… cannot be stored: {reason}")
    if not is_encodable(record.pipeline):
        raise UnstorableError(
            f"sample {record.id!r} cannot be stored: the pipeline's name {record.pipeline!r} has a NUL or half a "
            "surrogate pair in it"
        )
    if record.values and record.digest is None:
        raise UnstorableError(
            f"sample {record.id!r} cannot be stored: it has measured values, but no digest to keep them by"
        )


def sample_row(record: SampleRecord) -> dict[str, Any]:
    return {
        "pipeline": record.pipeline,
        "id": escape(record.id),
        "status": record.status.value,
        "pipeline_id": record.pipeline_id,
        "run_id": record.run_id,
        "parent": _escaped(record.parent),
        "input_digest": record.input_digest,
        "digest": record.digest,
        "data": record.data,
        "reason": _escaped(record.reason),
        "children": json.dumps(record.children),
        "revision": 1,
    }


def sample_of(row: Row[Any], values: Mapping[str, tuple[str, bytes]], entry: DeadLetter | None) -> SampleRecord:
    return SampleRecord(
        pipeline=row.pipeline,
        id=unescape(row.id),
        status=SampleStatus(row.status),
        pipeline_id=row.pipeline_id,
        run_id=row.run_id,
        parent=_unescaped(row.parent),
        input_digest=row.input_digest,
        digest=row.digest,
        data=row.data,
        reason=row.reason,
        children=tuple(json.loads(row.children)),
        values={(key, version): value for key, (version, value) in values.items()},
        dead_letter=entry,
    )


def value_rows(records: Iterable[SampleRecord], now: float) -> list[dict[str, Any]]:
    """Return a row for each measured value; `now` is the Unix time."""
    return [
        {
            "pipeline": record.pipeline,
            "sample_id": escape(record.id),
            "key": key,
            "version": version,
            "digest": record.digest,
            "value": value,
            "created_at": now,
        }
        for record in records
        for (key, version), value in record.values.items()
    ]


def cost_row(record: SampleRecord, key: str, version: str, amount: Decimal) -> dict[str, Any]:
    return {
        "pipeline": record.pipeline,
        "sample_id": escape(record.id),
        "key": key,
        "version": version,
        "digest": record.digest,
        "amount": plain(amount),
    }


def dead_letter_row(record: SampleRecord, entry: DeadLetter) -> dict[str, Any]:
    return {
        "pipeline": record.pipeline,
        "sample_id": escape(record.id),
        "source": entry.source.value,
        "place": entry.where,
        "error_type": escape(entry.error_type),
        "message": escape(entry.message),
        "attempts": entry.attempts,
        "time": entry.time,
        "data": entry.data,
        "run_id": entry.run_id,
        "pipeline_id": entry.pipeline_id,
        "parent": _escaped(entry.parent),
        "derived_by": entry.derived_by,
        "input_digest": entry.input_digest,
        "digest": entry.digest,
        "carrier": json.dumps(dict(entry.carrier)),
    }


def dead_letter_key_of(row: Row[Any, Any, Any, Any, Any]) -> DeadLetterKey:
    return DeadLetterKey(
        pipeline=row.pipeline,
        sample_id=unescape(row.sample_id),
        source=FailureSource(row.source),
        where=row.place,
        time=row.time,
    )


def dead_letter_of(row: Row[Any]) -> DeadLetter:
    return DeadLetter(
        pipeline=row.pipeline,
        sample_id=unescape(row.sample_id),
        source=FailureSource(row.source),
        where=row.place,
        error_type=row.error_type,
        message=row.message,
        attempts=row.attempts,
        time=row.time,
        data=row.data,
        run_id=row.run_id,
        pipeline_id=row.pipeline_id,
        parent=_unescaped(row.parent),
        derived_by=row.derived_by,
        input_digest=row.input_digest,
        digest=row.digest,
        carrier=json.loads(row.carrier),
    )


def _escaped(text: str | None) -> str | None:
    return None if text is None else escape(text)


def _unescaped(text: str | None) -> str | None:
    return None if text is None else unescape(text)
