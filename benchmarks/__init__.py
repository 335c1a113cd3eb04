"""Benchmarks of the telemetry and of the runners: `make bench`."""
