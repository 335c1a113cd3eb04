"""What the telemetry costs: `make bench`."""
