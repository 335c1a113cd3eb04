"""Conversion of records to rows of the tables, and back."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

from sqlalchemy import Row

from ..errors import StorageError
from ..pipeline.failure import FailureSource
from ..pipeline.sample import SampleStatus
from ..support.money import plain
from .records import DeadLetter, DeadLetterKey, SampleRecord

_NOT_STORABLE = re.compile("[\0\ud800-\udfff]")
"""PostgreSQL's text has no NUL, and half a surrogate pair has no encoding."""

_CHUNK = 1000
"""Ids in one statement; SQLite allows 32 766 variables."""


def is_storable(text: str) -> bool:
    """Return True if a database can store the text as an id."""
    return _NOT_STORABLE.search(text) is None


def chunks(ids: Iterable[str]) -> Iterator[list[str]]:
    """Yield distinct ids, sorted, in chunks; ids that cannot be stored are left out, as they cannot be there."""
    ordered = sorted(sample_id for sample_id in set(ids) if is_storable(sample_id))
    for start in range(0, len(ordered), _CHUNK):
        yield ordered[start : start + _CHUNK]


def _storable(text: str) -> str:
    """Escape characters that no database text can hold."""
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")


def check(record: SampleRecord) -> None:
    """Raises: StorageError, if a record cannot be stored."""
    for what, text in (("pipeline", record.pipeline), ("id", record.id), ("parent", record.parent or "")):
        if not is_storable(text):
            raise StorageError(
                f"sample {record.id!r} cannot be stored: its {what} has a NUL or half a surrogate pair in it"
            )
    if record.values and record.digest is None:
        raise StorageError(
            f"sample {record.id!r} cannot be stored: it has measured values, but no digest to keep them by"
        )


def sample_row(record: SampleRecord) -> dict[str, Any]:
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


def sample_of(row: Row[Any], values: Mapping[str, tuple[str, bytes]], entry: DeadLetter | None) -> SampleRecord:
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


def value_rows(records: Iterable[SampleRecord], now: float) -> list[dict[str, Any]]:
    """Return a row for each measured value; `now` is the Unix time."""
    return [
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


def cost_row(record: SampleRecord, key: str, version: str, amount: Decimal) -> dict[str, Any]:
    return {
        "pipeline": record.pipeline,
        "sample_id": record.id,
        "key": key,
        "version": version,
        "digest": record.digest,
        "amount": plain(amount),
    }


def dead_letter_row(record: SampleRecord, entry: DeadLetter) -> dict[str, Any]:
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


def dead_letter_key_of(row: Row[Any, Any, Any, Any, Any]) -> DeadLetterKey:
    return DeadLetterKey(
        pipeline=row.pipeline,
        sample_id=row.sample_id,
        source=FailureSource(row.source),
        where=row.place,
        time=row.time,
    )


def dead_letter_of(row: Row[Any]) -> DeadLetter:
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
