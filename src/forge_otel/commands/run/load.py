"""Finding the pipeline that a command names, and calling its factory with settings from the command line."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import traceback
import types
import typing
from collections import abc
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from enum import Enum
from pathlib import Path
from typing import Any, Final, Literal, Union

from forge import Pipeline
from forge.errors import ForgeError
from forge.support.text import on_one_line

from ...support.spelling import similar
from ..errors import CommandError

_SWITCHES: Final = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}
_SIMPLE: Final[Mapping[Any, str]] = {
    int: "a whole number",
    float: "a number",
    Decimal: "a decimal number",
    bool: "true or false",
}


_COLLECTIONS: Final[Mapping[Any, type]] = {
    **dict.fromkeys((list, abc.Sequence, abc.MutableSequence, abc.Iterable, abc.Collection), list),
    tuple: tuple,
    **dict.fromkeys((set, abc.Set, abc.MutableSet), set),
    frozenset: frozenset,
}
"""The types of parameters that take several values, with what they get."""


class _NotOfTypeError(ValueError):
    """A value of the command line is not of the type of its parameter; the message says what that is."""


def load(target: str, settings: Sequence[str] = ()) -> Pipeline:
    """Return the pipeline at `module:attribute`, or what the function there returns, called with `KEY=VALUE` settings.

    The current folder comes first on the path of modules. Values have the types of the function's annotations; a list,
    tuple or set takes each value of a setting that is repeated, and none of one that is empty.

    Raises:
        CommandError: there is no such module, attribute or parameter, a value has another type, or it is no pipeline.
    """
    module_name, found, path = target.partition(":")
    if not found or not module_name or not path:
        hint = _hint(target) or ", such as pipeline:pipeline"
        raise CommandError(f"{target!r} names no pipeline: write MODULE:PIPELINE{hint}")
    if module_name.endswith(".py") or os.sep in module_name:
        raise CommandError(f"{module_name!r} is a file: write its module{_hint(module_name, path)}")
    given = _attribute(_module(module_name), module_name, path)
    if isinstance(given, Pipeline):
        if settings:
            what = "is a pipeline and takes no settings; name a function that returns one"
            raise CommandError(f"--set {settings[0]}: {target} {what}")
        return given
    if not callable(given):
        raise CommandError(f"{target} is {_kind(given)}, not a Pipeline, and no function that returns one")
    made = _call(target, given, _values(target, given, settings))
    if not isinstance(made, Pipeline):
        if inspect.iscoroutine(made):
            made.close()
            raise CommandError(f"{target} is an async function; name one that returns a Pipeline at once")
        raise CommandError(f"{target} returned {_kind(made)}, not a Pipeline")
    return made


def _hint(module: str, path: str = "pipeline") -> str:
    if not module.endswith(".py"):
        return ""
    return f", here {'.'.join(Path(module).with_suffix('').parts).strip('.')}:{path}"


def _module(name: str) -> types.ModuleType:
    here = os.getcwd()
    if sys.path[0] != here:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            what = f"there is no module {error.name!r} in {here}, nor among the installed packages"
            raise CommandError(what) from None
        raise CommandError(f"module {name!r} cannot be imported: {_described(error)}") from None
    except SystemExit:
        raise CommandError(
            f"module {name!r} ended the process when it was imported: what is a script in it belongs below "
            'if __name__ == "__main__":'
        ) from None
    except Exception as error:  # noqa: BLE001 - the user's module may raise anything
        raise CommandError(f"module {name!r} cannot be imported: {_described(error)}") from None


def _attribute(module: types.ModuleType, name: str, path: str) -> Any:
    found: Any = module
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            candidates = [each for each, value in vars(module).items() if isinstance(value, Pipeline)]
            meant = similar(part, [each for each in vars(module) if not each.startswith("_")])
            hint = f"; did you mean {meant}?" if meant else f"; it has {', '.join(candidates)}" if candidates else ""
            raise CommandError(f"module {name!r} has no {path!r}{hint}") from None
    return found


def _values(target: str, factory: Callable[..., Any], settings: Sequence[str]) -> inspect.BoundArguments:
    """Convert settings to the types of the factory's parameters."""
    signature = inspect.signature(factory)
    try:
        hints = typing.get_type_hints(factory if inspect.isroutine(factory) else factory.__init__)
    except Exception:  # noqa: BLE001 - names of annotations that are for type checkers only
        hints = {}
    parameters = signature.parameters
    names = [each.name for each in parameters.values() if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
    bound = signature.bind_partial()
    given: dict[str, list[str]] = {}
    for setting in settings:
        key, found, text = setting.partition("=")
        if not found:
            raise CommandError(f"--set {setting}: write KEY=VALUE")
        if key not in names:
            meant = similar(key, names)
            there = f"did you mean {meant}?" if meant else f"it has {', '.join(names) or 'none'}"
            raise CommandError(f"--set {setting}: {target} has no parameter {key!r}; {there}")
        given.setdefault(key, []).append(text)
    for key, texts in given.items():
        parameter = parameters[key]
        default = parameter.default
        usual = type(default) if default is not parameter.empty and default is not None else str
        try:
            bound.arguments[key] = _converted(texts, hints.get(key, usual))
        except _NotOfTypeError as error:
            raise CommandError(f"{' '.join(f'--set {key}={text}' for text in texts)}: {error}") from None
    empty = inspect.Parameter.empty
    missing = [name for name in names if name not in bound.arguments and parameters[name].default is empty]
    if missing:
        raise CommandError(f"{target} needs {', '.join(f'--set {name}=…' for name in missing)}")
    # In the order of the signature: that is how positional ones are passed.
    ordered = {name: bound.arguments[name] for name in names if name in bound.arguments}
    bound.arguments.clear()
    bound.arguments.update(ordered)
    return bound


def _converted(texts: Sequence[str], kind: Any) -> Any:
    """Convert the values given for one parameter to its type: one, or those of a list."""
    if typing.get_origin(kind) in (Union, types.UnionType):
        return _first_of(texts, typing.get_args(kind))
    if (collection := _collection(kind)) is not None:
        return _collected([] if list(texts) == [""] else texts, collection, typing.get_args(kind))
    if len(texts) > 1:
        raise _NotOfTypeError(f"given {len(texts)} times, but it takes one value")
    return _one(texts[0], kind)


def _collection(kind: Any) -> type | None:
    """Return the type whose instances hold the values of a type of collections; None for other types."""
    return _COLLECTIONS.get(typing.get_origin(kind) or kind) if kind is not str else None


def _collected(texts: Sequence[str], collection: type, kinds: Sequence[Any]) -> Any:
    """Convert the values of a list, each to the type of the elements, or of a tuple's place."""
    if collection is tuple and kinds and kinds[-1] is not ...:
        if len(texts) != len(kinds):
            raise _NotOfTypeError(f"it takes {len(kinds)} values, not {len(texts)}; repeat --set for each")
        return tuple(_one(text, kind) for text, kind in zip(texts, kinds, strict=True))
    kind = kinds[0] if kinds else str
    return collection(_first_of([text], [kind]) for text in texts)


def _one(text: str, kind: Any) -> Any:
    """Convert a text to a type that takes one value."""
    origin = typing.get_origin(kind)
    if kind in (Any, str, inspect.Parameter.empty, object):
        return text
    if origin is Literal:
        return _one_of(text, {str(value): value for value in typing.get_args(kind)})
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _one_of(text, {str(each.value): each for each in kind} | {each.name: each for each in kind})
    if kind is bool:
        return _one_of(text.lower(), _SWITCHES, _SIMPLE[bool])
    if kind in _SIMPLE or (isinstance(kind, type) and issubclass(kind, Path)):
        try:
            return kind(text)
        except (ValueError, InvalidOperation):
            raise _NotOfTypeError(f"{text!r} is not {_SIMPLE[kind]}") from None
    if kind is type(None):
        return _one_of(text, {"": None, "none": None, "None": None})
    raise _NotOfTypeError(
        f"its type {kind.__name__ if type(kind) is type else kind} cannot be given on the command line"
    )


def _one_of(text: str, values: Mapping[str, Any], what: str | None = None) -> Any:
    if text not in values:
        raise _NotOfTypeError(f"{text!r} is not {what or 'one of ' + ', '.join(values)}")
    return values[text]


def _first_of(texts: Sequence[str], kinds: Sequence[Any]) -> Any:
    """Convert values to the first type that takes them; `str`, which takes any one, and then lists come last."""
    problems = []
    for kind in sorted(kinds, key=lambda kind: (_collection(kind) is not None, kind is str)):
        try:
            return _converted(texts, kind)
        except _NotOfTypeError as error:
            problems.append(str(error))
    raise _NotOfTypeError(problems[0])


def _call(target: str, factory: Callable[..., Any], bound: inspect.BoundArguments) -> Any:
    try:
        return factory(*bound.args, **bound.kwargs)
    except ForgeError as error:
        raise CommandError(f"{target}: {on_one_line(str(error), 1000)}") from None
    except Exception as error:  # noqa: BLE001 - the user's function may raise anything
        raise CommandError(f"{target} failed: {_described(error)}") from None


def _described(error: BaseException) -> str:
    """Return an error with the place where it was raised, on one line."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    if isinstance(error, SyntaxError) and error.filename:
        place = ""  # which its message has
    elif frames and "importlib" in frames[-1].filename:
        ours = [frame for frame in frames if "importlib" not in frame.filename and frame.filename != __file__]
        place = f" ({Path(ours[-1].filename).name}, line {ours[-1].lineno})" if ours else ""
    return f"{type(error).__name__}: {on_one_line(str(error), 500)}{place}"


def _kind(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
