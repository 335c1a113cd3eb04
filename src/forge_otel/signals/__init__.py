"""Writing spans, metrics and log events to OpenTelemetry."""
