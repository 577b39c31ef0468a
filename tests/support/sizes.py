"""Rows and dims that kernels are tried at. Updates have no rows."""

from __future__ import annotations

from itertools import product

from fastnet.op import Kernel

DIMS = (1, 2, 7, 16, 31, 33, 67, 130)
PAIRS = ((1, 1), (1, 33), (33, 1), (2, 7), (7, 2), (31, 67), (67, 31), (130, 16))
ROWS = (0, 1, 2, 3, 17, 33)


def small(kernel: Kernel) -> list[tuple[int, tuple[int, ...]]]:
    """A few, for the contract: also no rows, and more than a block of threads takes in Numba's simulator
    of CUDA."""
    some = [(2, (2, 3)), (5, (3, 1)), (3, (7, 5))]
    return some if kernel.phase == "update" else [*some, (0, (1, 3)), (19, (1, 3))]


def awkward(kernel: Kernel) -> list[tuple[int, tuple[int, ...]]]:
    """Those around what vectors, tiles and blocks take."""
    dims = {0: [()], 1: [(d,) for d in DIMS], 2: PAIRS}[min(2, len(kernel.op.dims))]
    return list(product((1,) if kernel.phase == "update" else ROWS, dims))
