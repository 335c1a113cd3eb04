"""The command `forge-otel doctor`."""

from __future__ import annotations

import click

from ..command import command, json_option


@command("doctor", extra="auto")
@click.option(
    "--send",
    is_flag=True,
    show_default=False,
    help="Run a pipeline of two samples, forge-otel-doctor, and send its telemetry to the configured destinations.",
)
@click.option("--storage", metavar="URL", help="Report the schema version of the database at this URL as well.")
@json_option
def doctor(*, send: bool, storage: str | None, as_json: bool) -> int:
    """Diagnose the telemetry of pipelines in this environment.

    Starts like a process under opentelemetry-instrument, and reports the result: the instrumented functions, the
    settings, the effect of the sampler, the destinations of traces, metrics and logs. Run it with the environment
    variables of your pipeline.

    Exit codes: 0, or 1 if some telemetry would be lost.
    """
    from .doctor import print_diagnostics  # noqa: PLC0415

    return print_diagnostics(sending=send, storage=storage, as_json=as_json)
