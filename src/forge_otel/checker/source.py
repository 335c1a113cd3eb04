"""Reading YAML as strangers may have written it: bounded in size and depth, and with the line of everything.

Plain scalars have the types of YAML 1.2's core schema, which is what Weaver reads: `no` is a string.
"""

from __future__ import annotations

import math
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
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

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # not every build of PyYAML has libyaml

_WORDS: Final = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass(slots=True, eq=False)
class Node:
    """A value, and the line that it begins in."""

    line: int
    value: Any
    """A scalar, a list of nodes, or a dict of nodes."""
    keys: dict[str, int] = field(default_factory=dict)
    """The lines of a mapping's keys."""
    size: int = 1
    """How many values it is, with those inside and every alias written out."""
    height: int = 1

    def plain(self) -> Any:
        """The value without the lines."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value


@dataclass(frozen=True, slots=True, eq=False)
class Document:
    """One file."""

    file: Path
    root: Node
    data: dict[str, Any]

    def place(self, *path: str | int) -> Place:
        """Where something stands; if it is not there, where the nearest thing around it stands."""
        node, line = self.root, self.root.line
        for step in path:
            if isinstance(node.value, dict) and step in node.value:
                line, node = node.keys[str(step)], node.value[step]
            elif isinstance(node.value, list) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
                line = node.line
            else:
                break
        return Place(self.file, line)


class _Unusable(Exception):  # noqa: N818 - ends the reading of a file
    def __init__(self, line: int, rule: str, message: str) -> None:
        self.line, self.rule, self.message = line, rule, message


def read(file: Path) -> tuple[Document | None, list[Finding]]:
    """Read a file; returns it, or None where there is no way to, and what is wrong with it."""
    composer = _Composer(file)
    try:
        root = composer.compose(_text(file))
        if not isinstance(root.value, dict):
            raise _Unusable(root.line, "yaml/document", f"expected a mapping, found {kind(root.plain())}")
    except _Unusable as error:
        return None, [*composer.findings, Finding(Place(file, error.line), error.rule, error.message)]
    return Document(file, root, root.plain()), composer.findings


def kind(value: object) -> str:
    """What a value is called in YAML."""
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


class _Composer:
    """Makes nodes of PyYAML's events. Not recursive, and an alias is the node that it stands for, so that neither depth
    nor repetition costs anything before it is refused."""

    def __init__(self, file: Path) -> None:
        self.findings: list[Finding] = []
        self._file = file
        self._values = 0
        self._open: list[tuple[Node, str | None, int]] = []
        """Each collection that is not closed yet, with its anchor and the count of values before it."""
        self._key: list[tuple[str | None, int] | None] = []
        """For each of them the key whose value comes next."""
        self._anchors: dict[str, Node | None] = {}

    def compose(self, text: str) -> Node:
        """The only document's value."""
        root: Node | None = None
        for event in _events(text):
            line = event.start_mark.line + 1 if event.start_mark else 1
            if isinstance(event, yaml.DocumentStartEvent) and root is not None:
                raise _Unusable(line, "yaml/document", "a second document begins here; write one a file")
            node = self._node(event, line)
            if node is not None and not self._add(node, line):
                root = node
        if root is None:
            raise _Unusable(1, "yaml/document", "the file is empty")
        return root

    def _node(self, event: yaml.Event, line: int) -> Node | None:
        """The node that is complete with this event."""
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event.anchor, line)
        if isinstance(event, yaml.CollectionEndEvent):
            node, anchor, before = self._open.pop()
            self._key.pop()
            node.size = self._values - before
            inside = node.value.values() if isinstance(node.value, dict) else node.value
            node.height = 1 + max((one.height for one in inside), default=0)
        elif isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
            anchor = event.anchor
            if event.tag not in (None, "!"):
                self._find(line, "yaml/tag", f"{shown(event.tag)}: there are no tags in a registry")
            self._count(line, 1)
            if not isinstance(event, yaml.ScalarEvent):
                value: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
                self._open.append((Node(line, value), anchor, self._values - 1))
                self._key.append(None)
                self._check_depth(line, 1)
                if anchor is not None:
                    self._anchors[anchor] = None
                return None
            node = Node(line, self._scalar(event, line))
        else:
            return None
        if anchor is not None:
            self._anchors[anchor] = node
        return node

    def _alias(self, anchor: str | None, line: int) -> Node:
        node = self._anchors.get(anchor or "")
        if node is None:
            reason = "stands inside what it names" if anchor in self._anchors else "names nothing above"
            raise _Unusable(line, "yaml/syntax", f"alias *{anchor} {reason}")
        self._count(line, node.size)
        self._check_depth(line, node.height)
        return node

    def _add(self, node: Node, line: int) -> bool:
        """Put a node into the innermost open collection; False where there is none."""
        if not self._open:
            return False
        collection = self._open[-1][0]
        if isinstance(collection.value, list):
            collection.value.append(node)
        elif self._key[-1] is None:
            self._key[-1] = (self._name(node, line, collection), line)
        else:
            name, where = self._key[-1]
            self._key[-1] = None
            if name is not None:
                collection.value[name] = node
                collection.keys[name] = where
        return True

    def _name(self, node: Node, line: int, mapping: Node) -> str | None:
        """What a node says as a key; None where its value is left out."""
        if not isinstance(node.value, str):
            self._find(line, "yaml/key", f"a key is a string, not {kind(node.value)}; put it into quotes")
        elif node.value == "<<":
            self._find(line, "yaml/key", "there are no merge keys in YAML 1.2; write the fields out")
        elif node.value in mapping.keys:
            self._find(line, "yaml/key", f"{shown(node.value)} is there already, in line {mapping.keys[node.value]}")
        else:
            return node.value
        return None

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> str | int | float | bool | None:
        text: str = event.value
        if not event.implicit[0]:  # in quotes, a block, or tagged
            return text
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
        self._find(line, "yaml/number", f"{shown(text)} is no integer of 64 bits and no finite double")
        return 0

    def _count(self, line: int, values: int) -> None:
        self._values += values
        if self._values > MAX_VALUES:
            raise _Unusable(line, "file/size", f"more than {MAX_VALUES} values with every alias written out")

    def _check_depth(self, line: int, height: int) -> None:
        if len(self._open) + height - 1 > MAX_DEPTH:
            raise _Unusable(line, *_TOO_DEEP)

    def _find(self, line: int, rule: str, message: str) -> None:
        self.findings.append(Finding(Place(self._file, line), rule, message))


def _events(text: str) -> Iterator[yaml.Event]:
    try:
        yield from yaml.parse(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        # The end of a truncated file may be told as a line behind the last one.
        line = min(mark.line if mark else 0, text.rstrip().count("\n")) + 1
        if error.problem == "exceeded maximum nesting depth":  # the parser's own limit, which it may see before ours
            raise _Unusable(line, *_TOO_DEEP) from None
        context = error.context and error.context_mark and f"{error.context} from line {error.context_mark.line + 1} on"
        message = ", ".join(part for part in (context, error.problem) if part)
        raise _Unusable(line, "yaml/syntax", message) from None
    except yaml.YAMLError as error:
        raise _Unusable(1, "yaml/syntax", str(error)) from None
