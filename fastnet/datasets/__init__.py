"""Data sets as NumPy arrays: the embedded digits, MNIST from disk, and any IDX file.

Nothing here uses the network.
"""

from fastnet.datasets.digits import digits
from fastnet.datasets.idx import read_idx
from fastnet.datasets.mnist import mnist

__all__ = ["digits", "mnist", "read_idx"]
