"""`forge-otel doctor`: what a pipeline started in this environment would have as its telemetry."""
