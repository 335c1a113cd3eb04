"""Pages of backends about a trace, for commands that print where to read on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import click

_PLACE: Final = "{trace_id}"
_OPTIONS: Final = {
    "trace": ("FORGE_TRACE_URL", "Print the address of a trace's page"),
    "logs": ("FORGE_LOGS_URL", "Print the address of a page with its log records"),
}


def pages_of(trace_id: str, templates: Mapping[str, str | None]) -> dict[str, str]:
    """Return the addresses of a trace's pages, by what they show; `templates` without those not given."""
    return {name: template.replace(_PLACE, trace_id) for name, template in templates.items() if template}


def pages_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Declare the options `trace_url` and `logs_url` of a command."""
    for name, (variable, text) in reversed(_OPTIONS.items()):
        option = click.option(
            f"--{name}-url",
            type=_template,
            envvar=variable,
            show_envvar=True,
            metavar="URL",
            help=f"{text}: URL, with the trace's id for {_PLACE}.",
        )
        function = option(function)
    return function


def _template(value: str) -> str:
    if not value.startswith(("http://", "https://")) or _PLACE not in value:
        raise click.BadParameter(f"{value!r} is not an http(s) URL with {_PLACE} in it")
    return value
