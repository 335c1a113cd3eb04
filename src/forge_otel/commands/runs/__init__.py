"""The commands `forge runs` and `forge show`."""
