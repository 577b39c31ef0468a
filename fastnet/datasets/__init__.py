"""Data sets as NumPy arrays: the embedded digits, MNIST and California housing from disk, any IDX file.

Nothing here uses the network. Small sets, such as diabetes or iris, come with scikit-learn; what
`load_diabetes(return_X_y=True)` returns is as `Trainer.fit` takes it.
"""

from fastnet.datasets.california import california_housing
from fastnet.datasets.digits import digits
from fastnet.datasets.idx import read_idx
from fastnet.datasets.mnist import mnist

__all__ = ["california_housing", "digits", "mnist", "read_idx"]
