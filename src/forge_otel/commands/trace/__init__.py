"""`forge-otel trace`: spans and log records of files or of a Jaeger, for people."""
