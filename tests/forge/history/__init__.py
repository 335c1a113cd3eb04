"""Tests of `forge.history`."""
