"""`forge-otel doctor`: diagnoses the telemetry of pipelines in this environment."""
