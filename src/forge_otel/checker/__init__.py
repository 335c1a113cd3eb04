"""The vocabulary as a registry: reading, checking, generating from it, and verifying telemetry against it."""
