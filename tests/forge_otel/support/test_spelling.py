"""Suggestions for misspelled names."""

from __future__ import annotations

import pytest

from forge_otel.support.spelling import misspelled, similar

VARIABLES = (
    "DD_TAGS",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_PYTHON_EXCLUDED_URLS",
    "OTEL_SERVICE_NAME",
    "OTEL_TRACES_EXPORTER",
    "OTEL_TRACES_SAMPLER",
)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPONT", "OTEL_EXPORTER_OTLP_ENDPOINT"),  # a letter less
        ("OTEL_EXPORTER_OTLP_TRACE_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        ("OTEL_TRACES_SAMPLERS", "OTEL_TRACES_SAMPLER"),  # one more
        ("OTLE_SERVICE_NAME", "OTEL_SERVICE_NAME"),  # two swapped
        ("OTEL_EXPORTER_OTEL_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),  # two others
        ("OTEL_OTLP_EXPORTER_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),  # in another order
        ("OTEL_EXPORTER_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),  # a word less
        ("DD_TAG", "DD_TAGS"),
        ("DD_TAXI", None),  # two errors in a short name
        ("DD_SITE", None),
        ("OTEL_SERVICE", None),
        ("OTEL_PYTHON_FLASK_EXCLUDED_URLS", None),  # a word more: another variable
        ("OTEL_EXPORTER_ZIPKIN_ENDPOINT", None),
    ],
)
def test_misspelled(name: str, meant: str | None) -> None:
    assert misspelled(name, VARIABLES) == meant


@pytest.mark.parametrize(
    ("name", "meant"),
    [("otpl", "otlp"), ("http", "http/protobuf"), ("sample_rate", "sampling_rate"), ("xyz", None), ("", None)],
)
def test_similar(name: str, meant: str | None) -> None:
    assert similar(name, ["grpc", "http/protobuf", "otlp", "sampling_rate"]) == meant
