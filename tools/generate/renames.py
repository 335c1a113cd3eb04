"""Renaming constants in code after a name in the registry was changed."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import SequenceMatcher
from pathlib import Path, PurePath

from .adr_lines import PLACEHOLDER
from .constants import constant

Renames = Mapping[str, Mapping[str, str]]
"""The new names of constants, by module and old name."""


def renamed(folder: Path, wanted: Mapping[str, str]) -> Renames:
    """Return the constants that replace others at the same position of their module, between the same neighbours."""
    found: dict[str, dict[str, str]] = {}
    for path, text in wanted.items():
        module = folder / PurePath(path).name
        if not module.is_file():
            continue
        old, new = _constants(module.read_text(encoding="utf-8")), _constants(text)
        for tag, start, end, first, last in SequenceMatcher(a=old, b=new, autojunk=False).get_opcodes():
            if tag == "replace" and end - start == last - first:
                found.setdefault(module.stem, {}).update(zip(old[start:end], new[first:last], strict=True))
    return found


def follow(renames: Renames, folder: Path, root: Path) -> list[str]:
    """Rename references to constants in a folder's code; return the changed files."""
    changed = []
    for file in sorted(folder.rglob("*.py")) if renames else ():
        text = file.read_text(encoding="utf-8")
        lines = text.splitlines(keepends=True)
        # From the end, so that positions of the remaining references stay valid.
        for line, column, old, new in sorted(_uses(ast.parse(text), renames), reverse=True):
            where = lines[line].encode()
            assert where[column : column + len(old)] == old.encode()
            lines[line] = (where[:column] + new.encode() + where[column + len(old) :]).decode()
        if "".join(lines) != text:
            file.write_text("".join(lines), encoding="utf-8")
            changed.append(file.relative_to(root).as_posix())
    return changed


def follow_lines(renames: Renames, file: Path, names: Iterable[str]) -> bool:
    """Rename references in the lines of the ADR to names of the registry; return True if the file changed."""
    by_constant = {constant(name): name for name in names}

    def new(found: re.Match[str]) -> str:
        kind, name = found.groups()
        module = f"{kind}s" if kind in ("span", "event", "attribute") else "metrics"
        renamed = renames.get(module, {}).get(constant(name))
        return f"{{{kind} {by_constant[renamed]}}}" if renamed else found.group()

    text = file.read_text(encoding="utf-8")
    changed = re.sub(PLACEHOLDER, new, text)
    if changed != text:
        file.write_text(changed, encoding="utf-8")
    return changed != text


def _constants(text: str) -> list[str]:
    found = []
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef):
            found.append(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.append(node.target.id)
    return found


def _uses(tree: ast.Module, renames: Renames) -> Iterator[tuple[int, int, str, str]]:
    """Yield line, byte offset, old and new name of every use, as `module.NAME` or as an imported name."""
    modules: dict[str, Mapping[str, str]] = {}
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom):
            continue
        own = renames.get((node.module or "").rpartition(".")[2], {})
        for alias in node.names:
            if alias.name in renames:
                modules[alias.asname or alias.name] = renames[alias.name]
            if alias.name in own:
                yield alias.lineno - 1, alias.col_offset, alias.name, own[alias.name]
                if alias.asname is None:
                    names[alias.name] = own[alias.name]
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in names:
            yield node.lineno - 1, node.col_offset, node.id, names[node.id]
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.end_lineno is not None:
            new = modules.get(node.value.id, {}).get(node.attr)
            if new is not None:
                assert node.end_col_offset is not None
                yield node.end_lineno - 1, node.end_col_offset - len(node.attr), node.attr, new
