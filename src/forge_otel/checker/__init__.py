"""Loading and checking registries, and verifying telemetry against them."""
