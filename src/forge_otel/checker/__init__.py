"""The vocabulary as a registry: reading and checking it, and verifying telemetry against it."""
