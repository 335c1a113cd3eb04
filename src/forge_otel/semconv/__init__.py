# Generated from registry/*.yaml by `make generate`. Do not edit.

"""Semantic conventions of Forge: the names of all attributes, metrics, events and spans."""

from typing import Final

VERSION: Final = "0.2.0"
"""The version of the conventions; it changes when a name, unit or meaning does."""

SCHEMA_URL: Final = "https://forge-otel.dev/schemas/0.2.0"
"""The schema URL of the tracer, the meter and the logger, which identifies this version of the names."""
