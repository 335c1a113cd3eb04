"""Usage and costs of API calls."""
