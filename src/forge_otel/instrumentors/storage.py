"""Storage: samples in a database, artifacts in folders and object stores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from ..engine.call import Call, observe
from ..engine.operation import Emission, Ending, Operation, Point
from ..engine.scopes import RUN, SAMPLE
from ..engine.write_lane import WriteLane
from ..patching import faults
from ..patching.patches import Layer, Target
from ..semconv import attributes as a
from ..semconv import events, metrics, spans
from ..semconv.attributes import ForgeStorageDirection as Direction
from ..semconv.attributes import ForgeStorageOperation as Kind
from ..semconv.attributes import ForgeStorageWriteResult
from .errors import error_type

if TYPE_CHECKING:
    from forge import ArtifactStore, DeadLetter, SampleStatus, SQLStorage
    from forge.storage import ArtifactResult, ReadResult, SampleRecord, WriteResult

    from ..engine.scopes import RunScope
    from ..semconv.definitions import Metric
    from ..signals.metrics import Series


def _operation(
    kind: Kind, describe: Callable[[Call, Any], Ending], about: Callable[..., Sequence[str]] = lambda *_: ()
) -> Operation:
    """A storage operation; `describe` says what is special about its result, `about` which samples it is for."""

    def end(call: Call, result: Any, error: BaseException | None) -> Ending:
        duration = Point(metrics.FORGE_STORAGE_OPERATION_DURATION, call.elapsed)
        if error is None:
            ending = describe(call, result)
            return Ending(attributes=ending.attributes, points=[duration, *ending.points], events=ending.events)
        said = {a.ERROR_TYPE: error_type(error)}
        backend = call.attributes[a.FORGE_STORAGE_BACKEND]
        body = f"Storage failed: {kind.value} {backend}, {said[a.ERROR_TYPE]}"
        return Ending(
            attributes=said,
            error=error,
            points=[duration],
            events=[Emission(events.FORGE_STORAGE_EXCEPTION, body, said, error)],
        )

    return Operation(
        name=f"the storage operation {kind.value}",
        span=spans.FORGE_STORAGE,
        start=lambda store, *_: {a.FORGE_STORAGE_BACKEND: store.backend, a.FORGE_STORAGE_OPERATION: kind.value},
        end=end,
        about=about,
    )


def _io(direction: Direction, size: int) -> Point:
    return Point(metrics.FORGE_STORAGE_IO, size, {a.FORGE_STORAGE_DIRECTION: direction.value})


def _written(call: Call, result: WriteResult) -> Ending:
    records: Sequence[SampleRecord] = call.arguments[1]
    outcomes = Counter(result.outcomes)
    changes = ", ".join(f"{number} {outcome}" for outcome, number in outcomes.items())
    said = {a.FORGE_STORAGE_SIZE: result.size}
    only = {a.FORGE_SAMPLE_ID: records[0].id} if len(records) == 1 else {}
    return Ending(
        attributes=said,
        points=[
            *(
                Point(metrics.FORGE_STORAGE_SAMPLES_WRITTEN, number, {a.FORGE_STORAGE_WRITE_RESULT: outcome.value})
                for outcome, number in outcomes.items()
            ),
            _io(Direction.WRITE, result.size),
        ],
        events=[Emission(events.FORGE_STORAGE_SAMPLE_WRITE, f"Samples written: {changes}", {**said, **only})],
    )


def _found(_: Call, result: ReadResult) -> Ending:
    return Ending(
        attributes={a.FORGE_STORAGE_SIZE: result.size},
        points=[
            Point(metrics.FORGE_STORAGE_SAMPLES_READ, len(result.samples)),
            _io(Direction.READ, result.size),
        ],
    )


def _values_found(_: Call, values: dict[str, bytes]) -> Ending:
    size = sum(map(len, values.values()))
    return Ending(attributes={a.FORGE_STORAGE_SIZE: size}, points=[_io(Direction.READ, size)])


def _letters_found(_: Call, letters: Sequence[DeadLetter]) -> Ending:
    size = sum(len(letter.data or b"") for letter in letters)
    return Ending(attributes={a.FORGE_STORAGE_SIZE: size}, points=[_io(Direction.READ, size)])


def _artifact(result: ArtifactResult) -> dict[str, Any]:
    return {
        a.FORGE_ARTIFACT_KEY: result.key,
        a.FORGE_ARTIFACT_DEDUPLICATED: result.deduplicated,
        a.FORGE_STORAGE_SIZE: result.size,
    }


def _uploaded(_: Call, result: ArtifactResult) -> Ending:
    said = _artifact(result)
    how = "deduplicated" if result.deduplicated else f"{result.size} bytes"
    return Ending(
        attributes=said,
        points=[
            Point(metrics.FORGE_STORAGE_ARTIFACTS_UPLOADED),
            _io(Direction.WRITE, 0 if result.deduplicated else result.size),
        ],
        events=[Emission(events.FORGE_STORAGE_ARTIFACT_UPLOAD, f"Artifact uploaded: {result.key}, {how}", said)],
    )


def _downloaded(_: Call, result: ArtifactResult) -> Ending:
    said = {**_artifact(result), a.FORGE_ARTIFACT_DEDUPLICATED: None}
    body = f"Artifact downloaded: {result.key}, {result.size} bytes"
    return Ending(
        attributes=said,
        points=[Point(metrics.FORGE_STORAGE_ARTIFACTS_DOWNLOADED), _io(Direction.READ, result.size)],
        events=[Emission(events.FORGE_STORAGE_ARTIFACT_DOWNLOAD, body, said)],
    )


def _deleted(_: Call, __: Any) -> Ending:
    return Ending()


WRITE = _operation(Kind.WRITE, _written, lambda _, records: [record.id for record in records])
READ = _operation(Kind.READ, _found)
QUERY = _operation(Kind.QUERY, _found)
LOOK_UP = _operation(Kind.QUERY, _values_found)
LIST_LETTERS = _operation(Kind.QUERY, _letters_found)
DELETE = _operation(Kind.DELETE, _deleted)
UPLOAD = _operation(Kind.UPLOAD, _uploaded)
DOWNLOAD = _operation(Kind.DOWNLOAD, _downloaded)


def write_lane(run: RunScope, store: SQLStorage) -> WriteLane:
    """The lane of the writes that a run makes itself."""
    attributes = {**WRITE.start(store), **run.identity}

    def series(metric: Metric, **more: str) -> Series:
        return run.telemetry.series.get(metric, {**attributes, **more})

    duration = series(metrics.FORGE_STORAGE_OPERATION_DURATION)
    io = series(metrics.FORGE_STORAGE_IO, **{a.FORGE_STORAGE_DIRECTION: Direction.WRITE.value})
    outcomes = {
        result.value: series(metrics.FORGE_STORAGE_SAMPLES_WRITTEN, **{a.FORGE_STORAGE_WRITE_RESULT: result.value})
        for result in ForgeStorageWriteResult
    }

    def count(seconds: float, result: WriteResult) -> None:
        duration.append(seconds)
        io.append(result.size)
        for outcome, number in Counter(result.outcomes).items():
            outcomes[outcome].append(number)

    return WriteLane(run, WRITE, attributes, count)


def _lane_of(store: SQLStorage, records: Sequence[SampleRecord]) -> WriteLane | None:
    """Where a write goes by that the run makes itself, if none of its samples is traced."""
    run = RUN.get()
    lane = run.writes.get(id(store)) if run is not None else None
    if run is None or lane is None or SAMPLE.get() is not None or not is_instrumentation_enabled():
        return None
    if run.chosen and not run.chosen.isdisjoint([record.id for record in records]):
        return None
    return lane


def _write(original: Callable[..., WriteResult], layer: Layer) -> Callable[..., WriteResult]:
    def write(self: SQLStorage, records: Sequence[SampleRecord]) -> WriteResult:
        lane = None
        with faults.protected(f"the start of {WRITE.name}"):
            lane = _lane_of(self, records)
        if lane is not None:
            return lane.call(original, self, records)
        return observe(WRITE, layer, original, self, records)

    return write


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


def _delete(original: Callable[..., int], layer: Layer) -> Callable[..., int]:
    def delete(self: SQLStorage, pipeline: str, ids: Iterable[str]) -> int:
        return observe(DELETE, layer, original, self, pipeline, ids)

    return delete


def _dead_letters(original: Callable[..., list[DeadLetter]], layer: Layer) -> Callable[..., list[DeadLetter]]:
    def dead_letters(
        self: SQLStorage,
        pipeline: str,
        *,
        ids: Iterable[str] | None = None,
        where: str | None = None,
        error_type: str | None = None,
        limit: int | None = None,
    ) -> list[DeadLetter]:
        chosen = {"ids": ids, "where": where, "error_type": error_type, "limit": limit}
        return observe(LIST_LETTERS, layer, original, self, pipeline, **chosen)

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


_SQL, _ARTIFACTS = "forge.storage.sql", "forge.storage.artifacts"

TARGETS = (
    Target(_SQL, "SQLStorage.write", _write),
    Target(_SQL, "SQLStorage.read", _read),
    Target(_SQL, "SQLStorage.query", _query),
    Target(_SQL, "SQLStorage.measured", _measured),
    Target(_SQL, "SQLStorage.delete", _delete),
    Target(_SQL, "SQLStorage.dead_letters", _dead_letters),
    Target(_SQL, "SQLStorage.drop_dead_letters", _drop_dead_letters),
    Target(_ARTIFACTS, "ArtifactStore.put", _put),
    Target(_ARTIFACTS, "ArtifactStore.get", _get),
    Target(_ARTIFACTS, "ArtifactStore.delete", _delete_artifact),
)
