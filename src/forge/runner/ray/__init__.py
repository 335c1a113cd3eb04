"""A runner that spreads a pipeline over the machines of a Ray cluster."""

from .runner import RayRunner

__all__ = ["RayRunner"]
