"""The Numba backend: the kernels as jitted loops, a whole chunk of training steps in one native call.

Importing this package imports no Numba; `NumbaBackend` does so when it is first asked for work.
"""

from fastnet.backends.numba.backend import NumbaBackend

__all__ = ["NumbaBackend"]
