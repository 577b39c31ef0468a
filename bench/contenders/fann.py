"""FANN's incremental training: a step of gradient descent after each row, in C (Debian's libfann2).

FANN has no rectifier: its hidden neurons have LINEAR_PIECE, a line between two constants, its cheapest. It
keeps the order of the rows.
"""

from __future__ import annotations

import ctypes
from ctypes import CFUNCTYPE, POINTER, c_float, c_int, c_uint, c_void_p
from ctypes.util import find_library

from contenders.fits import Fit
from contenders.workloads import LR

INCREMENTAL, LINEAR, LINEAR_PIECE = 0, 0, 12  # of FANN's enumerations
Fill = CFUNCTYPE(None, c_uint, c_uint, c_uint, POINTER(c_float), POINTER(c_float))


def available() -> bool:
    """Whether the library is there, with single-precision numbers."""
    return find_library("fann") is not None


class Fann:
    """Epochs over the rows of a fit."""

    quantum = 1

    def __init__(self, fit: Fit) -> None:
        library = ctypes.CDLL(find_library("fann"))
        library.fann_create_standard_array.restype = c_void_p
        library.fann_create_train_from_callback.restype = c_void_p
        x, y = fit.data()
        widths = fit.workload.widths

        def fill(row: int, inputs: int, outputs: int, into: object, target: object) -> None:
            ctypes.memmove(into, x[row].ctypes.data, 4 * inputs)  # type: ignore[arg-type]
            ctypes.memmove(target, y[row].ctypes.data, 4 * outputs)  # type: ignore[arg-type]

        net = library.fann_create_standard_array(len(widths), (c_uint * len(widths))(*widths))
        self.net = c_void_p(net)
        library.fann_set_training_algorithm(self.net, c_int(INCREMENTAL))
        library.fann_set_learning_rate(self.net, c_float(LR))
        library.fann_set_activation_function_hidden(self.net, c_int(LINEAR_PIECE))
        library.fann_set_activation_function_output(self.net, c_int(LINEAR))
        self.rows = c_void_p(
            library.fann_create_train_from_callback(len(x), widths[0], widths[-1], Fill(fill))
        )
        self.epoch = library.fann_train_epoch
        self.epoch.restype = c_float

    def run(self, epochs: int) -> None:
        """Whole epochs, a call each."""
        for _ in range(epochs):
            self.epoch(self.net, self.rows)
