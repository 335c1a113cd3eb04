"""Exporters to files: `OTEL_TRACES_EXPORTER=otlp_file`, and the same for metrics and logs.

The files have the format of OpenTelemetry's [file exporter](https://opentelemetry.io/docs/specs/otel/protocol/file-exporter/):
one export request per line, in OTLP JSON. The encoding is that of the OTLP exporters, so no other package is needed.
"""

from __future__ import annotations

import functools
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final

from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from ..config.fields import check_fields, setting, settings_of
from ._appending import append_line
from ._encoding import encode_all_metrics, encode_records, otlp_json

__all__ = ["OTLPFileLogExporter", "OTLPFileMetricExporter", "OTLPFileSettings", "OTLPFileSpanExporter"]

_PREFIX: Final = "FORGE_OTEL_FILE_"
FILE_PATH: Final = f"{_PREFIX}PATH"
"""Environment variable with the path of the file."""
_SIGNAL: Final = "{signal}"
_MAX_WARNINGS: Final = 20
"""Maximum number of different warnings per file: texts of encoders' errors may contain values."""
_logger: Final = logging.getLogger("forge_otel")


def _path(value: Any) -> str:
    if isinstance(value, str) and value.strip() and "\0" not in value:
        return value
    raise ValueError("must be the path of a file")


@dataclass(frozen=True, slots=True, kw_only=True)
class OTLPFileSettings:
    """The place of the files.

    Each field can also be set in an environment variable, `FORGE_OTEL_FILE_` and the field's name in capitals.

    Raises:
        ValueError: a field has a value that is not allowed.
    """

    path: str = field(default=f"telemetry/{_SIGNAL}.jsonl", metadata=setting(_path, str.strip))
    """Path of the file; `{signal}` stands for `traces`, `metrics` or `logs`. A missing folder is created."""

    def __post_init__(self) -> None:
        check_fields(self)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> tuple[OTLPFileSettings, list[str]]:
        """Read the environment variables; return the settings, and a message for each invalid variable, whose default
        is used.
        """
        found: dict[str, Any] = {}
        invalid = []
        for variable, text in environ.items():
            if not variable.startswith(_PREFIX) or not text.strip():
                continue
            declared = _SETTINGS.get(name := variable.removeprefix(_PREFIX).lower())
            if declared is None:
                known = ", ".join(_PREFIX + each.upper() for each in _SETTINGS)
                invalid.append(f"{variable}={text!r}: there is no such variable; there are {known}")
                continue
            try:
                found[name] = declared.from_text(text)
            except ValueError as error:
                invalid.append(f"{variable}={text!r}: it {error}")
        return cls(**found), invalid


_SETTINGS: Final = settings_of(OTLPFileSettings)


@functools.cache
def _warn_once(message: str) -> None:
    """Log a warning that the exporters of all signals have."""
    _logger.warning("%s", message)


class _FileExporter:
    """Appends the telemetry of one signal to a file."""

    _signal: ClassVar[str]

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        super().__init__()
        if path is None:
            settings, invalid = OTLPFileSettings.from_environment()
            for line in invalid:
                _warn_once(f"{line}; it is ignored")
        else:
            settings = OTLPFileSettings(path=os.fspath(path) if isinstance(path, os.PathLike) else path)
        self.path = Path(settings.path.replace(_SIGNAL, self._signal)).absolute()
        """The file, as an absolute path."""
        self.problem = ""
        """Why the last export failed; empty if it did not. It is printed at the end of the process: what is logged may
        itself go to the file."""
        self._logged: set[str] = set()

    def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:
        """Do nothing: no file is open."""

    def force_flush(self, timeout_millis: float = 30_000) -> bool:  # noqa: ARG002 - the SDK's signature
        """Return True: nothing is buffered."""
        return True

    def _append(self, encode: Callable[[], tuple[Any, Sequence[Exception]]]) -> bool:
        """Append a request; return True if all of it was written. An export that fails is logged once per reason, since
        the next one may come in a few seconds.
        """
        self.problem = ""
        try:
            request, errors = encode()
            for error in errors:
                self._fail(f"some {self._signal} are lost", _described(error))
            if document := otlp_json(request):
                append_line(self.path, json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
        except OSError as error:
            remedy = f"set {FILE_PATH}, or `path` in code or a configuration file, to another file"
            what = f"cannot write {self._signal} to {self.path}, so they are lost"
            self._fail(what, error.strerror or _described(error), remedy)
        except Exception as error:  # noqa: BLE001 - of an encoder; nothing may reach the pipeline
            self._fail(f"{self._signal} are lost", _described(error))
        return not self.problem

    def _fail(self, what: str, problem: str, remedy: str = "") -> None:
        self.problem = problem
        message = "; ".join(filter(None, (f"{what}: {problem}", remedy)))
        if message not in self._logged and len(self._logged) < _MAX_WARNINGS:
            self._logged.add(message)
            _logger.warning("%s", message)


class OTLPFileSpanExporter(_FileExporter, SpanExporter):
    """Appends spans to a file.

    The `path` is that of `OTLPFileSettings`. Without it, the environment variable counts; an invalid one is logged, and
    the default is used: an exception would stop all telemetry of the process. A file that cannot be written is logged
    once, and tried again with every export.

    Raises:
        ValueError: the path is not allowed.
    """

    _signal = "traces"

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Append spans as one line."""
        written = self._append(lambda: encode_records(encode_spans, spans))
        return SpanExportResult.SUCCESS if written else SpanExportResult.FAILURE


class OTLPFileMetricExporter(_FileExporter, MetricExporter):
    """Appends metrics to a file, as `OTLPFileSpanExporter` does spans. Their temporality is cumulative."""

    _signal = "metrics"

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_: Any) -> MetricExportResult:  # noqa: ARG002
        """Append all metrics as one line."""
        written = self._append(lambda: (encode_all_metrics(metrics_data), ()))
        return MetricExportResult.SUCCESS if written else MetricExportResult.FAILURE


class OTLPFileLogExporter(_FileExporter, LogRecordExporter):
    """Appends log records to a file, as `OTLPFileSpanExporter` does spans."""

    _signal = "logs"

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        """Append log records as one line."""
        written = self._append(lambda: encode_records(encode_logs, batch))
        return LogRecordExportResult.SUCCESS if written else LogRecordExportResult.FAILURE


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
