"""What a pipeline is made of, and what is said about one that is made wrongly."""

from __future__ import annotations

import pickle
import subprocess
import sys
from enum import Enum
from typing import TYPE_CHECKING, Any

import pytest

from forge import BatchRunner, Measurement, Pipeline, RetryPolicy, Sample, Stage, stage
from forge.errors import ConfigurationError, ForgeError, SourceError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@stage
def same(sample: Sample) -> Sample:
    return sample


class Length(Measurement):
    key = "length"

    def compute(self, sample: Sample) -> int:
        return len(sample.data)


class Nameless(Stage):
    def __init__(self) -> None:
        pass

    def process(self, sample: Sample) -> Sample:
        return sample


def plain(sample: Sample) -> Sample:
    return sample


undecorated = stage(name="undecorated")(plain)


@stage(batch_size=2)
async def batched(samples: list[Sample]) -> list[Sample]:
    """Return the samples."""
    return samples


class Stages:
    @stage(concurrency=3, retry=RetryPolicy(max_attempts=3))
    def upper(sample: Sample) -> Sample:  # noqa: N805
        return sample.with_data(sample.data.upper())


class Mapped:
    """A map-style data set."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> int:
        if index >= len(self):
            raise IndexError(index)
        return index


class CalledMapping(Mapped):
    def __call__(self) -> list[str]:
        return ["called"]


class Colour(Enum):
    RED = 1


def cyclic() -> list[Measurement]:
    return [Length(key="a", depends_on=["b"]), Length(key="b", depends_on=["c"]), Length(key="c", depends_on=["b"])]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "Pipeline(name=''): must be a string that is not empty"),
        ({"name": 5}, "Pipeline(name=5): must be a string that is not empty"),
        ({"source": "file.txt"}, "pipeline 'p': the source must be iterable or callable, not 'file.txt'"),
        ({"source": None}, "pipeline 'p': the source must be iterable or callable, not None"),
        ({"expected_interval": 0}, "pipeline 'p': expected_interval must be a positive number of seconds, not 0"),
        ({"expected_interval": "1"}, "pipeline 'p': expected_interval must be a positive number of seconds, not '1'"),
        (
            {"expected_interval": float("inf")},
            "pipeline 'p': expected_interval must be a positive number of seconds, not inf",
        ),
        ({"hourly_budget": 0}, "pipeline 'p': hourly_budget must be more than 0"),
        (
            {"hourly_budget": "5"},
            "pipeline 'p': hourly_budget must be a number of US dollars, not '5'",
        ),
        (
            {"hourly_budget": -1},
            "pipeline 'p': hourly_budget must be a number of US dollars that is finite and not negative, not -1",
        ),
        ({"storage": "sqlite://"}, "pipeline 'p': the storage must be SQLStorage('sqlite://'), not its URL alone"),
        ({"artifacts": "folder"}, "pipeline 'p': the artifacts must be ArtifactStore('folder'), not its URL alone"),
        ({"stages": [same, same]}, "pipeline 'p': stage name 'same' is used twice"),
        ({"stages": 3}, "pipeline 'p': stages must be a list, not 3"),
        ({"stages": [3]}, "pipeline 'p': 3 is no stage"),
        ({"stages": [len]}, "pipeline 'p': <built-in function len> is no stage (decorate it with @stage)"),
        ({"stages": [Nameless()]}, "pipeline 'p': Nameless.__init__ must call super().__init__()"),
        ({"measurements": [3]}, "pipeline 'p': 3 is no measurement"),
        ({"measurements": [Length(), Length(version="2")]}, "measurement key 'length' is used twice"),
        (
            {"measurements": [Length(depends_on=["words"])]},
            "measurement 'length' depends on 'words', which the pipeline lacks",
        ),
        ({"measurements": cyclic()}, "measurements depend on each other in a cycle: b → c → b"),
        (
            {"measurements": [Length(depends_on=["length"])]},
            "measurements depend on each other in a cycle: length → length",
        ),
    ],
)  # fmt: skip
def test_one_clear_error_says_what_is_wrong(changes: dict[str, Any], message: str) -> None:
    settings: dict[str, Any] = {"name": "p", "source": [], "stages": [same], "measurements": [Length()]}
    with pytest.raises(ConfigurationError) as caught:
        Pipeline(**settings | changes)
    assert str(caught.value) == message
    assert isinstance(caught.value, ForgeError | ValueError)


@pytest.mark.parametrize("bad", ["a\0b", "a\ud800b", "caf\udce9"], ids=ascii)
def test_names_that_no_storage_can_hold_are_refused_where_they_are_given(bad: str) -> None:
    reason = "must have no NUL and no half surrogate pair, which no storage can hold"
    refused: list[tuple[Callable[[], Any], str]] = [
        (lambda: Pipeline(name=bad, source=[]), f"Pipeline(name={bad!r}): name"),
        (lambda: stage(name=bad)(plain), f"stage {bad!r}: name"),
        (lambda: stage(version=bad)(plain), "stage 'plain': version"),
        (lambda: Length(key=bad), "measurement Length: key"),
        (lambda: Length(version=bad), "measurement Length: version"),
    ]
    for make, where in refused:
        with pytest.raises(ConfigurationError) as caught:
            make()
        assert str(caught.value) == f"{where} {reason}"


def test_names_have_a_length_that_fits_into_an_index() -> None:
    longest, version = "é" * 100, "v" * 100
    Pipeline(
        name=longest,
        source=[],
        stages=[stage(name=longest, version=version)(plain)],
        measurements=[Length(key=longest, version=version)],
    )
    refused: list[tuple[Callable[[], Any], str]] = [
        (lambda: Pipeline(name=longest + "x", source=[]), "name must have at most 200 bytes in UTF-8, not 201"),
        (lambda: stage(name=longest + "x")(plain), "name must have at most 200 bytes in UTF-8, not 201"),
        (lambda: Length(key=longest + "é"), "key must have at most 200 bytes in UTF-8, not 202"),
        (lambda: Length(version=version + "x"), "version must have at most 100 bytes in UTF-8, not 101"),
    ]
    for make, message in refused:
        with pytest.raises(ConfigurationError, match=f"{message}$"):
            make()


def test_a_class_is_no_measurement() -> None:
    with pytest.raises(ConfigurationError, match=r"is no measurement \(make an instance of it\)$"):
        Pipeline(name="p", source=[], measurements=[Length])  # type: ignore[list-item]


def test_measurements_are_ordered_by_what_they_depend_on_and_else_as_given() -> None:
    given = [
        Length(key="d", depends_on=["b", "c"]),
        Length(key="c", depends_on=["a"]),
        Length(key="b", depends_on=["a"]),
        Length(key="a"),
        Length(key="e"),
    ]
    assert [each.key for each in Pipeline(name="p", source=[], measurements=given).measurements] == list("abcde")


def test_a_definition_is_what_the_id_is_made_of() -> None:
    pipeline = Pipeline(
        name="corpus", source=[], stages=[same, stage(name="b", version="7")(plain)], measurements=[Length()]
    )
    assert pipeline.definition == {
        "name": "corpus",
        "stages": [["same", "1"], ["b", "7"]],
        "measurements": [["length", "1"]],
    }
    assert len(pipeline.id) == 16
    assert repr(pipeline) == f"Pipeline(name='corpus', id='{pipeline.id}')"


def test_dead_letters_need_a_storage() -> None:
    with pytest.raises(ConfigurationError) as caught:
        _ = Pipeline(name="p", source=[]).dead_letters
    assert str(caught.value) == "pipeline 'p' has no storage, so it keeps no dead letters"


@pytest.mark.parametrize(
    ("make", "data"),
    [
        (lambda: [Sample(data=1)], [1]),
        (lambda: {"a": 1, "b": 2}, ["a", "b"]),
        (lambda: range(3), [0, 1, 2]),
        (lambda: lambda: iter("xy"), ["x", "y"]),
        (Mapped, [0, 1]),
        (lambda: Mapped, [0, 1]),
        (CalledMapping, ["called"]),
        (lambda: Colour, [Colour.RED]),
    ],
)
def test_a_source_gives_samples_or_plain_data(make: Callable[[], Any], data: list[Any]) -> None:
    assert [sample.data for sample in BatchRunner().run(Pipeline(name="p", source=make()))] == data


def test_what_says_that_it_is_not_iterable_is_no_source() -> None:
    class NotIterable(Mapped):
        __iter__ = None

    with pytest.raises(ConfigurationError, match="the source must be iterable or callable"):
        Pipeline(name="p", source=NotIterable())
    with pytest.raises(SourceError, match=r"gave NotIterable, which is not iterable"):
        BatchRunner().run(Pipeline(name="p", source=NotIterable)).drain()


def again(thing: Any) -> Any:
    return pickle.loads(pickle.dumps(thing))


def test_a_pipeline_can_be_pickled() -> None:
    pipeline = Pipeline(name="p", source=["a"], stages=[same, Stages.upper, undecorated], measurements=[Length()])
    copy = again(again(pipeline))
    assert copy.id == pipeline.id
    assert [sample.data for sample in BatchRunner().run(copy)] == ["A"]
    upper = copy.stages[1]
    assert (upper.name, upper.concurrency, upper.retry) == ("upper", 3, Stages.upper.retry)
    assert again(batched).is_async
    assert (batched.__name__, batched.__doc__) == ("batched", "Return the samples.")


def test_processes_with_the_same_policy_have_jitter_of_their_own() -> None:
    policy = again(RetryPolicy(jitter=1, max_attempts=9))
    assert policy == RetryPolicy(jitter=1, max_attempts=9)
    assert b"Random" not in pickle.dumps(policy)


@pytest.mark.slow
def test_the_stages_of_a_script_reach_a_worker_process(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing\n"
        "from forge import BatchRunner, Pipeline, stage\n"
        "@stage(concurrency=2)\n"
        "def shout(sample):\n"
        "    return sample.with_data(sample.data.upper())\n"
        "def run(pipeline):\n"
        "    print([sample.data for sample in BatchRunner().run(pipeline)])\n"
        "if __name__ == '__main__':\n"
        "    pipeline = Pipeline(name='p', source=['a'], stages=[shout])\n"
        "    worker = multiprocessing.get_context('spawn').Process(target=run, args=[pipeline])\n"
        "    worker.start()\n"
        "    worker.join()\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("['A']\n", "")


def test_a_pipeline_without_stages_only_stores() -> None:
    run = BatchRunner().run(Pipeline(name="p", source=[]))
    assert list(run) == []
    assert str(run.result).startswith("p: completed in ")
    assert str(run.result).endswith(" s; 0 admitted, 0 derived: nothing settled")


def test_a_sample_is_frozen() -> None:
    sample = Sample(id="x", data=1, digest="d")
    with pytest.raises(AttributeError):
        sample.data = 2  # type: ignore[misc]
    other = sample.with_data(2)
    assert (other.id, other.data, other.digest, sample.data) == ("x", 2, None, 1)
    child = sample.child("first", 3)
    assert (child.id, child.parent, child.data, child.status) == ("x#first", "x", 3, "pending")


def test_a_sample_is_measured_before_it_is_ready() -> None:
    seen: list[tuple[str, str]] = []

    class First(Measurement):
        key = "first"

        def compute(self, sample: Sample) -> int:
            seen.append((sample.id, sample.status))
            return 1

    run = BatchRunner().run(Pipeline(name="p", source=[Sample(id="x", data=1)], measurements=[First()]))
    [sample] = run
    assert seen == [("x", "pending")]
    assert (sample.status, sample.pipeline, sample.measurements) == ("ready", "p", {"first": 1})
