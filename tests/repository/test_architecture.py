"""The architecture page: each line that it names has the symbol that it names there, and every decision is listed."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "architecture.md"
REFERENCE = re.compile(r"`([\w.]+)`\s+\(`([\w/]+\.py):(\d+)`\)")


class Reference(NamedTuple):
    """A symbol, and the line of a file of `forge_otel` where it is defined, as the page says."""

    symbol: str
    file: str
    line: int


def references(text: str) -> list[Reference]:
    return [Reference(symbol, file, int(line)) for symbol, file, line in REFERENCE.findall(text)]


def definitions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, int]]:
    """The qualified names of the functions, classes and variables of a module or class, with their lines."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield prefix + child.name, child.lineno
            if isinstance(child, ast.ClassDef):
                yield from definitions(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.Assign | ast.AnnAssign):
            for target in child.targets if isinstance(child, ast.Assign) else [child.target]:
                if isinstance(target, ast.Name):
                    yield prefix + target.id, child.lineno


def stale(text: str, package: Path) -> list[str]:
    """What has to be changed in a page, so that every line in it is right."""
    wrong = []
    for symbol, file, line in references(text):
        path = package / file
        found = dict(definitions(ast.parse(path.read_text(encoding="utf-8")))) if path.exists() else {}
        right = found.get(symbol)
        if right is None:
            wrong.append(f"`{symbol}` (`{file}:{line}`): there is no {symbol} in {file}")
        elif right != line:
            wrong.append(f"`{symbol}` (`{file}:{line}`) is in line {right}")
    return wrong


@pytest.mark.slow
def test_lines_have_the_symbols_that_the_page_names() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert stale(text, ROOT / "src" / "forge_otel") == []
    assert len(references(text)) == text.count(".py:")
    rooms = {file.partition("/")[0] for _, file, _ in references(text)}
    assert rooms == {"patching", "instrumentors", "engine", "signals"}


@pytest.mark.parametrize(
    ("page", "wrong"),
    [
        ("`Call.close` (`call.py:5`)", []),
        ("`Call.close` (`call.py:4`)", ["`Call.close` (`call.py:4`) is in line 5"]),
        ("`LIMIT` (`call.py:5`)", ["`LIMIT` (`call.py:5`) is in line 1"]),
        ("`close` (`call.py:5`)", ["`close` (`call.py:5`): there is no close in call.py"]),
        ("`Call` (`gone.py:3`)", ["`Call` (`gone.py:3`): there is no Call in gone.py"]),
    ],
)
def test_a_line_that_has_moved_is_found_with_its_new_number(tmp_path: Path, page: str, wrong: list[str]) -> None:
    code = "LIMIT: int = 1\n\nclass Call:\n    @property\n    def close(self) -> None: ...\n"
    (tmp_path / "call.py").write_text(code)
    assert stale(page, tmp_path) == wrong


def test_every_decision_is_listed_with_its_date() -> None:
    index = (ROOT / "docs" / "adr" / "index.md").read_text(encoding="utf-8")
    records = re.findall(r"^\| \[(\d{4})\]\(([\w-]+\.md)\) \|.*\| ([\d-]+) \|$", index, re.MULTILINE)
    listed = re.findall(r"^- ([\d-]+) \[(\d{4})\]\(adr/([\w-]+\.md)\) ", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert [(number, name, date) for date, number, name in listed] == records
