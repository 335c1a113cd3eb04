"""Exporters of our own, for what OpenTelemetry has none."""
