"""The command `forge new`."""
