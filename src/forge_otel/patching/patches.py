"""Wrapping functions of unmodified libraries, and restoring them.

The wrappers in place are recorded for the whole process, because a function is patched once even by several
instrumentors.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib._bootstrap import _lock_unlock_module  # type: ignore[attr-defined]
from types import MethodType, ModuleType
from typing import Any

import wrapt

from . import faults

Function = Callable[..., Any]


class PatchError(Exception):
    """A target cannot be wrapped."""


class Layer:
    """The link from a wrapped function to its telemetry, valid as long as the wrapper is in place."""

    __slots__ = ("telemetry",)

    def __init__(self) -> None:
        self.telemetry: Any = None
        """The telemetry that wrappers report to; None while the layer is inert."""


@dataclass(frozen=True, slots=True)
class Target:
    """A function to wrap: a dotted path in a module, which need not be imported yet.

    `wrap(original, layer)` returns a plain function with the original's signature, `async` if the original is. It is
    called once, and its result may be reused after `uninstrument()` and `instrument()`: everything that differs between
    them belongs into `layer.telemetry`. While that is None the wrapper only calls the original.
    """

    module: str
    path: str
    wrap: Callable[[Function, Layer], Function]


class Patches:
    """The patches of one instrumentor."""

    def __init__(self) -> None:
        self._telemetry: Any = None
        self._targets: dict[str, list[Target]] = {}
        self._done: list[_Patch] = []

    def apply(self, targets: Sequence[Target], telemetry: Any) -> None:
        """Wrap the targets, now or when their module is imported, in place of those of an earlier call.

        Targets that stay keep their wrappers, which report to the new telemetry from now on. The targets of one
        module are wrapped all or none: if one of them is missing, as in another version of the library, a fault
        is reported and the module stays unchanged. A target that another instrumentor has wrapped is skipped.
        """
        with _lock:
            self._telemetry = telemetry
            self._targets.clear()
            for patch in reversed(self._done):
                if patch.target in targets:
                    patch.layer.telemetry = telemetry
                else:
                    patch.remove()
            self._done = [patch for patch in self._done if patch.in_use]
            placed = self.placed
            for target in targets:
                if target not in placed:
                    self._targets.setdefault(target.module, []).append(target)
            modules = tuple(self._targets)
            if self not in _waiting:
                _waiting.append(self)
        for module in modules:
            _when_imported(module)

    def remove(self) -> None:
        """Restore every class and module.

        A wrapper that has been wrapped by other code cannot be removed: it stays inert, and is reused by the next
        `apply`.
        """
        with _lock:
            self.forget()
            for patch in reversed(self._done):
                patch.layer.telemetry = None
            removed, self._done = self._done, []
            for patch in reversed(removed):
                patch.remove()

    def forget(self) -> None:
        """Stop waiting for modules that are not imported yet."""
        self._telemetry = None
        self._targets.clear()
        if self in _waiting:
            _waiting.remove(self)

    @property
    def is_waiting(self) -> bool:
        """True if there are targets in modules that are not imported yet."""
        return bool(self._targets)

    @property
    def placed(self) -> Sequence[Target]:
        """The wrapped targets."""
        return [patch.target for patch in self._done]

    def wrap(self, name: str, module: ModuleType) -> None:
        """Wrap the targets of an imported module, all or none.

        Raises:
            Exception: one of them cannot be wrapped.
        """
        done: list[_Patch] = []
        try:
            for target in self._targets.pop(name, ()):
                patch = _place(module, target)
                if patch is not None:
                    done.append(patch)
        except BaseException:
            for patch in reversed(done):
                patch.remove()
            raise
        for patch in done:
            patch.layer.telemetry = self._telemetry
        self._done += done


@dataclass(slots=True)
class _Patch:
    """A wrapper in place."""

    target: Target
    owner: Any
    name: str
    layer: Layer
    function: Function
    """The result of `wrap`."""
    entry: Any
    """The entry in the owner's `__dict__`: the function, or the class method or static method around it."""
    before: Any
    """The entry before; `_ABSENT` if the function was inherited."""

    @property
    def in_use(self) -> bool:
        return self.layer.telemetry is not None

    @property
    def in_place(self) -> bool:
        """True if calls still reach the wrapper, directly or through other wrappers with `__wrapped__`."""
        current = vars(self.owner).get(self.name)
        return current is self.entry or any(link is self.function for link in _chain(current))

    def remove(self) -> None:
        """Remove the wrapper, or leave it inert if other code has wrapped it."""
        self.layer.telemetry = None
        if vars(self.owner).get(self.name) is self.entry:
            if self.before is _ABSENT:
                delattr(self.owner, self.name)
            else:
                setattr(self.owner, self.name, self.before)
        key = (self.target.module, self.target.path)
        if _placed.get(key) is self and not self.in_place:
            del _placed[key]


_ABSENT: Any = object()

_lock = threading.RLock()
"""Never held during an import: another thread may be importing the module, and its hook waits for this lock."""
_placed: dict[tuple[str, str], _Patch] = {}
"""The wrappers in place, by module and path, including inert ones that could not be removed."""
_waiting: list[Patches] = []
"""Patches with targets in modules that are not imported yet."""
_hooked: set[str] = set()
"""Modules with an import hook. Hooks cannot be unregistered, so there is one per module instead of one per `apply`."""


def _when_imported(name: str) -> None:
    """Wrap the targets of a module, now or when it is imported."""
    while True:
        # Wait for another thread that may be importing it.
        _lock_unlock_module(name)
        module = sys.modules.get(name)
        if module is not None:
            break
        with _lock:
            if name in _hooked:
                return
            _hooked.add(name)
        wrapt.register_post_import_hook(functools.partial(_imported, name), name)
        # Check again: an import that began before the registration does not call the hook.
    raised: list[Exception] = []
    with _lock:
        for patches in tuple(_waiting):
            try:
                patches.wrap(name, module)
            except Exception as error:  # noqa: BLE001 - neither the user's import nor `apply` may fail
                raised.append(error)
            if not patches.is_waiting:
                _waiting.remove(patches)
    for fault in raised:
        faults.suppress(fault, f"patching {name}")


def _imported(name: str, _: ModuleType) -> None:
    """The import hook, called once during the import."""
    _hooked.discard(name)
    _when_imported(name)


def _place(module: ModuleType, target: Target) -> _Patch | None:
    """Put the wrapper of a target in place, or return the existing one; None if another instrumentor uses it."""
    owner, name, found = wrapt.resolve_path(module, target.path)
    key = (target.module, target.path)
    placed = _placed.get(key)
    if placed is not None and placed.owner is owner and placed.in_place:
        return None if placed.in_use else placed
    layer = Layer()
    original, as_attribute = _function(owner, name, found)
    function = functools.update_wrapper(target.wrap(original, layer), original)
    before = vars(owner).get(name, _ABSENT)
    patch = _Patch(target, owner, name, layer, function, as_attribute(function), before)
    wrapt.apply_patch(owner, name, patch.entry)
    _placed[key] = patch
    return patch


def _function(owner: Any, name: str, found: Any) -> tuple[Function, Callable[[Function], Any]]:
    """Return an attribute as a function that takes all arguments, and the constructor of an attribute of its kind.

    Uses the attribute's own `__get__`: it may be a wrapper of other code, which tells the instance from the arguments
    by it.

    Raises:
        PatchError: the attribute is not a function.
    """
    if isinstance(found, classmethod):

        @functools.wraps(found.__func__)
        def original(cls: type, *args: Any, **kwargs: Any) -> Any:
            return found.__get__(None, cls)(*args, **kwargs)

        return original, classmethod
    function = found
    if isinstance(owner, type):
        function = found.__get__(None, owner) if hasattr(found, "__get__") else None
    if callable(function) and not isinstance(found, type):
        return function, staticmethod if isinstance(found, staticmethod) else _same
    raise PatchError(f"{name} of {owner!r} cannot be wrapped: it is not a function but {found!r}")


def _same(function: Function) -> Function:
    return function


def _chain(wrapper: Any) -> Iterator[Any]:
    """Yield a wrapper and all functions that it wraps, from the outside in."""
    visited: list[Any] = []
    while wrapper is not None and all(wrapper is not link for link in visited):
        if isinstance(wrapper, MethodType):
            wrapper = wrapper.__func__
        yield wrapper
        visited.append(wrapper)
        wrapper = getattr(wrapper, "__wrapped__", None)


def _after_fork() -> None:
    """Detach all layers from the parent's telemetry in a forked child, and stop waiting for imports."""
    global _lock  # noqa: PLW0603 - another thread may hold it, and that thread is not in the child
    _lock = threading.RLock()
    for patches in tuple(_waiting):
        patches.forget()
    for patch in _placed.values():
        patch.layer.telemetry = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
