"""Digests of the code of stages and measurements, so that a change without a new version can be seen."""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any, Final

_OURS: Final = "forge."
_MAX_WRAPPERS: Final = 20
"""Functions around a function that are looked into."""


def code_digest(thing: Any) -> str | None:
    """Return a digest of the bytecode of a stage or a measurement, with the version of Python that it is of: of its
    function, or of all methods of its class; None if there is none, as for what is written in C.

    Comments, docstrings, formatting and places in a file do not matter, nor does what the code calls. Never raises an
    `Exception`.
    """
    try:
        parts = sorted(f"{name} {_content(function)}" for name, function in _functions(thing))
    except Exception:  # noqa: BLE001 - the user's objects may raise anything
        return None
    if not parts:
        return None
    digest = hashlib.sha256("\n".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{sys.implementation.cache_tag}:{digest}"


def _functions(thing: Any) -> Iterator[tuple[str, FunctionType]]:
    """Yield the functions of a stage or measurement by their names."""
    function = vars(thing).get("function")
    if callable(function):
        yield from _unwrapped("", function)
        return
    for kind in type(thing).__mro__:
        if kind is not object and not kind.__module__.startswith(_OURS):
            for name, value in vars(kind).items():
                yield from _unwrapped(f"{kind.__qualname__}.{name}", value)


def _unwrapped(name: str, value: Any) -> Iterator[tuple[str, FunctionType]]:
    """Yield a function, and those that it wraps."""
    for depth in range(_MAX_WRAPPERS):
        if isinstance(value, functools.partial):
            value = value.func
        elif isinstance(value, property):
            value = value.fget
        elif inspect.ismethod(value) or isinstance(value, staticmethod | classmethod):
            value = value.__func__
        elif isinstance(value, FunctionType):
            yield f"{name}:{depth}", value
            value = vars(value).get("__wrapped__")
        elif not isinstance(value, type) and isinstance(call := getattr(type(value), "__call__", None), FunctionType):  # noqa: B004 - that of the class
            value = call
        else:
            return


def _content(function: FunctionType) -> str:
    code = function.__code__
    constants = code.co_consts
    if constants and isinstance(constants[0], str) and constants[0] == function.__doc__:
        code = code.replace(co_consts=(None, *constants[1:]))
    return _text(code)


def _text(value: Any) -> str:
    """Return code or a constant as text that is the same in every process."""
    if isinstance(value, CodeType):
        names = (value.co_names, value.co_varnames, value.co_freevars, value.co_cellvars)
        return f"{value.co_code.hex()} {names} ({', '.join(map(_text, value.co_consts))})"
    if isinstance(value, frozenset):
        return f"{{{', '.join(sorted(map(_text, value)))}}}"
    if isinstance(value, tuple):
        return f"({', '.join(map(_text, value))})"
    return repr(value)
