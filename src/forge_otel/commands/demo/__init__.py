"""The demo: runs a pipeline of `examples/` with telemetry, a live display and a summary."""
