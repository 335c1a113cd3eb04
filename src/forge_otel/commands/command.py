"""Commands of the command line: how they are declared, started and ended."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import click
from click.shell_completion import shell_complete

from ..config.fields import MAX_COUNT
from .errors import CommandError

USAGE_ERROR: Final = 2
INTERRUPTED: Final = 130
PIPE_CLOSED: Final = 141
"""The exit code that shells report for a program killed by SIGPIPE."""

SETTINGS: Final[dict[str, Any]] = {
    "help_option_names": ["-h", "--help"],
    "max_content_width": 100,
    "show_default": True,
}


class Command(click.Command):
    """A command: its function returns the exit code, or None for 0.

    The function imports what it needs itself, since that may be an extra: help and errors of usage do without.
    """

    def __init__(self, *arguments: Any, extra: str | None = None, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.extra = extra
        """The extra of forge-otel to install when an import fails."""

    def invoke(self, ctx: click.Context) -> int:
        """Run the command; return its exit code."""
        return _invoked(super().invoke, ctx, self.extra)


class Group(click.Group):
    """A group of commands, listed in the order in which they were added."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **{"no_args_is_help": False, **settings})

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names of the commands, the most important first."""
        return list(self.commands)


class DefaultGroup(Group):
    """A group that does something itself where none of its commands is named."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, invoke_without_command=True, **settings)

    def invoke(self, ctx: click.Context) -> int:
        """Run the command that was named, or the group's own function; return its exit code."""
        return _invoked(super().invoke, ctx, None)


def _invoked(invoke: Callable[[click.Context], int | None], ctx: click.Context, extra: str | None) -> int:
    """Return the exit code of a command's function, whose errors are reported in one line."""
    name = ctx.command_path
    try:
        code = invoke(ctx)
        sys.stdout.flush()
    except CommandError as error:
        return _report(f"{name}: {error}")
    except ModuleNotFoundError as error:
        if extra is None or error.name is None or error.name.partition(".")[0] in ("forge", "forge_otel"):
            raise
        return _report(f"{name}: {error.name} is not installed: pip install 'forge-otel[{extra}]'")
    except KeyboardInterrupt:
        return _report(f"{name}: interrupted; run it again to start over", INTERRUPTED)
    return code or 0


def command(name: str, *, extra: str | None = None) -> Callable[[Callable[..., int | None]], Command]:
    """Declare a command; its function's docstring is the help, and the name of an `extra` what an import needs."""
    return click.command(name, cls=Command, extra=extra, context_settings=SETTINGS)


def main(program: click.Group, arguments: Sequence[str] | None = None) -> int:
    """Run a program with the process's arguments, or with others; return the exit code."""
    name = str(program.name)
    variable = f"_{name.replace('-', '_').upper()}_COMPLETE"
    if instruction := os.environ.get(variable):
        return shell_complete(program, {}, name, variable, instruction)
    try:
        with program.make_context(name, list(sys.argv[1:] if arguments is None else arguments)) as context:
            code: int = program.invoke(context)
    except click.exceptions.Exit as end:  # after --help and --version
        return end.exit_code
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else name
        message = " ".join(error.format_message().split()).rstrip(".")
        return _report(f"{path}: {message[:1].lower()}{message[1:]} (see {path} --help)")
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has closed the pipe. Without this, Python would report it again when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    return code


def command_path() -> str:
    """Return the names of the program and the command that run, for messages."""
    context = click.get_current_context(silent=True)
    return context.command_path if context else "forge-otel"


def _report(message: str, code: int = USAGE_ERROR) -> int:
    print(message, file=sys.stderr, flush=True)  # noqa: T201 - this is a command
    return code


def print_json(document: Any) -> None:
    """Print one JSON document. What the encoding does not have, such as half surrogate pairs of ids, is escaped."""
    text = json.dumps(document, indent=2, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(document, indent=2)
    print(text)  # noqa: T201 - this is a command


def positive(value: str | int) -> int:
    """Convert the text of an option to a whole number of at least 1."""
    return _whole(value, 1, MAX_COUNT, f"a whole number from 1 to {MAX_COUNT}")


def port(value: str | int) -> int:
    """Convert the text of an option to a port."""
    return _whole(value, 0, 65535, "a port, from 0 (any free one) to 65535")


def age(value: str) -> float:
    """Convert the text of an option, such as 90d, 12h or 30m, to seconds."""
    from forge.support.durations import parse_duration  # noqa: PLC0415

    try:
        return parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def dollars(value: str) -> Decimal:
    """Convert the text of an option to an amount of US dollars."""
    try:
        amount = Decimal(value)
    except InvalidOperation:
        amount = Decimal(0)
    if not amount.is_finite() or not 0 < amount < 10**15:
        raise click.BadParameter(f"{value!r} is not an amount of US dollars above 0")
    return amount


def _whole(value: str | int, lowest: int, highest: int, what: str) -> int:
    text = str(value)  # a default is a number already
    number = int(text) if text.isdecimal() else -1
    if not lowest <= number <= highest:
        raise click.BadParameter(f"{value!r} is not {what}")
    return number


json_option = click.option("--json", "as_json", is_flag=True, show_default=False, help="Print one JSON document.")
