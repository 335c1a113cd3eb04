"""Storage: samples in databases, artifacts in folders and object stores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..engine.call import Call, observe
from ..engine.fast_path import FastPath, observed
from ..engine.operation import LogEvent, MetricPoint, Operation, Result
from ..patching.patches import Layer, Target
from ..semconv import attributes as a
from ..semconv import events, metrics, spans
from ..semconv.attributes import ForgeStorageDirection as Direction
from ..semconv.attributes import ForgeStorageOperation as Kind
from .error_types import error_type

if TYPE_CHECKING:
    from decimal import Decimal

    from forge import ArtifactStore, DeadLetter, Run, SampleStatus, SQLStorage
    from forge.storage import ArtifactResult, ReadResult, SampleRecord, WriteResult

    from ..engine.scopes import RunScope


def _operation(kind: Kind, describe: Callable[[Call, Any], Result], **extra: Any) -> Operation:
    """Return a storage operation; `describe` reads its result, `extra` are further fields of the operation."""

    def end(call: Call, result: Any, error: BaseException | None) -> Result:
        duration = MetricPoint(metrics.FORGE_STORAGE_OPERATION_DURATION, call.elapsed)
        if error is None:
            described = describe(call, result)
            return Result(
                attributes=described.attributes, points=[duration, *described.points], events=described.events
            )
        attributes = {a.ERROR_TYPE: error_type(error)}
        backend = call.attributes[a.FORGE_STORAGE_BACKEND]
        body = f"Storage failed: {kind.value} {backend}, {attributes[a.ERROR_TYPE]}"
        return Result(
            attributes=attributes,
            error=error,
            points=[duration],
            events=[LogEvent(events.FORGE_STORAGE_EXCEPTION, body, attributes, error)],
        )

    return Operation(
        name=f"the storage operation {kind.value}",
        span=spans.FORGE_STORAGE,
        start=lambda store, *_: {a.FORGE_STORAGE_BACKEND: store.backend, a.FORGE_STORAGE_OPERATION: kind.value},
        end=end,
        **extra,
    )


def _io(direction: Direction, size: int) -> MetricPoint:
    return MetricPoint(metrics.FORGE_STORAGE_IO, size, {a.FORGE_STORAGE_DIRECTION: direction.value})


def _written(call: Call, result: WriteResult) -> Result:
    records: Sequence[SampleRecord] = call.arguments[1]
    outcomes = Counter(result.outcomes)
    changes = ", ".join(f"{number} {outcome}" for outcome, number in outcomes.items())
    attributes = {a.FORGE_STORAGE_SIZE: result.size}
    only = {a.FORGE_SAMPLE_ID: records[0].id} if len(records) == 1 else {}
    return Result(
        attributes=attributes,
        points=[
            *(
                MetricPoint(
                    metrics.FORGE_STORAGE_SAMPLES_WRITTEN, number, {a.FORGE_STORAGE_WRITE_RESULT: outcome.value}
                )
                for outcome, number in outcomes.items()
            ),
            _io(Direction.WRITE, result.size),
        ],
        events=[LogEvent(events.FORGE_STORAGE_SAMPLE_WRITE, f"Samples written: {changes}", {**attributes, **only})],
    )


def _found(_: Call, result: ReadResult) -> Result:
    return Result(
        attributes={a.FORGE_STORAGE_SIZE: result.size},
        points=[
            MetricPoint(metrics.FORGE_STORAGE_SAMPLES_READ, len(result.samples)),
            _io(Direction.READ, result.size),
        ],
    )


def _values_found(_: Call, values: dict[str, bytes]) -> Result:
    size = sum(map(len, values.values()))
    return Result(attributes={a.FORGE_STORAGE_SIZE: size}, points=[_io(Direction.READ, size)])


def _all_values_found(_: Call, values: dict[tuple[str, str], tuple[bytes, Decimal]]) -> Result:
    size = sum(len(value) for value, _ in values.values())
    return Result(attributes={a.FORGE_STORAGE_SIZE: size}, points=[_io(Direction.READ, size)])


def _letters_found(_: Call, letters: Sequence[DeadLetter]) -> Result:
    size = sum(len(letter.data or b"") for letter in letters)
    return Result(attributes={a.FORGE_STORAGE_SIZE: size}, points=[_io(Direction.READ, size)])


def _artifact(result: ArtifactResult) -> dict[str, Any]:
    return {
        a.FORGE_ARTIFACT_KEY: result.key,
        a.FORGE_ARTIFACT_DEDUPLICATED: result.deduplicated,
        a.FORGE_STORAGE_SIZE: result.size,
    }


def _uploaded(_: Call, result: ArtifactResult) -> Result:
    attributes = _artifact(result)
    how = "deduplicated" if result.deduplicated else f"{result.size} bytes"
    return Result(
        attributes=attributes,
        points=[
            MetricPoint(metrics.FORGE_STORAGE_ARTIFACTS_UPLOADED),
            _io(Direction.WRITE, 0 if result.deduplicated else result.size),
        ],
        events=[LogEvent(events.FORGE_STORAGE_ARTIFACT_UPLOAD, f"Artifact uploaded: {result.key}, {how}", attributes)],
    )


def _arrived(call: Call, _: None, __: BaseException | None) -> Result:
    uploaded = _uploaded(call, call.arguments[1])
    return Result(points=uploaded.points, events=uploaded.events)


def _downloaded(_: Call, result: ArtifactResult) -> Result:
    attributes = {**_artifact(result), a.FORGE_ARTIFACT_DEDUPLICATED: None}
    body = f"Artifact downloaded: {result.key}, {result.size} bytes"
    return Result(
        attributes=attributes,
        points=[MetricPoint(metrics.FORGE_STORAGE_ARTIFACTS_DOWNLOADED), _io(Direction.READ, result.size)],
        events=[LogEvent(events.FORGE_STORAGE_ARTIFACT_DOWNLOAD, body, attributes)],
    )


def _deleted(_: Call, __: Any) -> Result:
    return Result()


def _has_outcomes(result: WriteResult) -> bool:
    return bool(result.outcomes)


def _write_values(result: WriteResult, elapsed: float) -> Sequence[float | None]:
    numbers = Counter(result.outcomes)
    return elapsed, *(numbers[outcome] or None for outcome in type(result.outcomes[0])), result.size


WRITE = _operation(
    Kind.WRITE,
    _written,
    sample_ids=lambda _, records: [record.id for record in records],
    subject=lambda store, _: store,
    values=_write_values,
)
READ = _operation(Kind.READ, _found)
QUERY = _operation(Kind.QUERY, _found)
LOOK_UP = _operation(Kind.QUERY, _values_found)
LOOK_UP_ALL = _operation(Kind.QUERY, _all_values_found)
LIST_LETTERS = _operation(Kind.QUERY, _letters_found)
DELETE = _operation(Kind.DELETE, _deleted)
UPLOAD = _operation(Kind.UPLOAD, _uploaded)
DOWNLOAD = _operation(Kind.DOWNLOAD, _downloaded)


def fast_path(run: RunScope, store: SQLStorage) -> FastPath:
    """Return the fast path of a run's own writes."""
    from forge.storage import WriteOutcome, WriteResult  # noqa: PLC0415 - `forge` is imported by now

    # A result with each outcome once has a series for each of them.
    return FastPath(run, WRITE, WRITE.start(store), (store, ()), WriteResult(tuple(WriteOutcome), 0))


def _read(original: Callable[..., ReadResult], layer: Layer) -> Callable[..., ReadResult]:
    def read(self: SQLStorage, pipeline: str, ids: Iterable[str]) -> ReadResult:
        return observe(READ, layer, original, self, pipeline, ids)

    return read


def _query(original: Callable[..., ReadResult], layer: Layer) -> Callable[..., ReadResult]:
    def query(
        self: SQLStorage,
        pipeline: str,
        *,
        status: SampleStatus | None = None,
        parent: str | None = None,
        limit: int | None = None,
    ) -> ReadResult:
        return observe(QUERY, layer, original, self, pipeline, status=status, parent=parent, limit=limit)

    return query


def _measured(original: Callable[..., dict[str, bytes]], layer: Layer) -> Callable[..., dict[str, bytes]]:
    def measured(
        self: SQLStorage, pipeline: str, pairs: Iterable[tuple[str, str]], key: str, version: str
    ) -> dict[str, bytes]:
        return observe(LOOK_UP, layer, original, self, pipeline, pairs, key, version)

    return measured


def _values(original: Callable[..., Any], layer: Layer) -> Callable[..., Any]:
    def values(self: SQLStorage, pipeline: str, ids: Iterable[str], key: str, version: str) -> Any:
        return observe(LOOK_UP_ALL, layer, original, self, pipeline, ids, key, version)

    return values


def _delete(original: Callable[..., int], layer: Layer) -> Callable[..., int]:
    def delete(self: SQLStorage, pipeline: str, ids: Iterable[str]) -> int:
        return observe(DELETE, layer, original, self, pipeline, ids)

    return delete


def _dead_letters(original: Callable[..., list[DeadLetter]], layer: Layer) -> Callable[..., list[DeadLetter]]:
    def dead_letters(
        self: SQLStorage,
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
        filters = {
            "ids": ids,
            "where": where,
            "error_type": error_type,
            "run_id": run_id,
            "since": since,
            "until": until,
            "limit": limit,
        }
        return observe(LIST_LETTERS, layer, original, self, pipeline, **filters)

    return dead_letters


def _drop_dead_letters(original: Callable[..., list[DeadLetter]], layer: Layer) -> Callable[..., list[DeadLetter]]:
    def drop_dead_letters(self: SQLStorage, pipeline: str, ids: Iterable[str]) -> list[DeadLetter]:
        return observe(DELETE, layer, original, self, pipeline, ids)

    return drop_dead_letters


def _put(original: Callable[..., ArtifactResult], layer: Layer) -> Callable[..., ArtifactResult]:
    def put(self: ArtifactStore, content: bytes) -> ArtifactResult:
        return observe(UPLOAD, layer, original, self, content)

    return put


def _get(original: Callable[..., ArtifactResult], layer: Layer) -> Callable[..., ArtifactResult]:
    def get(self: ArtifactStore, key: str) -> ArtifactResult:
        return observe(DOWNLOAD, layer, original, self, key)

    return get


def _delete_artifact(original: Callable[..., bool], layer: Layer) -> Callable[..., bool]:
    def delete(self: ArtifactStore, key: str) -> bool:
        return observe(DELETE, layer, original, self, key)

    return delete


ARRIVAL = Operation(
    name="an artifact that a worker has stored",
    start=lambda _, artifact: {
        a.FORGE_STORAGE_BACKEND: artifact.backend,
        a.FORGE_STORAGE_OPERATION: Kind.UPLOAD.value,
    },
    end=_arrived,
)


def _artifact_arrived(original: Callable[..., None], layer: Layer) -> Callable[..., None]:
    def artifact_arrived(self: Run, artifact: ArtifactResult) -> None:
        self.context.copy().run(observe, ARRIVAL, layer, original, self, artifact)

    return artifact_arrived


_SQL, _ARTIFACTS = "forge.storage.sql", "forge.storage.artifacts"

TARGETS = (
    Target(_SQL, "SQLStorage.write", observed(WRITE, lambda: _has_outcomes)),
    Target(_SQL, "SQLStorage.read", _read),
    Target(_SQL, "SQLStorage.query", _query),
    Target(_SQL, "SQLStorage.measured", _measured),
    Target(_SQL, "SQLStorage.values", _values),
    Target(_SQL, "SQLStorage.delete", _delete),
    Target(_SQL, "SQLStorage.dead_letters", _dead_letters),
    Target(_SQL, "SQLStorage.drop_dead_letters", _drop_dead_letters),
    Target("forge.runner.run", "Run.artifact_arrived", _artifact_arrived),
    Target(_ARTIFACTS, "ArtifactStore.put", _put),
    Target(_ARTIFACTS, "ArtifactStore.get", _get),
    Target(_ARTIFACTS, "ArtifactStore.delete", _delete_artifact),
)
