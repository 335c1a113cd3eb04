# Generated from registry/*.yaml by `make generate`. Do not edit.

"""The vocabulary: the name of every attribute, metric, event and span, in one place."""

from typing import Final

VERSION: Final = "0.1.0"
"""The version of the conventions; it changes when a name, unit or meaning does."""

SCHEMA_URL: Final = "https://forge-otel.dev/schemas/0.1.0"
"""Stands on the tracer, the meter and the logger, so that readers know which names to expect."""
