"""The same pipelines on every runner: rows, ledgers and summaries are equal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from forge import BatchRunner, RayRunner, RunResult, SQLStorage, StreamingRunner
from forge.runner import Runner
from tests.support.ray import ON_RAY

from .pipelines import PIPELINES, changed, measured_parts, paid_measurement

pytestmark = ON_RAY

TIMES = ("busy", "utilization", "queue_wait_p95", "backpressure", "p50", "p95", "p99", "max", "transfer")


def rows(storage: SQLStorage) -> dict[str, Any]:
    """The rows of a pipeline, without what is of the run."""
    return {
        record.id: (
            record.status,
            record.parent,
            record.input_digest,
            record.digest,
            record.data,
            record.reason,
            record.children,
            record.values,
            record.dead_letter
            and (
                record.dead_letter.source,
                record.dead_letter.where,
                record.dead_letter.error_type,
                record.dead_letter.message,
                record.dead_letter.attempts,
                record.dead_letter.data,
                record.dead_letter.derived_by,
                record.dead_letter.values,
            ),
        )
        for record in storage.query("p").samples
    }


def summary(result: RunResult) -> dict[str, Any]:
    """What a run has counted, without times."""
    plain = result.to_dict()
    counted = {
        name: plain[name]
        for name in ("outcome", "ledger", "storage", "dead_letters", "skips", "input_digest", "cost", "exit_code")
    }
    for name in ("stages", "measurements"):
        counted[name] = [
            {key: value for key, value in each.items() if key not in (*TIMES, "workers") and "batch" not in key}
            for each in plain[name]
        ]
    counted["failures"] = sorted(
        (each["source"], each["where"], each["error_type"], each["count"]) for each in plain["failures"]
    )
    return counted


def run(runner: Runner, make: Any, url: str) -> tuple[dict[str, Any], dict[str, Any]]:
    storage = SQLStorage(url)
    result = runner.run(make(storage)).drain()
    found = rows(storage)
    storage.close()
    return summary(result), found


@pytest.mark.parametrize("name", PIPELINES)
def test_it_means_the_same_on_every_runner(name: str, tmp_path: Path) -> None:
    make = PIPELINES[name]
    runners: dict[str, Runner] = {"batch": BatchRunner(), "streaming": StreamingRunner(), "ray": RayRunner()}
    found = {key: run(runner, make, f"sqlite:///{tmp_path}/{key}.db") for key, runner in runners.items()}
    assert found["streaming"] == found["batch"]
    assert found["ray"] == found["batch"]


def again(runner: type[Runner], url: str, first: Any, second: Any, **settings: Any) -> Any:
    storage = SQLStorage(url)
    runner().run(first(storage)).drain()
    storage.close()
    return run(runner(**settings), second, url)


AGAIN: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "unchanged": (PIPELINES["split"], PIPELINES["split"], {}),
    "failures": (PIPELINES["failures"], PIPELINES["failures"], {}),
    "cached measurements": (PIPELINES["measurements"], PIPELINES["measurements"], {"resume": False}),
    "cached measurements of parts": (measured_parts(1), measured_parts(1), {"resume": False}),
    "paid measurements": (paid_measurement, paid_measurement, {"resume": False}),
    "some parts": (measured_parts(7), measured_parts(1), {}),
    "changed data": (PIPELINES["sync"], changed, {}),
}


@pytest.mark.parametrize(
    "name",
    [
        name if name in ("unchanged", "failures", "cached measurements") else pytest.param(name, marks=pytest.mark.soak)
        for name in AGAIN
    ],
)
def test_a_second_run_means_the_same_on_every_runner(name: str, tmp_path: Path) -> None:
    first, second, settings = AGAIN[name]
    kinds: dict[str, type[Runner]] = {"batch": BatchRunner, "streaming": StreamingRunner, "ray": RayRunner}
    found = {
        key: again(kind, f"sqlite:///{tmp_path}/{key}.db", first, second, **settings) for key, kind in kinds.items()
    }
    assert found["streaming"] == found["batch"]
    assert found["ray"] == found["batch"]


def test_dead_letters_are_replayed(tmp_path: Path) -> None:
    found = {}
    for kind in (BatchRunner, StreamingRunner, RayRunner):
        storage = SQLStorage(f"sqlite:///{tmp_path}/{kind.name}.db")
        kind().run(measured_parts(7)(storage)).drain()
        replayed = kind().replay(measured_parts(1)(storage)).drain()
        assert replayed.type == "replay"
        assert replayed.ledger.admitted == replayed.ledger.ready == 22
        assert not any(record.dead_letter for record in storage.query("p").samples)
        found[kind.name] = summary(replayed), rows(storage)
        storage.close()
    assert found["streaming"] == found["batch"]
    assert found["ray"] == found["batch"]
