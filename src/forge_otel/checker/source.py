"""Reads YAML from untrusted files: bounded in size and depth, and with the line of every key and list item.

Plain scalars have the types of YAML 1.2's core schema, which Weaver uses: `no` is a string.
"""

from __future__ import annotations

import math
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from yaml.reader import Reader

from .findings import Finding, shown
from .model import Place

MAX_BYTES: Final = 1 << 20
MAX_VALUES: Final = 100_000
MAX_DEPTH: Final = 32
_TOO_DEEP: Final = ("yaml/depth", f"nested more than {MAX_DEPTH} deep")

_WORDS: Final = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_PLAIN: Final = "plain"
_UNTAGGED: Final = "untagged"

DocumentPath = tuple[str | int, ...]
"""The keys and indices that lead to a value."""


def _resolve(_loader: object, node: type[yaml.Node], _value: str, implicit: Any) -> str:
    """Return the tag of a node that has none in the file."""
    return _PLAIN if node is yaml.ScalarNode and implicit[0] else _UNTAGGED


# Not every build of PyYAML has libyaml.
_Loader: Final[Any] = type("_Loader", (getattr(yaml, "CSafeLoader", yaml.SafeLoader),), {"resolve": _resolve})


@dataclass(frozen=True, slots=True, eq=False)
class Document:
    """The content of one file."""

    file: Path
    data: dict[str, Any]
    lines: Mapping[DocumentPath, int]
    """The line of each key and list item, by its path."""

    def place(self, *path: str | int) -> Place:
        """Return the place of a key or list item, or of the nearest one around it if it does not exist."""
        while path not in self.lines:
            path = path[:-1]
        return Place(self.file, self.lines[path])


class _Unusable(Exception):  # noqa: N818 - ends the reading of a file
    def __init__(self, line: int, rule: str, message: str) -> None:
        self.line, self.rule, self.message = line, rule, message


def read(file: Path) -> tuple[Document | None, list[Finding]]:
    """Read a file; return its document, or None if it is unusable, and the findings."""
    converter = _Converter(file)
    try:
        root = _compose(_text(file))
        data = converter.convert(root)
        if not isinstance(data, dict):
            raise _Unusable(_line(root), "yaml/document", f"expected a mapping, found {kind(data)}")
    except _Unusable as error:
        converter.report(error.line, error.rule, error.message)
        return None, list(dict.fromkeys(converter.findings))
    return Document(file, data, converter.lines), list(dict.fromkeys(converter.findings))


def kind(value: object) -> str:
    """Return the YAML name of a value's type."""
    names = {
        dict: "a mapping",
        list: "a list",
        str: "a string",
        bool: "a boolean",
        int: "an integer",
        float: "a double",
    }
    return names.get(type(value), "nothing")


def _text(file: Path) -> str:
    try:
        if not stat.S_ISREG(file.stat().st_mode):  # opening a pipe would wait for a writer
            raise _Unusable(1, "file/unreadable", "not a regular file")
        with file.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise _Unusable(1, "file/unreadable", error.strerror or str(error)) from None
    if len(content) > MAX_BYTES:
        raise _Unusable(1, "file/size", f"larger than {MAX_BYTES} bytes")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _Unusable(line, "file/encoding", f"byte {content[error.start]:#04x} is not UTF-8") from None
    if control := Reader.NON_PRINTABLE.search(text):
        line = text.count("\n", 0, control.start()) + 1
        raise _Unusable(line, "file/encoding", f"control character {control.group()!a}")
    return text


def _compose(text: str) -> yaml.Node:
    """Return the root node of the only document."""
    try:
        _check_events(text)
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        # PyYAML may report the end of a truncated file as a line after the last one.
        line = min(mark.line if mark else 0, text.rstrip().count("\n")) + 1
        if error.problem == "exceeded maximum nesting depth":  # libyaml's own limit, which may be reached first
            raise _Unusable(line, *_TOO_DEEP) from None
        context = error.context and error.context_mark and f"{error.context} from line {error.context_mark.line + 1} on"
        message = ", ".join(part for part in (context, error.problem) if part)
        raise _Unusable(line, "yaml/syntax", message) from None
    except yaml.YAMLError as error:
        raise _Unusable(1, "yaml/syntax", str(error)) from None
    if root is None:
        raise _Unusable(1, "yaml/document", "the file is empty")
    return root


def _check_events(text: str) -> None:
    """Refuse deep nesting before composing, which is recursive, and a second document."""
    depth = documents = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        documents += isinstance(event, yaml.DocumentStartEvent)
        if depth > MAX_DEPTH:
            raise _Unusable(_line(event), *_TOO_DEEP)
        if documents > 1:
            raise _Unusable(_line(event), "yaml/document", "a second document begins here; write one a file")


def _line(marked: yaml.Node | yaml.Event) -> int:
    return marked.start_mark.line + 1 if marked.start_mark else 1


class _Converter:
    """Converts nodes to plain data with all aliases expanded."""

    def __init__(self, file: Path) -> None:
        self.findings: list[Finding] = []
        self.lines: dict[DocumentPath, int] = {}
        self._file = file
        self._values = 0

    def convert(
        self, node: yaml.Node, path: DocumentPath = (), outer: tuple[yaml.Node, ...] = (), after: int = 0
    ) -> Any:
        """Convert a node at a path inside `outer` nodes, none of which begins after the line `after`."""
        line = _line(node)
        # The node of an alias is that of its anchor, on an earlier line.
        at = max(line, after)
        self._values += 1
        if self._values > MAX_VALUES:
            raise _Unusable(at, "file/size", f"more than {MAX_VALUES} values with all aliases expanded")
        if node.tag not in (_PLAIN, _UNTAGGED):
            self.report(line, "yaml/tag", f"{shown(node.tag)}: there are no tags in a registry")
        if isinstance(node, yaml.ScalarNode):
            return self._plain(node.value, line) if node.tag == _PLAIN else node.value
        if node in outer:
            raise _Unusable(at, "yaml/syntax", "an alias stands inside the value that it names")
        outer = (*outer, node)
        if len(outer) > MAX_DEPTH:
            raise _Unusable(at, *_TOO_DEEP)
        self.lines.setdefault(path, line)
        if isinstance(node, yaml.SequenceNode):
            items = []
            for index, item in enumerate(node.value):
                self.lines[*path, index] = _line(item)
                items.append(self.convert(item, (*path, index), outer, at))
            return items
        mapping: dict[str, Any] = {}
        for key_node, value in node.value:
            key, line = self.convert(key_node, path, outer, at), _line(key_node)
            if self._is_field(key, line, path):
                self.lines[*path, key] = line
                mapping[key] = self.convert(value, (*path, key), outer, max(at, line))
        return mapping

    def report(self, line: int, rule: str, message: str) -> None:
        self.findings.append(Finding(Place(self._file, line), rule, message))

    def _is_field(self, key: Any, line: int, path: DocumentPath) -> bool:
        """Report a key that is not a string, or not the first of its name."""
        if not isinstance(key, str):
            self.report(line, "yaml/key", f"a key is a string, not {kind(key)}; put it into quotes")
        elif key == "<<":
            self.report(line, "yaml/key", "there are no merge keys in YAML 1.2; write the fields out")
        elif first := self.lines.get((*path, key)):
            self.report(line, "yaml/key", f"{shown(key)} is there already, in line {first}")
        else:
            return True
        return False

    def _plain(self, text: str, line: int) -> str | int | float | bool | None:
        """Convert a plain scalar, which has neither quotes nor a tag."""
        if text in _WORDS:
            return _WORDS[text]
        if _INTEGER.fullmatch(text):
            number = int(text, 0 if text[:2] in ("0o", "0x") else 10) if len(text) <= 24 else math.inf
            if -(2**63) <= number < 2**63:
                return number
        elif _FLOAT.fullmatch(text):
            if math.isfinite(float(text)):
                return float(text)
        elif not _NOT_FINITE.fullmatch(text):
            return text
        self.report(line, "yaml/number", f"{shown(text)} is no integer of 64 bits and no finite double")
        return 0
