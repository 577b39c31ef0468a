"""The CUDA backend: kernels on grids of GPU threads, compiled by numba-cuda.

Importing this package imports neither Numba nor CUDA; `load` does.
"""

from fastnet.backends.cuda.backend import load

__all__ = ["load"]
