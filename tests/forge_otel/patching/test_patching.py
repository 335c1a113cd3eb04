"""Wrapping and putting back, on a library made for it that knows nothing of pipelines."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import logging
import pickle
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import wrapt

from forge_otel.patching import faults
from forge_otel.patching.patches import Layer, Patches, Target

LIBRARY = '''
class Base:
    def inherited(self, value):
        return ("inherited", value)

class Worker(Base):
    """A worker."""

    def __init__(self, name="w"):
        self.name = name

    def work(self, value, *, twice=False):
        """Works."""
        if value == "bad":
            raise ValueError("bad value")
        return (self.name, value, twice)

    async def work_async(self, value):
        return (self.name, value)

    @classmethod
    def build(cls, name):
        return cls(name)

    @staticmethod
    def add(left, right):
        return left + right

    @property
    def size(self):
        return 1

    kind = 7

class Special(Worker):
    def work(self, value, *, twice=False):
        return ("special", *super().work(value, twice=twice))

class Outer:
    class Inner:
        def work(self, value):
            return ("inner", value)

def function(value):
    return ("function", value)
'''


@dataclass
class Telemetry:
    """What the wrappers below report to: the calls that were seen."""

    calls: list[str] = field(default_factory=list)


def counted(original: Callable[..., Any], layer: Layer) -> Callable[..., Any]:
    """A wrapper that notes the call and makes it."""
    if inspect.iscoroutinefunction(original):

        async def wrapper_async(*args: Any, **kwargs: Any) -> Any:
            telemetry: Telemetry | None = layer.telemetry
            if telemetry is not None:
                telemetry.calls.append(original.__name__)
            return await original(*args, **kwargs)

        return wrapper_async

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        telemetry: Telemetry | None = layer.telemetry
        if telemetry is not None:
            telemetry.calls.append(original.__name__)
        return original(*args, **kwargs)

    return wrapper


@pytest.fixture
def library_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module that can be imported and is not yet."""
    name = f"library_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(LIBRARY, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    sys.modules.pop(name, None)


@pytest.fixture
def library(library_name: str) -> ModuleType:
    return __import__(library_name)


@pytest.fixture
def patches() -> Iterator[Patches]:
    patches = Patches()
    yield patches
    patches.remove()


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str]]]:
    """Faults that were swallowed: where, and what."""
    monkeypatch.setattr(faults, "RAISE", False)
    reported: list[tuple[str, str]] = []
    end = faults.on_fault(lambda fault, where: reported.append((where, str(fault))))
    yield reported
    end()


def targets(module: str, *paths: str) -> list[Target]:
    return [Target(module, path, counted) for path in paths]


def entries(*owners: Any) -> list[list[tuple[str, Any]]]:
    """The `__dict__` of classes and modules, in its order, by identity."""
    return [[(name, id(value)) for name, value in vars(owner).items()] for owner in owners]


def test_calls_are_seen_and_give_what_they_gave(library: ModuleType, patches: Patches) -> None:
    telemetry = Telemetry()
    patches.apply(targets(library.__name__, "Worker.work"), telemetry)

    assert library.Worker("a").work(1, twice=True) == ("a", 1, True)
    with pytest.raises(ValueError, match="bad value"):
        library.Worker().work("bad")

    assert telemetry.calls == ["work", "work"]


def test_an_override_that_calls_super_is_seen_once(library: ModuleType, patches: Patches) -> None:
    telemetry = Telemetry()
    patches.apply(targets(library.__name__, "Worker.work"), telemetry)

    assert library.Special("a").work(1) == ("special", "a", 1, False)

    assert telemetry.calls == ["work"]


def test_a_wrapper_looks_like_the_original(library: ModuleType, patches: Patches) -> None:
    before = {name: getattr(library.Worker, name) for name in ("work", "work_async")}
    patches.apply(targets(library.__name__, "Worker.work", "Worker.work_async"), Telemetry())

    for name, original in before.items():
        wrapper = getattr(library.Worker, name)
        assert wrapper is not original
        assert inspect.isfunction(wrapper)
        assert inspect.signature(wrapper) == inspect.signature(original)
        assert inspect.iscoroutinefunction(wrapper) is inspect.iscoroutinefunction(original)
        assert (wrapper.__module__, wrapper.__name__, wrapper.__qualname__, wrapper.__doc__) == (
            original.__module__,
            original.__name__,
            original.__qualname__,
            original.__doc__,
        )


def test_kinds_of_functions(library: ModuleType, patches: Patches) -> None:
    telemetry = Telemetry()
    paths = ["Worker.work_async", "Worker.build", "Worker.add", "Worker.inherited", "Outer.Inner.work", "function"]
    patches.apply(targets(library.__name__, *paths), telemetry)

    assert asyncio.run(library.Worker("a").work_async(1)) == ("a", 1)
    built = library.Special.build("b")
    assert (type(built), built.name) == (library.Special, "b")
    assert library.Worker.build("b").name == "b"
    assert library.Worker.add(1, 2) == library.Worker().add(1, 2) == 3
    assert library.Worker().inherited(1) == ("inherited", 1)
    assert library.Base().inherited(1) == ("inherited", 1)
    assert library.Outer.Inner().work(1) == ("inner", 1)
    assert library.function(1) == ("function", 1)

    seen = ["work_async", "build", "build", "add", "add", "inherited", "work", "function"]
    assert telemetry.calls == seen


def test_everything_is_put_back(library: ModuleType, patches: Patches) -> None:
    owners = (library, library.Base, library.Worker, library.Special, library.Outer, library.Outer.Inner)
    before = entries(*owners)
    paths = ["Worker.work", "Worker.work_async", "Worker.build", "Worker.add", "Worker.inherited", "Special.work"]
    patches.apply(targets(library.__name__, *paths, "Outer.Inner.work", "function"), Telemetry())
    assert entries(*owners) != before

    patches.remove()

    assert entries(*owners) == before
    assert "inherited" not in vars(library.Worker)


def test_a_reference_kept_over_the_removal_is_inert(library: ModuleType, patches: Patches) -> None:
    telemetry = Telemetry()
    patches.apply(targets(library.__name__, "Worker.work"), telemetry)
    kept = library.Worker("a").work
    patches.remove()

    assert kept(1) == ("a", 1, False)

    assert telemetry.calls == []


def test_bound_methods_pickle(library: ModuleType, patches: Patches) -> None:
    telemetry = Telemetry()
    paths = ["Worker.work", "Worker.build", "Worker.inherited", "function"]
    patches.apply(targets(library.__name__, *paths), telemetry)

    assert pickle.loads(pickle.dumps(library.Worker("a").work))(1) == ("a", 1, False)
    assert pickle.loads(pickle.dumps(library.Worker.build))("b").name == "b"
    assert pickle.loads(pickle.dumps(library.Worker().inherited))(1) == ("inherited", 1)
    assert pickle.loads(pickle.dumps(library.function))(1) == ("function", 1)

    assert telemetry.calls == ["work", "build", "inherited", "function"]


@pytest.mark.parametrize("path", ["Worker.gone", "Gone.work", "Worker.size", "Worker.kind", "Worker", "Outer.Inner"])
def test_a_module_is_patched_all_or_none(
    library: ModuleType, patches: Patches, reported: list[tuple[str, str]], path: str
) -> None:
    before = entries(library, library.Worker, library.Base)

    patches.apply(targets(library.__name__, "Worker.work", "Worker.inherited", path, "function"), Telemetry())

    assert entries(library, library.Worker, library.Base) == before
    assert library.Worker("a").work(1) == ("a", 1, False)
    [(where, what)] = reported
    assert where == f"patching {library.__name__}"
    assert path.rpartition(".")[2] in what or "Gone" in what


def test_a_module_that_cannot_be_patched_is_logged_in_one_line_and_leaves_the_others(
    library: ModuleType, patches: Patches, reported: list[tuple[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    telemetry = Telemetry()

    with caplog.at_level(logging.INFO, logger="forge_otel"):
        patches.apply(
            [*targets("json.decoder", "JSONDecoder.gone"), *targets(library.__name__, "Worker.work")], telemetry
        )

    library.Worker().work(1)
    assert telemetry.calls == ["work"]
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert "patching json.decoder failed" in record.getMessage()
    assert "gone" in record.getMessage()
    assert record.exc_info is None


def test_a_wrap_that_fails_undoes_the_module(
    library: ModuleType, patches: Patches, reported: list[tuple[str, str]]
) -> None:
    before = entries(library.Worker)

    def broken(original: Callable[..., Any], layer: Layer) -> Callable[..., Any]:
        raise RuntimeError("no wrapper today")

    patches.apply(
        [*targets(library.__name__, "Worker.work"), Target(library.__name__, "Worker.add", broken)], Telemetry()
    )

    assert entries(library.Worker) == before
    assert reported == [(f"patching {library.__name__}", "no wrapper today")]


def test_a_builtin_type_cannot_be_patched(patches: Patches, reported: list[tuple[str, str]]) -> None:
    patches.apply(targets("builtins", "dict.get"), Telemetry())

    [(where, what)] = reported
    assert where == "patching builtins"
    assert "immutable type" in what


def test_a_module_imported_later_is_patched_then(library_name: str, patches: Patches) -> None:
    telemetry = Telemetry()
    patches.apply(targets(library_name, "Worker.work"), telemetry)
    assert library_name not in sys.modules

    library = __import__(library_name)

    library.Worker().work(1)
    assert telemetry.calls == ["work"]
    patches.remove()
    library.Worker().work(1)
    assert telemetry.calls == ["work"]


def test_an_import_after_the_removal_patches_nothing(library_name: str, patches: Patches) -> None:
    telemetry = Telemetry()
    patches.apply(targets(library_name, "Worker.work"), telemetry)
    patches.remove()

    library = __import__(library_name)

    assert not hasattr(library.Worker.work, "__wrapped__")


def test_a_fault_while_patching_does_not_break_the_import(
    library_name: str, patches: Patches, reported: list[tuple[str, str]]
) -> None:
    patches.apply(targets(library_name, "Worker.work", "Worker.gone"), Telemetry())

    library = __import__(library_name)

    assert library.Worker("a").work(1) == ("a", 1, False)
    assert not hasattr(library.Worker.work, "__wrapped__")
    assert [where for where, _ in reported] == [f"patching {library_name}"]


def test_an_import_that_fails_fails_as_before_and_the_next_one_is_patched(
    tmp_path: Path, library_name: str, patches: Patches
) -> None:
    telemetry = Telemetry()
    file = tmp_path / f"{library_name}.py"
    file.write_text("raise RuntimeError('not today')", encoding="utf-8")
    patches.apply(targets(library_name, "Worker.work"), telemetry)
    with pytest.raises(RuntimeError, match="not today"):
        __import__(library_name)

    file.write_text(LIBRARY + "\n", encoding="utf-8")
    __import__(library_name).Worker().work(1)

    assert telemetry.calls == ["work"]


@pytest.mark.parametrize("ending", [LIBRARY, "raise RuntimeError('not today')"])
def test_a_module_that_another_thread_is_importing(
    tmp_path: Path, library_name: str, patches: Patches, ending: str
) -> None:
    """It is in `sys.modules`, but what is to be patched is not in it yet; and the import may still fail."""
    (tmp_path / f"{library_name}.py").write_text(
        f"import events_of_{library_name} as events\nevents.reached.set()\nevents.go_on.wait()\n" + ending,
        encoding="utf-8",
    )
    events = ModuleType("events")
    events.reached, events.go_on = threading.Event(), threading.Event()  # type: ignore[attr-defined]
    sys.modules[f"events_of_{library_name}"] = events
    errors: list[Exception] = []

    def do_import() -> None:
        try:
            __import__(library_name)
        except RuntimeError as error:
            errors.append(error)

    importing = threading.Thread(target=do_import)
    telemetry = Telemetry()
    applying = threading.Thread(target=patches.apply, args=(targets(library_name, "Worker.work"), telemetry))
    importing.start()
    assert events.reached.wait(120)
    applying.start()
    events.go_on.set()
    importing.join(120)
    applying.join(120)
    assert not importing.is_alive()
    assert not applying.is_alive()
    del sys.modules[f"events_of_{library_name}"]
    if ending != LIBRARY:
        assert [str(error) for error in errors] == ["not today"]
        (tmp_path / f"{library_name}.py").write_text(LIBRARY, encoding="utf-8")

    __import__(library_name).Worker().work(1)

    assert telemetry.calls == ["work"]


def test_applying_in_many_threads_during_the_import_wraps_once(library_name: str) -> None:
    everybody = [Patches() for _ in range(8)]
    barrier = threading.Barrier(9)
    telemetry = Telemetry()

    def apply(patches: Patches) -> None:
        barrier.wait()
        patches.apply(targets(library_name, "Worker.work"), telemetry)

    def do_import() -> None:
        barrier.wait()
        __import__(library_name)

    threads = [threading.Thread(target=apply, args=(patches,)) for patches in everybody]
    threads.append(threading.Thread(target=do_import))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    library = sys.modules[library_name]

    library.Worker().work(1)
    assert telemetry.calls == ["work"]
    for patches in everybody:
        patches.remove()
    assert not hasattr(library.Worker.work, "__wrapped__")


def test_a_second_instrumentor_leaves_what_the_first_has_wrapped(library: ModuleType, patches: Patches) -> None:
    first, second = Telemetry(), Telemetry()
    before = entries(library.Worker)
    patches.apply(targets(library.__name__, "Worker.work"), first)
    others = Patches()
    others.apply(targets(library.__name__, "Worker.work", "Worker.add"), second)

    library.Worker().work(1)
    library.Worker.add(1, 2)
    assert (first.calls, second.calls) == (["work"], ["add"])

    others.remove()
    library.Worker().work(1)
    assert (first.calls, second.calls) == (["work", "work"], ["add"])
    patches.remove()
    assert entries(library.Worker) == before


def test_the_same_target_twice_is_once(library: ModuleType, patches: Patches) -> None:
    telemetry = Telemetry()
    before = entries(library.Worker)
    patches.apply(targets(library.__name__, "Worker.work", "Worker.work"), telemetry)

    library.Worker().work(1)

    assert telemetry.calls == ["work"]
    patches.remove()
    assert entries(library.Worker) == before


def with_wrapt(library: ModuleType, calls: list[Any]) -> Callable[[], None]:
    """Wraps `Worker.work` with wrapt, as most instrumentations do; returns what takes it off."""

    def wrapper(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        calls.append((instance, args))
        return wrapped(*args, **kwargs)

    handle = wrapt.wrap_function_wrapper(library, "Worker.work", wrapper)
    return lambda: setattr(library.Worker, "work", handle.__wrapped__)


def with_functools(library: ModuleType, calls: list[Any]) -> Callable[[], None]:
    """Wraps `Worker.work` with a plain decorator."""
    original = library.Worker.work

    @functools.wraps(original)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append((self, args))
        return original(self, *args, **kwargs)

    library.Worker.work = wrapper
    return lambda: setattr(library.Worker, "work", original)


Wrap = Callable[[ModuleType, list[Any]], Callable[[], None]]


@pytest.mark.parametrize("wrap", [with_wrapt, with_functools])
def test_a_wrapper_that_was_there_before_sees_what_it_saw(library: ModuleType, patches: Patches, wrap: Wrap) -> None:
    theirs: list[Any] = []
    telemetry = Telemetry()
    wrap(library, theirs)
    before = entries(library.Worker)
    patches.apply(targets(library.__name__, "Worker.work"), telemetry)
    worker = library.Worker("a")

    assert worker.work(1) == ("a", 1, False)

    assert theirs == [(worker, (1,))]
    assert telemetry.calls == ["work"]
    patches.remove()
    assert entries(library.Worker) == before
    assert worker.work(2) == ("a", 2, False)
    assert theirs == [(worker, (1,)), (worker, (2,))]


def test_a_class_method_that_somebody_wrapped(library: ModuleType, patches: Patches) -> None:
    theirs: list[Any] = []

    def wrapper(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        theirs.append((instance, args))
        return wrapped(*args, **kwargs)

    wrapt.wrap_function_wrapper(library, "Worker.build", wrapper)
    wrapt.wrap_function_wrapper(library, "Worker.add", wrapper)
    before = entries(library.Worker)
    telemetry = Telemetry()
    patches.apply(targets(library.__name__, "Worker.build", "Worker.add"), telemetry)

    assert type(library.Special.build("b")) is library.Special
    assert library.Worker().add(1, 2) == 3

    assert [args for _, args in theirs] == [("b",), (1, 2)]
    assert theirs[0][0] is library.Special
    assert telemetry.calls == ["build", "add"]
    patches.remove()
    assert entries(library.Worker) == before


@pytest.mark.parametrize("wrap", [with_wrapt, with_functools])
def test_a_wrapper_put_around_ours_stays_and_ours_is_used_again(
    library: ModuleType, patches: Patches, wrap: Wrap
) -> None:
    original = library.Worker.work
    theirs: list[Any] = []
    first, second = Telemetry(), Telemetry()
    patches.apply(targets(library.__name__, "Worker.work"), first)
    take_off = wrap(library, theirs)
    layered = entries(library.Worker)
    worker = library.Worker("a")

    patches.remove()
    assert entries(library.Worker) == layered
    assert worker.work(1) == ("a", 1, False)
    assert (first.calls, len(theirs)) == ([], 1)

    patches.apply(targets(library.__name__, "Worker.work"), second)
    assert entries(library.Worker) == layered
    assert worker.work(2) == ("a", 2, False)
    assert (first.calls, second.calls, len(theirs)) == ([], ["work"], 2)

    take_off()
    worker.work(3)
    assert (second.calls, len(theirs)) == (["work", "work"], 2)
    patches.remove()
    assert library.Worker.work is original


@pytest.mark.parametrize("wrap", [with_wrapt, with_functools])
def test_a_wrapper_around_ours_that_goes_while_ours_is_inert(library: ModuleType, patches: Patches, wrap: Wrap) -> None:
    original = library.Worker.work
    telemetry = Telemetry()
    patches.apply(targets(library.__name__, "Worker.work"), Telemetry())
    take_off = wrap(library, [])
    patches.remove()
    take_off()
    assert library.Worker("a").work(1) == ("a", 1, False)

    patches.apply(targets(library.__name__, "Worker.work"), telemetry)
    library.Worker().work(1)
    assert telemetry.calls == ["work"]
    patches.remove()

    assert library.Worker.work is original


def test_somebody_who_replaced_ours_keeps_what_is_his(library: ModuleType, patches: Patches) -> None:
    def replacement(self: Any, value: Any) -> Any:
        return ("replaced", value)

    telemetry = Telemetry()
    patches.apply(targets(library.__name__, "Worker.work"), Telemetry())
    library.Worker.work = replacement
    patches.remove()
    assert library.Worker.work is replacement

    patches.apply(targets(library.__name__, "Worker.work"), telemetry)
    assert library.Worker().work(1) == ("replaced", 1)
    assert telemetry.calls == ["replacement"]
    patches.remove()
    assert library.Worker.work is replacement


@pytest.mark.slow
def test_a_hundred_times_leaves_nothing(library: ModuleType, library_name: str, patches: Patches) -> None:
    def layers() -> int:
        gc.collect()
        return sum(type(each) is Layer for each in gc.get_objects())

    before, layers_before = entries(library.Worker), layers()
    kept = []
    for _ in range(100):
        telemetry = Telemetry()
        kept.append(weakref.ref(telemetry))
        patches.apply([*targets(library.__name__, "Worker.work"), *targets("never_imported", "X.y")], telemetry)
        library.Worker().work(1)
        assert telemetry.calls == ["work"]
        patches.remove()
        del telemetry

    assert layers() == layers_before
    assert [reference() for reference in kept] == [None] * 100
    assert entries(library.Worker) == before


def test_a_hundred_times_under_a_wrapper_of_somebody_else_is_one_layer(library: ModuleType, patches: Patches) -> None:
    patches.apply(targets(library.__name__, "Worker.work"), Telemetry())
    with_functools(library, [])
    layered = entries(library.Worker)
    for _ in range(100):
        patches.remove()
        telemetry = Telemetry()
        patches.apply(targets(library.__name__, "Worker.work"), telemetry)
        library.Worker().work(1)
        assert telemetry.calls == ["work"]

    assert entries(library.Worker) == layered


def test_a_module_that_was_loaded_anew(library: ModuleType, patches: Patches) -> None:
    """The new module has new classes; the patches of the old ones do not stand in their way."""
    first, second = Telemetry(), Telemetry()
    patches.apply(targets(library.__name__, "Worker.work"), first)
    del sys.modules[library.__name__]
    again = __import__(library.__name__)
    before = entries(library.Worker, again.Worker)
    others = Patches()
    others.apply(targets(library.__name__, "Worker.work"), second)

    library.Worker().work(1)
    again.Worker().work(1)

    assert (first.calls, second.calls) == (["work"], ["work"])
    patches.remove()
    again.Worker().work(1)
    assert second.calls == ["work", "work"]
    others.remove()
    assert entries(again.Worker) == before[1:]
