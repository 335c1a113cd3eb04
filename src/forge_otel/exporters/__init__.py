"""Exporters to backends that OpenTelemetry does not support."""
