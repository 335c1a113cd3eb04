"""Attributes of OpenTelemetry's semantic conventions, from the package `opentelemetry-semantic-conventions`.

Its files are parsed instead of imported: only the source has the descriptions, and importing all modules is slow. The
type of an attribute is known only if it is an enumeration.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Final

from .model import Attribute, Member, Place

PACKAGE: Final = "opentelemetry-semantic-conventions"

_FOLDERS: Final = ("attributes", "_incubating/attributes")
"""Stable attributes first: the other folder has them as well, as deprecated."""
_SUFFIX: Final = "_attributes.py"
_MOVED: Final = re.compile(r"Moved to the \[OpenTelemetry GenAI semantic conventions repository\]")
_TYPES: Final[Mapping[type, str]] = {str: "string", int: "int"}


def find(key: str) -> Attribute | None:
    """Return an attribute of the installed conventions, if it exists."""
    namespace = key.partition(".")[0]
    return _namespace(namespace).get(key) if namespace in namespaces() else None


@cache
def namespaces() -> frozenset[str]:
    """Return the root namespaces of OpenTelemetry's conventions."""
    return frozenset(
        file.name.removesuffix(_SUFFIX)
        for folder in _FOLDERS
        for file in _folder(folder).iterdir()
        if file.name.endswith(_SUFFIX)
    )


def installed() -> str:
    """Return the name and version of the package."""
    return f"{PACKAGE} {version(PACKAGE)}"


def _folder(folder: str) -> Traversable:
    return files("opentelemetry.semconv").joinpath(*folder.split("/"))


@cache
def _namespace(namespace: str) -> Mapping[str, Attribute]:
    attributes: dict[str, Attribute] = {}
    for folder in reversed(_FOLDERS):
        file = _folder(folder).joinpath(f"{namespace}{_SUFFIX}")
        if file.is_file():
            attributes.update((one.key, one) for one in _attributes(file))
    return attributes


def _attributes(file: Traversable) -> Iterator[Attribute]:
    body = ast.parse(file.read_text(encoding="utf-8")).body
    classes = {node.name: node for node in body if isinstance(node, ast.ClassDef)}
    for node, text in _documented(body):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            constant = node.target.id
            enumeration = classes.get("".join(word.capitalize() for word in constant.split("_")) + "Values")
            members = tuple(_members(enumeration)) if enumeration else ()
            brief, _, note = text.partition("\nNote: ")
            deprecated = None
            if brief.startswith("Deprecated"):
                reason = brief.partition(": ")[2] or brief
                # Attributes moved to other conventions are deprecated in this package only.
                deprecated = None if _MOVED.match(reason) else {"reason": "uncategorized", "note": reason}
                brief = ""
            yield Attribute(
                key=ast.literal_eval(node.value),
                type=_TYPES[type(members[0].value)] if members else None,
                brief=" ".join(brief.split()),
                note=note.strip(),
                members=members,
                deprecated=deprecated,
                upstream=True,
                place=Place(Path(str(file)), node.lineno),
            )


def _members(enumeration: ast.ClassDef) -> Iterator[Member]:
    """Yield the values of an enumeration, without deprecated aliases."""
    found: dict[Any, Member] = {}
    for node, text in _documented(enumeration.body):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            value = ast.literal_eval(node.value)
            if value not in found or found[value].brief.startswith("Deprecated"):
                found[value] = Member(node.targets[0].id.lower(), value, " ".join(text.split()))
    yield from found.values()


def _documented(body: list[ast.stmt]) -> Iterator[tuple[ast.stmt, str]]:
    """Yield each statement with the docstring below it."""
    for node, below in zip(body, [*body[1:], None], strict=True):
        documentation = below.value if isinstance(below, ast.Expr) else None
        text = documentation.value if isinstance(documentation, ast.Constant) else ""
        yield node, text.strip() if isinstance(text, str) else ""
