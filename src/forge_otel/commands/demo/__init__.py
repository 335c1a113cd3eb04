"""The demo: a pipeline from `examples/`, run with telemetry, a live display and a summary."""
