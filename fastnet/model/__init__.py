"""Models: Sequential, and the plans by which a backend runs it."""

from fastnet.model.ensemble import Ensemble
from fastnet.model.saved import load
from fastnet.model.sequential import Sequential

__all__ = ["Ensemble", "Sequential", "load"]
