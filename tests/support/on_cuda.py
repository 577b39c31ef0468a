"""Marks of tests that run on the CUDA backend alone, on a device or in Numba's simulator."""

import pytest

import fastnet as fn

MARKS = [
    pytest.mark.contract,
    pytest.mark.skipif(
        not fn.backends()["cuda"].available, reason="needs a device or the simulator"
    ),
]
