"""`forge-otel read`: telemetry in files, for people."""
