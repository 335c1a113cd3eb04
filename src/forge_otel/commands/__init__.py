"""The commands of `forge-otel`."""
