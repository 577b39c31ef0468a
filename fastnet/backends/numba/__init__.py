"""The Numba backend: the kernels as jitted loops, a whole chunk of training steps in one native call.

Importing this package imports no Numba; `load` does.
"""

from fastnet.backends.numba.backend import load

__all__ = ["load"]
