"""The kernels, one family of ops a file, each with the function that launches it."""

from fastnet.backends.cuda.kernels import formulas, sums
from fastnet.backends.cuda.kernels.registry import LAUNCHERS

__all__ = ["LAUNCHERS", "formulas", "sums"]
