"""Destinations of spans, metrics and log records: the global providers with their processors and readers."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.error import URLError
from urllib.parse import SplitResult, urlsplit
from urllib.request import ProxyHandler, build_opener, getproxies, proxy_bypass

from opentelemetry import _logs, metrics, trace
from opentelemetry.sdk.environment_variables import OTEL_EXPORTER_PROMETHEUS_HOST, OTEL_EXPORTER_PROMETHEUS_PORT

from ...config.config import ForgeConfig
from ...signals.sdk import is_sdk
from ...signals.sdk.providers import endpoint_of, exporter_of, is_periodic, processors_of, readers_of
from . import problems
from .diagnostic import Diagnostic

_LOOK_TIMEOUT: Final = 2.0
"""Seconds to wait for the answer of a scrape port."""
_GRPC_PORT: Final = 4317
_HTTP_PORT: Final = 4318
_PROMETHEUS_PORT: Final = 9464
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class SignalExport:
    """The export of traces, metrics or logs."""

    name: str
    """The signal's name in `OTEL_…_EXPORTER`."""
    records: str
    provider: Any
    """The current global provider."""

    @property
    def configured(self) -> bool:
        """True unless the provider is the API's no-op."""
        return self.by_sdk or not type(self.provider).__module__.startswith("opentelemetry.")

    @property
    def by_sdk(self) -> bool:
        """True if the provider is the SDK's."""
        return is_sdk(type(self.provider))

    @property
    def sent_by(self) -> Sequence[Any] | None:
        """The processors or readers of the SDK's provider; None if they cannot be found."""
        return readers_of(self.provider) if self.name == "metrics" else processors_of(self.provider)

    @property
    def exporters(self) -> Sequence[Any]:
        """The exporters, as far as they are found; a reader that is scraped is one itself."""
        return [exporter_of(sender) or sender for sender in self.sent_by or ()]

    @property
    def pushed(self) -> bool:
        """True if something sends it; a reader that is scraped does not."""
        return not all(map(_is_scraped, self.exporters))


def signal_exports() -> Sequence[SignalExport]:
    """Return the exports of all signals."""
    return (
        SignalExport("traces", "spans", trace.get_tracer_provider()),
        SignalExport("metrics", "metrics", metrics.get_meter_provider()),
        SignalExport("logs", "events", _logs.get_logger_provider()),
    )


def check_export(export: SignalExport, scrape: tuple[str, int] | None = None) -> Iterator[Diagnostic]:
    """Yield the destinations of a signal, and what is wrong with their addresses. `scrape` is the host and the port for
    Prometheus, if they are known.

    The SDK has no public API for a provider's processors and readers, so they may be unknown.
    """
    if not export.configured:
        message = f"no SDK is configured, so there are no {export.records}"
        yield problems.NO_PROVIDER.found(export.name, message, "")
    elif not export.by_sdk:
        kind = type(export.provider)
        yield Diagnostic("ok", export.name, f"the provider is {kind.__module__}.{kind.__qualname__}")
    elif export.sent_by is None:
        yield Diagnostic("ok", export.name, "an SDK is configured; its exporters cannot be determined")
    elif not export.sent_by:
        yield problems.NO_EXPORTER.found(
            export.name,
            f"no exporter, so {export.records} are dropped{_LOST[export.name]}",
            f"set OTEL_{export.name.upper()}_EXPORTER",
        )
    else:
        for exporter in export.exporters:
            if scrape and _is_scraped(exporter):
                yield _scraped(export.name, exporter, *scrape)
            else:
                yield Diagnostic("ok", export.name, described(exporter))
            yield from _wrong_address(export.name, exporter)


_LOST: Final = {
    "traces": "",
    "metrics": ", and no alert or dashboard works",
    "logs": "",
}


def described(exporter: Any) -> str:
    """Return the name of an exporter, and where it sends or writes, without passwords."""
    name, address = type(exporter).__qualname__, address_of(exporter)
    if address is None:
        return name
    details = []
    if _is_grpc(exporter):
        details.append("gRPC, " + ("not encrypted" if getattr(exporter, "_insecure", False) else "encrypted"))
    if address.startswith("udp:"):
        details.append("nothing confirms its arrival")
    if any(getattr(kind, "name", "") == "DELTA" for kind in _temporality(exporter)) and not address.startswith("udp:"):
        details.append("delta temporality")
    if proxy := _grpc_proxy(address) if _is_grpc(exporter) else _proxy(address):
        details.append(f"through the proxy {proxy}")
    return f"{name} to {address}" + (f" ({', '.join(details)})" if details else "")


def address_of(exporter: Any) -> str | None:
    """Return where an exporter sends or writes, without passwords; None if it is not known."""
    endpoint = endpoint_of(exporter)
    if endpoint is None:
        inner = getattr(exporter, "_exporter", exporter)  # the file exporter wraps one
        stream = getattr(exporter, "out", getattr(inner, "_stream", None))
        name = getattr(stream, "name", None)
        return name if isinstance(name, str) else None
    # The part before an @ may be a password, and the part behind a ? may be a key.
    return re.sub(r"\?.*", "?…", re.sub("//[^/@]*@", "//…@", endpoint))


def _temporality(exporter: Any) -> Collection[Any]:
    preferred: Mapping[Any, Any] = getattr(exporter, "_preferred_temporality", None) or {}
    return preferred.values()


def unwritable_files(exports: Sequence[SignalExport]) -> Iterator[Diagnostic]:
    """Find files of exporters that cannot be written; a missing folder is created by them."""
    for export in exports:
        for exporter in export.exporters:
            path = getattr(exporter, "path", None)
            if isinstance(path, Path):
                place = next((each for each in (path, *path.parents) if each.exists()), path)
                if path.is_dir():
                    yield problems.UNWRITABLE_FILE.found(export.name, f"{path} cannot be written: it is a folder")
                elif place != path and not place.is_dir():
                    message = f"{path} cannot be written: {place} is not a folder"
                    yield problems.UNWRITABLE_FILE.found(export.name, message)
                elif not os.access(place, os.W_OK):
                    message = f"{path} cannot be written: no permission to write to {place}"
                    yield problems.UNWRITABLE_FILE.found(export.name, message)


def exceptions_lost(config: ForgeConfig, exports: Sequence[SignalExport]) -> Iterator[Diagnostic]:
    """Find out whether exceptions are recorded only where they are not exported."""
    exported = {export.name: export.configured and bool(export.sent_by or export.sent_by is None) for export in exports}
    kept = {
        "logs": exported["logs"] and config.events != "none",
        "span_events": exported["traces"],
    }
    if not any(kept[signal] for signal in (kept if config.exceptions == "both" else (config.exceptions,))):
        message = f"exceptions={config.exceptions}: messages and stack traces of failures are not exported"
        other = next((signal for signal, there in kept.items() if there), None)
        remedy = f"set FORGE_OTEL_EXCEPTIONS={other}" if other else None
        yield problems.EXCEPTIONS_LOST.found("settings", message, remedy)


def _wrong_address(signal: str, exporter: Any) -> Iterator[Diagnostic]:
    endpoint = endpoint_of(exporter)
    if endpoint is None or not (_is_grpc(exporter) or _is_http(exporter)):
        return
    address = address_of(exporter)
    if _is_grpc(exporter):
        url = _split(f"//{endpoint}")
        if _port(url) == _HTTP_PORT:
            message = f"gRPC to {address}: port {_HTTP_PORT} is usually that of HTTP"
            remedy = f"set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, or use port {_GRPC_PORT}"
            yield problems.WRONG_PORT.found(signal, message, remedy)
        return
    url = _split(endpoint)
    if url.scheme not in ("http", "https"):
        message = f"{address} has no scheme, so nothing can be sent"
        yield problems.NO_SCHEME.found(signal, message, f"write http://{address} or https://{address}")
        return
    if _port(url) == _GRPC_PORT:
        message = f"HTTP to {address}: port {_GRPC_PORT} is usually that of gRPC"
        remedy = f"set OTEL_EXPORTER_OTLP_PROTOCOL=grpc, or use port {_HTTP_PORT}"
        yield problems.WRONG_PORT.found(signal, message, remedy)
    path = f"/v1/{signal}"
    if not url.path.endswith(path) or url.path.removesuffix(path).endswith(("/v1/traces", "/v1/metrics", "/v1/logs")):
        message = f"HTTP to the path {url.path or '/'} of {address}: a Collector expects {path}"
        remedy = (
            f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT needs the whole path, OTEL_EXPORTER_OTLP_ENDPOINT none of it"
        )
        yield problems.WRONG_PATH.found(signal, message, remedy)


def unencrypted_by_accident(environ: Mapping[str, str], exports: Sequence[SignalExport]) -> Iterator[Diagnostic]:
    """Find endpoints of gRPC without a scheme: they are encrypted."""
    for export in exports:
        names = (f"OTEL_EXPORTER_OTLP_{export.name.upper()}_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
        endpoint = next((environ[name] for name in names if environ.get(name)), "")
        for exporter in export.exporters:
            if endpoint and "//" not in endpoint and _is_grpc(exporter) and not exporter._insecure:
                message = f"{endpoint} has no scheme, so gRPC encrypts, which a Collector without certificate refuses"
                remedy = f"write http://{endpoint}, or https://{endpoint} if it has one"
                yield problems.NO_SCHEME.found(export.name, message, remedy)


def scrape_address(environ: Mapping[str, str], file: Mapping[str, Any]) -> tuple[str, int]:
    """Return the host and the port at which Prometheus scrapes this process, if it does."""
    readers = (file.get("meter_provider") or {}).get("readers") or ()
    for reader in readers:
        exporter = (reader.get("pull") or {}).get("exporter") or {}
        if "prometheus/development" in exporter:
            settings = exporter["prometheus/development"] or {}
            return str(settings.get("host", "localhost")), int(settings.get("port", _PROMETHEUS_PORT))
    port = environ.get(OTEL_EXPORTER_PROMETHEUS_PORT, "")
    return environ.get(OTEL_EXPORTER_PROMETHEUS_HOST, "localhost"), int(port) if port.isdecimal() else _PROMETHEUS_PORT


def _scraped(signal: str, reader: Any, host: str, port: int) -> Diagnostic:
    url = f"http://{host}:{port}/metrics"
    try:
        # Not through a proxy: Prometheus would not use it.
        with build_opener(ProxyHandler({})).open(url, timeout=_LOOK_TIMEOUT) as answer:
            series = sum(not line.startswith(b"#") for line in answer)
    except (OSError, URLError) as error:
        reason = getattr(error, "reason", error)
        return problems.SCRAPE_FAILED.found(signal, f"{type(reader).__qualname__} at {url} does not answer: {reason}")
    where = "this machine only" if host in _LOOPBACK else "Prometheus"
    message = (
        f"{type(reader).__qualname__} at {url}, which answers with {series} series, to {where}; nothing is sent: what "
        "a process counts after its last scrape is lost, so short ones need OTLP"
    )
    return Diagnostic("ok", signal, message)


def _is_scraped(reader: Any) -> bool:
    return "prometheus" in type(reader).__module__.lower() and not is_periodic(reader)


def _is_grpc(exporter: Any) -> bool:
    return type(exporter).__module__.startswith("opentelemetry.exporter.otlp.proto.grpc.")


def _is_http(exporter: Any) -> bool:
    return type(exporter).__module__.startswith("opentelemetry.exporter.otlp.proto.http.")


def _split(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")


def _port(url: SplitResult) -> int | None:
    try:
        return url.port
    except ValueError:
        return None


def _grpc_proxy(address: str) -> str | None:
    """Return the proxy of gRPC, which reads variables of its own."""
    host = _split(f"//{address}").hostname
    proxy = next(filter(None, map(os.environ.get, ("grpc_proxy", "https_proxy", "http_proxy"))), None)
    if not proxy or (host and proxy_bypass(host)):
        return None
    return re.sub("//[^/@]*@", "//…@", proxy)


def _proxy(address: str) -> str | None:
    """Return the proxy that requests to an address take, by the variables of the environment."""
    url = _split(address)
    proxy = getproxies().get(url.scheme) if url.scheme in ("http", "https") else None
    if not proxy or (url.hostname and proxy_bypass(url.hostname)):
        return None
    return re.sub("//[^/@]*@", "//…@", proxy)
