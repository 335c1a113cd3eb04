"""User settings."""
