"""What the curvature of a loss tells: its Hessian's eigenvalues and trace, and slices of the loss.

Each function takes a model, a loss and data as `Sequential.hvp` does. Layers act in their own modes, the
loss is that of all rows, and the model stays as it is, after an error or Ctrl-C too.
"""

from fastnet.curvature.eigen import Eigen, eigenvalues
from fastnet.curvature.slice import Landscape, landscape
from fastnet.curvature.trace import Trace, hutchinson_trace
from fastnet.curvature.vectors import slices

__all__ = [
    "Eigen",
    "Landscape",
    "Trace",
    "eigenvalues",
    "hutchinson_trace",
    "landscape",
    "slices",
]
