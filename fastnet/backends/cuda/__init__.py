"""The CUDA backend: the kernels as grids of GPU threads, compiled by numba-cuda.

Importing this package imports neither Numba nor CUDA; `CudaBackend` does so when it is first asked.
"""

from fastnet.backends.cuda.backend import CudaBackend

__all__ = ["CudaBackend"]
