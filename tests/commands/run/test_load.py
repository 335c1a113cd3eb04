"""Finding the pipeline of `forge run`: modules, factories with typed settings, and what is said when there is none."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from forge_otel.commands.errors import CommandError
from forge_otel.commands.run.load import load

MODULE = """
from __future__ import annotations

import enum
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Literal

from forge import Pipeline

SEEN: dict[str, object] = {}
corpus = Pipeline(name="corpus", source=[])
number = 7


class Size(enum.Enum):
    SMALL = "s"
    LARGE = "l"


def made(
    name: str,
    limit: int = 1,
    rate: float = 0.5,
    price: Decimal = Decimal(1),
    folder: Path = Path(),
    fast: bool = False,
    mode: Literal["one", "two", 3] = "one",
    size: Size = Size.SMALL,
    rows: int | None = None,
    untyped=2,
    tags: list[str] = (),
    counts: tuple[int, ...] = (),
    span: tuple[int, str] = (0, ""),
    modes: set[Literal["one", 2]] = frozenset(),
    folders: Sequence[Path] | None = None,
    either: list[int | None] | str = "",
    sizes: frozenset[Size] = frozenset(),
    bare: list = (),
    plain=("x",),
    mapping: dict[str, int] | None = None,
) -> Pipeline:
    SEEN.update(locals())
    return Pipeline(name=name, source=[])


def first(name, /, other="x"):
    return Pipeline(name=name + other, source=[])


class Made:
    pipeline = Pipeline(name="nested", source=[])


def nothing(): pass
def fails(): raise OSError("no such\\nfile")
def wrong(): return Pipeline(name="", source=[])
async def later(): return corpus
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "pipes.py").write_text(MODULE)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "inner.py").write_text("from pipes import corpus")
    (tmp_path / "needs.py").write_text("import not_there_at_all")
    (tmp_path / "broken.py").write_text("def f(:\n")
    (tmp_path / "raising.py").write_text("\n\n1 / 0\n")
    (tmp_path / "script.py").write_text("import sys\nsys.exit(3)\n")
    before = set(sys.modules)
    importlib.invalidate_caches()
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("pipes", "package", "needs", "broken", "raising", "script"):
            del sys.modules[name]


@pytest.mark.parametrize(
    ("target", "name"),
    [("pipes:corpus", "corpus"), ("package.inner:corpus", "corpus"), ("pipes:Made.pipeline", "nested")],
)
def test_pipelines_of_modules_in_the_current_folder(target: str, name: str) -> None:
    assert load(target).name == name


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("limit=20", 20),
        ("rate=1e-3", 0.001),
        ("price=0.10", "Decimal('0.10')"),
        ("folder=a/b", "PosixPath('a/b')"),
        ("fast=yes", True),
        ("fast=False", False),
        ("mode=two", "'two'"),
        ("mode=3", 3),
        ("size=l", "<Size.LARGE: 'l'>"),
        ("size=LARGE", "<Size.LARGE: 'l'>"),
        ("rows=5", 5),
        ("rows=none", None),
        ("untyped=8", 8),
    ],
)
def test_settings_have_the_types_of_annotations(setting: str, value: object) -> None:
    assert load("pipes:made", ["name=a=b", setting]).name == "a=b"
    seen = sys.modules["pipes"].SEEN[setting.partition("=")[0]]
    assert repr(seen) == (value if isinstance(value, str) else repr(value))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["tags=a"], ["a"]),
        (["tags=a,b", "tags=c"], ["a,b", "c"]),
        (["tags="], []),
        (["counts=1", "counts=2"], (1, 2)),
        (["span=1", "span=x"], (1, "x")),
        (["modes=one", "modes=2", "modes=2"], {"one", 2}),
        (["folders=a", "folders=b"], [Path("a"), Path("b")]),
        (["folders=none"], None),
        (["either=none"], "none"),
        (["either=1", "either=none"], [1, None]),
        (["sizes=LARGE"], "frozenset({<Size.LARGE: 'l'>})"),
        (["bare=1"], ["1"]),
        (["plain=1", "plain=2"], ("1", "2")),
    ],
)
def test_lists_take_each_value_of_a_repeated_setting(values: list[str], expected: object) -> None:
    load("pipes:made", ["name=a", *values])
    seen = sys.modules["pipes"].SEEN[values[0].partition("=")[0]]
    assert repr(seen) == (expected if values[0].startswith("sizes") else repr(expected))


def test_parameters_by_position() -> None:
    assert load("pipes:first", ["other=y", "name=x"]).name == "xy"


@pytest.mark.parametrize(
    ("target", "settings", "message"),
    [
        ("pipes", [], "'pipes' names no pipeline: write MODULE:PIPELINE, such as pipeline:pipeline"),
        ("pipes.py", [], "'pipes.py' names no pipeline: write MODULE:PIPELINE, here pipes:pipeline"),
        ("package/inner.py:corpus", [], "'package/inner.py' is a file: write its module, here package.inner:corpus"),
        (":corpus", [], "':corpus' names no pipeline: write MODULE:PIPELINE, such as pipeline:pipeline"),
        ("pipe:corpus", [], "there is no module 'pipe' in {here}, nor among the installed packages"),
        ("package.outer:x", [], "there is no module 'package.outer' in {here}, nor among the installed packages"),
        ("pipes.x:x", [], "there is no module 'pipes.x' in {here}, nor among the installed packages"),
        (
            "needs:x",
            [],
            "module 'needs' cannot be imported: ModuleNotFoundError: No module named 'not_there_at_all' (needs.py",
        ),
        ("broken:x", [], "module 'broken' cannot be imported: SyntaxError: invalid syntax (broken.py, line 1)"),
        (
            "raising:x",
            [],
            "module 'raising' cannot be imported: ZeroDivisionError: division by zero (raising.py, line 3)",
        ),
        (
            "script:x",
            [],
            "module 'script' ended the process when it was imported: what is a script in it belongs below",
        ),
        ("pipes:corpsu", [], "module 'pipes' has no 'corpsu'; did you mean corpus?"),
        ("pipes:zzz", [], "module 'pipes' has no 'zzz'; it has corpus"),
        ("pipes:number", [], "pipes:number is an int, not a Pipeline, and no function that returns one"),
        ("pipes:nothing", [], "pipes:nothing returned a NoneType, not a Pipeline"),
        ("pipes:later", [], "pipes:later is an async function; name one that returns a Pipeline at once"),
        ("pipes:fails", [], "pipes:fails failed: OSError: no such file (pipes.py, line 57)"),
        ("pipes:wrong", [], "pipes:wrong: Pipeline(name=''): must be a string that is not empty"),
        (
            "pipes:corpus",
            ["a=1"],
            "--set a=1: pipes:corpus is a pipeline and takes no settings; name a function that returns one",
        ),
        ("pipes:made", [], "pipes:made needs --set name=…"),
        ("pipes:made", ["name"], "--set name: write KEY=VALUE"),
        ("pipes:made", ["name=x", "limt=1"], "--set limt=1: pipes:made has no parameter 'limt'; did you mean limit?"),
        ("pipes:nothing", ["a=1"], "--set a=1: pipes:nothing has no parameter 'a'; it has none"),
        ("pipes:made", ["limit=many"], "--set limit=many: 'many' is not a whole number"),
        ("pipes:made", ["rate=x"], "--set rate=x: 'x' is not a number"),
        ("pipes:made", ["price=x"], "--set price=x: 'x' is not a decimal number"),
        ("pipes:made", ["fast=2"], "--set fast=2: '2' is not true or false"),
        ("pipes:made", ["mode=x"], "--set mode=x: 'x' is not one of one, two, 3"),
        ("pipes:made", ["size=x"], "--set size=x: 'x' is not one of s, l, SMALL, LARGE"),
        ("pipes:made", ["rows=x"], "--set rows=x: 'x' is not a whole number"),
        (
            "pipes:made",
            ["mapping=x"],
            "--set mapping=x: its type dict[str, int] cannot be given on the command line",
        ),
        (
            "pipes:made",
            ["counts=1", "name=x", "counts=x"],
            "--set counts=1 --set counts=x: 'x' is not a whole number",
        ),
        (
            "pipes:made",
            ["limit=1", "limit=2"],
            "--set limit=1 --set limit=2: given 2 times, but it takes one value",
        ),
        ("pipes:made", ["span=1"], "--set span=1: it takes 2 values, not 1; repeat --set for each"),
        ("pipes:made", ["modes=x"], "--set modes=x: 'x' is not one of one, 2"),
    ],
)
def test_bad_input_is_explained_on_one_line(target: str, settings: list[str], message: str, folder: Path) -> None:
    with pytest.raises(CommandError) as caught:
        load(target, settings)
    assert str(caught.value).startswith(message.format(here=folder))
    assert "\n" not in str(caught.value)
