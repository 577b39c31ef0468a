"""Plots with matplotlib (the extra `plot`), which loads with the first of them.

Each function returns matplotlib's figure. It belongs to nobody else: pyplot does not know it, no window
opens, and a notebook shows it. `figure.savefig("net.png")` writes it to a file. To draw in a window, give a
figure of pyplot's by `figure=`, and call `pyplot.show()`.
"""

from fastnet.plot.activations import activations
from fastnet.plot.confusion import confusion_matrix
from fastnet.plot.filters import weights
from fastnet.plot.landscape import landscape

__all__ = ["activations", "confusion_matrix", "landscape", "weights"]
