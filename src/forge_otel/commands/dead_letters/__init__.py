"""The commands `forge dlq`."""
