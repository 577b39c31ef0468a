"""Models: Sequential, and the plans by which a backend runs it."""

from typing import TYPE_CHECKING

from fastnet.late import late_names

if TYPE_CHECKING:
    from fastnet.model.ensemble import Ensemble
    from fastnet.model.saved import load
    from fastnet.model.sequential import Sequential

__all__ = ["Ensemble", "Sequential", "load"]

__getattr__, __dir__ = late_names(__name__, __all__)
