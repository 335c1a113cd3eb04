"""Digests of the code of stages and measurements."""

from __future__ import annotations

import functools
import subprocess
import sys
from typing import Any

import pytest

from forge import Measurement, Pipeline, Sample, Stage, stage
from forge.pipeline.code import code_digest

FUNCTION = """
@stage
def parse(sample):
    return sample.with_data(sample.data.strip())
"""
OTHER_WORDS = '''
# Moved, and with comments.
@stage(concurrency=4)
def parse(sample):
    """Parse."""
    return sample.with_data(
        sample.data.strip()  # both ends
    )
'''
OTHER_CODE = FUNCTION.replace("strip", "rstrip")
CLASS = """
class Parse(Stage):
    def process(self, sample):
        return self.helped(sample)
    def helped(self, sample):
        return sample
parse = Parse()
"""


def digest(source: str, name: str = "parse") -> str | None:
    namespace: dict[str, Any] = {
        "stage": stage, "Stage": Stage, "Measurement": Measurement, "functools": functools, "__name__": "somewhere",
    }  # fmt: skip
    exec(source, namespace)
    return code_digest(namespace[name])


def test_only_the_code_matters() -> None:
    assert digest(FUNCTION) == digest(OTHER_WORDS)
    assert digest(FUNCTION) != digest(OTHER_CODE)
    assert (digest(FUNCTION) or "").partition(":")[0] == sys.implementation.cache_tag


def test_all_methods_of_a_class_matter() -> None:
    assert digest(CLASS) == digest("\n" + CLASS)
    assert digest(CLASS) != digest(CLASS.replace("return sample\n", "return None\n"))
    measured = CLASS.replace("Stage", "Measurement").replace("process", "compute")
    measured = measured.replace("    def compute", "    key, version = 'a', '1'\n    def compute")
    assert digest(measured) != digest(measured.replace("return sample\n", "return 1\n"))


@pytest.mark.parametrize(
    "source",
    [
        "parse = stage(lambda sample: sample)",
        "def f(sample, n):\n    return sample\nparse = stage(functools.partial(f, n=1))",
        "def f(sample):\n    return sample\n@functools.wraps(f)\ndef g(*a):\n    return f(*a)\nparse = stage(g)",
        "class F:\n    def __call__(self, sample):\n        return sample\nparse = stage(F())",
    ],
    ids=["lambda", "partial", "wrapper", "callable"],
)
def test_what_is_no_plain_function(source: str) -> None:
    assert digest(source) is not None
    assert digest(source) != digest(source.replace("return sample", "return [sample]").replace(": sample)", ": [])"))


def test_what_has_no_bytecode() -> None:
    assert digest("parse = stage(len)") is None


@pytest.mark.slow
def test_it_is_the_same_in_every_process() -> None:
    program = """
from forge import stage
from forge.pipeline.code import code_digest
@stage
def parse(sample):
    return sample if sample.data in {"a", "b", "c"} else (lambda: {"x", "y"})()
print(code_digest(parse))
"""
    found = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(found) == 1


def test_resumption_does_not_depend_on_it() -> None:
    @stage(name="parse")
    def first(sample: Sample) -> Sample:
        return sample

    @stage(name="parse")
    def second(sample: Sample) -> list[Sample]:
        return [sample]

    assert code_digest(first) != code_digest(second)
    assert Pipeline(name="p", source=[], stages=[first]).id == Pipeline(name="p", source=[], stages=[second]).id
