"""The commands to be typed next, as they are typed into a shell."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import click


def waterfall(target: str, source: Sequence[str] = (), trace_id: str = "") -> str:
    """Return the command that shows a sample, or a trace by its id."""
    options = ["--trace", trace_id] if trace_id else []
    dashes = ["--"] if target.startswith("-") else []
    named = [each for each in source if each.startswith("--")]
    if named:  # an option with its value stands before the arguments
        return command("forge-otel", "trace", "waterfall", *options, *source, *dashes, target)
    return command("forge-otel", "trace", "waterfall", *options, *dashes, target, *source)


def show(run_id: str, sample_id: str = "") -> str:
    """Return the command that shows a run, or one of its samples, from the records in the storage."""
    dashes = ["--"] if sample_id.startswith("-") else []
    return command("forge", "show", *dashes, run_id, *([sample_id] if sample_id else ()))


def command(*words: str) -> str:
    """Return a command line; one of `forge` is one of the program that runs, where that has the same commands.

    Words with control characters are quoted as bash, zsh and ksh understand it.
    """
    program, *rest = words
    return " ".join(map(_quoted, (current_program() if program == "forge" else program, *rest)))


def current_program() -> str:
    """Return `forge-otel` in a command of that program, and `forge` elsewhere."""
    context = click.get_current_context(silent=True)
    return (context and context.find_root().info_name) or "forge"


def _quoted(word: str) -> str:
    if word.isprintable():
        return shlex.quote(word)
    return f"$'{''.join(map(_escaped, word))}'"


def _escaped(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    if character.isprintable():
        return character
    try:
        encoded = character.encode(errors="surrogateescape")  # as Python decodes arguments that are not UTF-8
    except UnicodeEncodeError:
        encoded = character.encode(errors="surrogatepass")  # no argument is decoded to this one
    return "".join(f"\\x{byte:02x}" for byte in encoded)
