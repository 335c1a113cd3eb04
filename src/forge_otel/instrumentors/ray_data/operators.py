"""The operators of one execution: their names as stages, and their counts.

Everything is read from the metrics that Ray Data keeps for each operator, on the driver.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

_PART = re.compile(r"([A-Za-z_]\w*)(\((?:[\w.]|<\w+>)+\))?")
_WRITE: Final = "Write"


def stage_name(operator: str) -> str:
    """Return the name of an operator as that of a stage.

    Names of fused operators stay joined by `->`, and functions and classes in parentheses. Other arguments, such as
    the number of a limit or the expression of a filter, are left out, since they depend on data.
    """
    return "->".join(_without_arguments(part) for part in _parts(operator))


def _parts(name: str) -> Iterator[str]:
    depth, begin = 0, 0
    for place, letter in enumerate(name):
        if letter == "(":
            depth += 1
        elif letter == ")":
            depth -= 1
        elif depth == 0 and name.startswith("->", place):
            yield name[begin:place]
            begin = place + 2
    yield name[begin:]


def _without_arguments(part: str) -> str:
    whole = _PART.fullmatch(part)
    if whole is not None:
        return part
    beginning = _PART.match(part)
    return beginning[1] if beginning is not None else "operator"


class Operator:
    """One physical operator, which may be several logical ones, fused."""

    def __init__(self, operator: Any) -> None:
        self._operator = operator
        self.name = stage_name(operator.name)
        kinds = [type(logical).__name__ for logical in operator._logical_operators]
        inputs = operator.input_dependencies
        self.lists = any(kind.startswith("List") for kind in kinds) and not _reads(kinds)
        """True if it produces paths to read instead of rows."""
        self.reads = not self.lists and (
            _reads(kinds) or any(is_input(each) and not _holds_data(each) for each in inputs)
        )
        """True if the rows come from outside, so that it has no input."""
        self.writes = _WRITE in kinds[-1:]
        """True if its output are no rows, but reports on what it has written."""
        self.limit: int | None = getattr(operator, "_limit", None) if "Limit" in kinds else None
        """Maximum number of rows that it lets pass."""
        self._data = [each for each in inputs if is_input(each) and _holds_data(each)]
        self._upstream = [each for each in inputs if not is_input(each) or _holds_data(each)]
        self.concurrency = _concurrency(operator)
        """Maximum number of tasks at a time; None if it is not known."""
        self.reports: list[Any] = []
        """References to the reports of a write, those that were not read."""
        self.written = 0
        """Rows that it has written, by the reports that were read."""
        self._written_size = 0
        self.failed = 0
        """Rows in the input of failed tasks."""
        self.done = 0
        """Rows in the input of finished tasks."""
        self.error: BaseException | None = None
        """The first exception of one of its tasks."""

    @property
    def _metrics(self) -> Any:
        return self._operator.metrics

    @property
    def started(self) -> bool:
        """True if it has work."""
        metrics = self._metrics
        return bool(metrics.num_inputs_received or metrics.num_tasks_submitted or metrics.num_outputs_taken)

    @property
    def finished(self) -> bool:
        """True if all of its output has been taken."""
        return bool(self._operator.has_completed())

    @property
    def admitted(self) -> int:
        """Rows that it has read, or that the user handed to Ray Data."""
        given = sum(int(each.metrics.row_outputs_taken) for each in self._data)
        return given + (self.output if self.reads else 0)

    @property
    def input(self) -> int:
        """Rows that it has taken in; for an operator that reads, those that came out."""
        return self.output if self.reads or self.lists else int(self._metrics.num_row_inputs_received)

    @property
    def output(self) -> int:
        """Rows that came out, or that it has written."""
        return self.written if self.writes else int(self._metrics.row_outputs_taken)

    @property
    def succeeded(self) -> int:
        """Rows taken in of which something came out, at most."""
        return min(self.input, self.output)

    @property
    def errors(self) -> int:
        """Rows that failed tasks lost."""
        return min(self.failed, max(0, self.input - self.output))

    @property
    def dropped(self) -> int:
        """Rows that went in and did not come out, without those of failed tasks."""
        return max(0, self.input - self.output - self.errors)

    @property
    def derived(self) -> int:
        """Rows that came out in addition to those that went in."""
        return max(0, self.output - self.input)

    @property
    def active(self) -> int:
        """Rows in the input of running tasks."""
        if self.reads or self.lists:
            return 0
        return max(0, int(self._metrics.rows_inputs_of_submitted_tasks) - self.done - self.failed)

    @property
    def queued(self) -> int:
        """Rows that wait for a task."""
        if self.reads or self.lists:
            return 0
        metrics = self._metrics
        arrived = sum(int(each.metrics.row_outputs_taken) for each in self._upstream)
        return max(0, arrived - int(metrics.rows_inputs_of_submitted_tasks or metrics.num_row_inputs_received))

    @property
    def blocks(self) -> int:
        """Blocks that came out."""
        return int(self._metrics.block_outputs_taken)

    @property
    def size(self) -> int:
        """Bytes that came out, or of the rows that it has written, as they are in memory."""
        return self._written_size if self.writes else int(self._metrics.bytes_outputs_taken)

    @property
    def busy(self) -> float:
        """Seconds in tasks, as the workers have measured them."""
        return float(self._metrics.task_worker_completion_time_s)

    @property
    def backpressure(self) -> float:
        """Seconds in which the driver read no output of its tasks, since too much of it was waiting."""
        return float(self._metrics.task_output_backpressure_time)

    def task_ends(self, rows: int, error: BaseException | None) -> None:
        """Note the end of a task with so many rows of input."""
        if error is None:
            self.done += rows
        else:
            self.failed += 0 if self.reads else rows
            self.error = self.error or error

    def read_reports(self, timeout: float) -> None:
        """Read the reports of a write, as far as they are there after so many seconds."""
        if not self.reports:
            return
        import ray  # noqa: PLC0415 - the caller is Ray

        ready, self.reports = ray.wait(self.reports, num_returns=len(self.reports), timeout=timeout)
        for report in ray.get(ready):
            self.written += sum(map(int, report["num_rows"]))
            self._written_size += sum(map(int, report["size_bytes"]))


def operators(topology: Mapping[Any, Any]) -> dict[Any, Operator]:
    """Return the operators of a topology, in its order, without those that only hold the input."""
    return {each: Operator(each) for each in topology if not is_input(each)}


def _concurrency(operator: Any) -> int | None:
    """Return how many tasks of an operator may run at a time: its own limit, or as many as there are cores for."""
    import ray  # noqa: PLC0415 - the caller is Ray

    limit = getattr(operator, "get_max_concurrency_limit", lambda: None)()
    if limit is not None:
        return int(limit)
    cores = operator.incremental_resource_usage().cpu
    return int(ray.cluster_resources().get("CPU", 0.0) // cores) or None if cores else None


def is_input(operator: Any) -> bool:
    """Return True if a physical operator only holds the input: rows, or tasks that read."""
    return type(operator).__name__ == "InputDataBuffer"


def _reads(kinds: list[str]) -> bool:
    return any(kind.startswith("Read") for kind in kinds)


def _holds_data(operator: Any) -> bool:
    """Return True if an input holds rows, instead of the tasks that read them."""
    kinds = [type(logical).__name__ for logical in operator._logical_operators]
    return all(kind.startswith(("From", "InputData")) for kind in kinds)
