"""Runners by the names that the option `--runner` takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from forge import BatchRunner, RayRunner, StreamingRunner
from forge.errors import ConfigurationError

from .errors import CommandError

if TYPE_CHECKING:
    from forge.runner import Runner

_RUNNERS: Final[Mapping[str, type[Runner]]] = {kind.name: kind for kind in (BatchRunner, RayRunner, StreamingRunner)}


def make_runner(name: str, **settings: Any) -> Runner:
    """Create the runner of this name.

    Raises:
        CommandError: it cannot run here, as where Ray is not installed.
    """
    try:
        return _RUNNERS[name](**settings)
    except ConfigurationError as error:
        raise CommandError(f"--runner {name}: {error}") from None
