"""The Numba backend: jitted kernels; one native call runs a whole chunk of training steps.

Importing this package does not import Numba; `load` does.
"""

from fastnet.backends.numba.backend import load

__all__ = ["load"]
