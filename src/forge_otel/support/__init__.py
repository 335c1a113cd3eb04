"""Text and exceptions: what any layer needs, without a concept of telemetry."""
