"""Names of pipelines."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from forge_otel.instrumentors.datatrove.runs import pipeline_name


def executor(path: str, **more: str) -> Any:
    return SimpleNamespace(logging_dir=SimpleNamespace(path=path), **more)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (executor("/data/logs/fineweb"), "fineweb"),
        (executor("bucket/logs/CC-MAIN-2026-10/"), "CC-MAIN-2026-10"),
        (executor("/data/logs/fineweb", job_name="dedup"), "dedup"),
        (executor("/data/logs/fineweb", job_name="dedup", pipeline_name="mine"), "mine"),
        (executor("/data/logs/fineweb", pipeline_name=""), "fineweb"),
    ],
)
def test_a_name_for_the_pipeline(given: Any, name: str) -> None:
    assert pipeline_name(given) == name


def test_a_directory_that_is_made_up_is_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("__main__.__file__", "/programs/filter_texts.py", raising=False)
    assert pipeline_name(executor("logs/2026-11-28_17-05-09_abcde")) == "filter_texts"
    monkeypatch.delattr("__main__.__file__")
    assert pipeline_name(executor("logs/2026-11-28_17-05-09_abcde")) == "datatrove"
