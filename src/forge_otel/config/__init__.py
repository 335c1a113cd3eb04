"""The settings: what a user may set."""
