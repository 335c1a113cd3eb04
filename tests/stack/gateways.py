"""Agents and gateways, between which there are TLS and a token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.certificates import certify

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Stack
    from .services import Collector

WITH_FILES = {
    "service": {"pipelines": {"traces/file": {"exporters": ["file/traces"]}, "logs/file": {"exporters": ["file/logs"]}}}
}
"""So that a test can see what a gateway has."""


def start_gateways(stack: Stack, folder: Path) -> list[Collector]:
    """Start a pair; their certificate will be in the folder."""
    certify(folder)
    variables = gateway_variables(folder)
    return [
        stack.collector("gateway", name=name, variables=variables, settings=WITH_FILES).run()
        for name in ("gateway-1", "gateway-2")
    ]


def start_agent(
    stack: Stack, gateways: list[Collector], folder: Path, token: str = "sesame", name: str = "agent"
) -> Collector:
    """Start an agent of these gateways, whose certificate is in the folder."""
    variables = {
        "OTELCOL_TOKEN": token,
        "OTELCOL_TLS_CA": str(folder / "cert.pem"),
        "OTELCOL_GATEWAYS": f"[{', '.join(gateway.grpc for gateway in gateways)}]",
    }
    soon = {"connectors": {"span_metrics": {"metrics_flush_interval": "200ms"}}}
    return stack.collector("agent", name=name, variables=variables, settings=soon).run()


def gateway_variables(folder: Path) -> dict[str, str]:
    """The variables of a gateway whose certificate is in the folder."""
    return {
        "OTELCOL_TOKEN": "sesame",
        "OTELCOL_TLS_CERT": str(folder / "cert.pem"),
        "OTELCOL_TLS_KEY": str(folder / "key.pem"),
    }


def traces(gateway: Collector) -> dict[str, set[str]]:
    """The spans of each trace that a gateway has."""
    found: dict[str, set[str]] = {}
    for span in gateway.spans():
        found.setdefault(span["traceId"], set()).add(span["spanId"])
    return found
