"""Models: what a Sequential is, and the plans that it runs by."""

from fastnet.model.sequential import Sequential

__all__ = ["Sequential"]
