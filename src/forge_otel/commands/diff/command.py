"""The command `forge diff`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from ..command import command, json_option, print_json
from ..errors import CommandError
from ..storage import opened, storage_option

if TYPE_CHECKING:
    from forge.history import RecordedRun


@command("diff")
@click.argument("arguments", nargs=-1, metavar="[BEFORE AFTER]")
@click.option("--pipeline", metavar="NAME", help="Compare runs of this pipeline; last and last~1 count among them.")
@click.option(
    "--fail-on",
    "gates",
    multiple=True,
    metavar="GATE...",
    help="Exit with 1 if a value has changed beyond a limit, such as 'ready<-1%' or 'p95[annotate]>20% and >0.1'.",
)
@storage_option
@json_option
def diff(
    *, arguments: Sequence[str], pipeline: str | None, gates: Sequence[str], url: str | None, as_json: bool
) -> int:
    """Compare two runs, by default the last two of a pipeline that have ended.

    Shows the differences in the order of what explains them: revision of the code, definition of the pipeline, input,
    counts by stage and reason, times, costs. The first line splits the difference in ready samples into its causes.

    A gate is a value of the run (admitted, ready, skipped, unchanged, dlq, failed, gone, new, changed, duration, cost)
    or of its stages and measurements (executions, skips, errors, retries, p50, p95, p99, max, cost), of all of them or
    of the [NAMED] one; then <, <=, > or >= and a change, in the value's unit or in per cent of the first run's value.

    Exit codes: 0, 1 if a gate fails, 2 if a run or gate cannot be read.
    """
    from forge.errors import ForgeError  # noqa: PLC0415
    from forge.history import compare_runs, find_run, last_two  # noqa: PLC0415
    from forge.history.gates import Gate  # noqa: PLC0415

    from .display import show_difference  # noqa: PLC0415

    # `--fail-on A B`: the second one is an argument for click.
    runs = [each for each in arguments if not set("<>") & set(each)]
    if len(runs) not in (0, 2):
        raise click.UsageError(f"expected two runs, or none for the last two; got {' '.join(map(repr, runs))}")
    try:
        limits = [Gate.parse(each) for each in (*gates, *(each for each in arguments if each not in runs))]
        with opened(url) as storage:
            if runs:
                before, after = (find_run(storage, each, pipeline=pipeline) for each in runs)
                passed_over: list[RecordedRun] = []
            else:
                before, after, passed_over = last_two(storage, pipeline=pipeline)
            found = compare_runs(storage, before, after)
        violations = [violation for limit in limits for violation in limit.violations(found)]
    except ForgeError as error:
        raise CommandError(" ".join(str(error).split())) from None
    if as_json:
        document = {**found.to_dict(), "violations": [violation.to_dict() for violation in violations]}
        print_json(document | {"passed_over": [{"run_id": each.id, "state": each.state.value} for each in passed_over]})
    else:
        show_difference(found, violations, passed_over)
    return 1 if violations else 0
