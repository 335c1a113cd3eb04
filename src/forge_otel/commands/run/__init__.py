"""The command `forge run`."""
