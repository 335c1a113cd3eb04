"""What is written, and how: spans, metrics and log events on the way into OpenTelemetry."""
