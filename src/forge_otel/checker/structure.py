"""Checking the structure of files by JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any, Final, Literal

from jsonschema import Draft202012Validator, ValidationError

from .findings import Finding, shown
from .source import Document, DocumentPath, kind

FILE_FORMAT: Final = ("file_format",)
"""The path of the field that names a file's format."""

_TYPES: Final = {
    "object": "a mapping",
    "array": "a list",
    "string": "a string",
    "boolean": "a boolean",
    "integer": "an integer",
    "number": "a number",
}
_LIMITS: Final = {
    "minLength": "is empty",
    "minItems": "is empty",
    "minProperties": "is empty",
    "maxProperties": "has more than one field",
}


def faults(document: Document, schema: Literal["definition", "manifest"]) -> dict[DocumentPath, list[Finding]]:
    """Return the structural faults of a file, by the path of the value.

    For a file of another format that is the only fault.
    """
    file_format = document.data.get("file_format")
    if schema == "definition" and file_format != "definition/2":
        message = f"file_format: expected 'definition/2', found {shown(file_format) if file_format else 'nothing'}"
        return {FILE_FORMAT: [Finding(document.place("file_format"), "structure", message)]}
    findings: dict[DocumentPath, list[Finding]] = {}
    for error in _validator(schema).iter_errors(document.data):
        path: DocumentPath = tuple(error.absolute_path)
        for place, message in _messages(error, path):
            finding = Finding(document.place(*place), "structure", f"{_described(path)}{message}")
            if finding not in findings.setdefault(path, []):
                findings[path].append(finding)
    return findings


@cache
def _validator(schema: str) -> Draft202012Validator:
    text = files(__package__).joinpath(f"{schema}.schema.json").read_text(encoding="utf-8")
    return Draft202012Validator(json.loads(text))


def _messages(error: ValidationError, path: DocumentPath) -> Iterator[tuple[DocumentPath, str]]:
    """Yield the messages of an error, with the path of the value."""
    expected: Any = error.validator_value
    value: Any = error.instance
    match error.validator:
        case "required":
            yield from ((path, f"{field!r} is missing") for field in expected if field not in value)
        case "additionalProperties" if expected is False:
            assert isinstance(error.schema, dict)
            known = error.schema["properties"]
            for field in value:
                if field not in known:
                    yield (*path, field), f"there is no field {shown(field)}; there are {', '.join(known)}"
        case "type":
            wanted = [expected] if isinstance(expected, str) else expected
            yield path, f"expected {' or '.join(_TYPES[one] for one in wanted)}, found {kind(value)}"
        case "enum":
            yield path, f"{shown(value)} is none of {', '.join(map(str, expected))}"
        case "pattern":
            yield path, f"{shown(value)} does not match {expected}"
        case "maxLength":
            yield path, f"has more than {expected} characters"
        case keyword:
            yield path, _LIMITS.get(str(keyword), f"{keyword} is not {shown(expected)}")


def _described(path: DocumentPath) -> str:
    """Return a path as the prefix of a message: `metrics[3].unit: `."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return f"{text.lstrip('.')}: " if text else ""
