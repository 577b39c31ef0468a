"""Models: Sequential, and the plans by which a backend runs it."""

from fastnet.model.sequential import Sequential

__all__ = ["Sequential"]
