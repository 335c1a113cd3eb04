"""The storage that a command reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from . import next_commands
from .errors import CommandError

if TYPE_CHECKING:
    from forge import SQLStorage

_MIGRATE = "forge_otel.migrate"

Function = TypeVar("Function", bound=Callable[..., Any])


def storage_option(function: Function) -> Function:
    """Add the option `--storage`, whose value is for `opened`, and `--migrate`, which `opened` obeys."""
    function = click.option(
        "--migrate",
        is_flag=True,
        show_default=False,
        expose_value=False,
        callback=lambda ctx, _, value: ctx.meta.__setitem__(_MIGRATE, value),
        help="First migrate a storage that an earlier release has written, which cannot use it then.",
    )(function)
    return click.option(
        "--storage",
        "url",
        envvar="FORGE_STORAGE",
        metavar="URL",
        show_default="FORGE_STORAGE, or the only *.db file here that has Forge's tables",
        help="sqlite:///FILE or postgresql://USER@HOST/DATABASE.",
    )(function)


@contextmanager
def opened(url: str | None, *, writable: bool = False) -> Iterator[SQLStorage]:
    """Open an existing storage, and close it at the end of the block, where its errors become the command's.

    Unless it is to be `writable`, it is only read, and waits for nobody. One of an earlier release is migrated only if
    the user has said so.

    Raises:
        CommandError: the storage cannot be used, has no tables, or is of an earlier release.
    """
    from forge import SQLStorage  # noqa: PLC0415
    from forge.errors import ConfigurationError, StorageError  # noqa: PLC0415
    from forge.storage.migrations import VERSION  # noqa: PLC0415

    try:
        address = url or _url_here()
        storage = SQLStorage(address)
        version = storage.schema_version()
        if version == 0:
            raise CommandError(f"--storage {url}: no pipeline has stored anything there; is it the right address?")
        if version < VERSION:
            if not click.get_current_context().meta.get(_MIGRATE):
                raise CommandError(
                    f"--storage {storage.url}: an earlier release has written it; --migrate migrates its tables, and "
                    "so does the next run (earlier releases cannot use it then)"
                )
            storage.open()
        if not writable and storage.has_current_schema():
            storage = SQLStorage(address, read_only=True)
        try:
            yield storage
        finally:
            storage.close()
    except (ConfigurationError, StorageError) as error:
        raise CommandError(f"--storage: {' '.join(str(error).split())}") from None


def following(command: str, *arguments: str, options: Sequence[str] = ()) -> str:
    """Return a command line to be typed next, which reads the storage of the command that runs now.

    An address from the command line is repeated, without its passwords; the variable and the folder stay as they are.
    """
    from forge.storage import engine  # noqa: PLC0415

    words, options = command.split(), list(options)
    context = click.get_current_context(silent=True)
    if context is not None and context.get_parameter_source("url") is ParameterSource.COMMANDLINE:
        options += ["--storage", engine.shown(engine.parse_url(context.params["url"]))]
    if any(each.startswith("-") for each in arguments):
        return next_commands.command(*words, *options, "--", *arguments)
    return next_commands.command(*words, *arguments, *options)


def _url_here() -> str:
    """Return the URL of the only file in the current folder that has Forge's tables."""
    found = [path for path in sorted(Path().glob("*.db")) if path.is_file() and _has_tables(path)]
    if len(found) != 1:
        why = f"there are {', '.join(map(str, found))}" if found else "no *.db file here has Forge's tables"
        raise CommandError(f"{why}: name the storage with --storage sqlite:///FILE, or in the variable FORGE_STORAGE")
    return f"sqlite:///{found[0]}"


def _has_tables(path: Path) -> bool:
    from forge import SQLStorage  # noqa: PLC0415
    from forge.errors import ForgeError  # noqa: PLC0415

    try:
        return SQLStorage(f"sqlite:///{path}", timeout=1).schema_version() > 0
    except ForgeError:
        return False
