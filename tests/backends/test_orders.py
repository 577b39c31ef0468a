"""The orders of an epoch's rows, which backends make by their own means."""

from __future__ import annotations

import numpy as np
import pytest

from fastnet import random
from fastnet.backends import registry


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 24, 25, 63, 64, 65, 1000, 4097])
@pytest.mark.parametrize("seed", [0, 7, 2**64 - 1])
def test_orders_are_those_of_the_generator(monkeypatch, backend, rows, seed):
    engine = registry.get(backend)
    monkeypatch.setattr(random, "native", None)  # so that keys are NumPy's own
    for epoch in (0, 1, 2**32 - 1, 2**40):
        expected = [random.permutation(rows, seed, epoch + e) for e in range(3)]
        np.testing.assert_array_equal(engine.orders(rows, seed, epoch, 3), expected)


def test_orders_of_many_rows(monkeypatch, backend):
    """So many that keys agree in all bits that C sorts by at first."""
    rows = 5_000_000 if backend == "c" else 70_000
    found = registry.get(backend).orders(rows, 3, 1, 1)[0]
    monkeypatch.setattr(random, "native", None)
    np.testing.assert_array_equal(found, random.permutation(rows, 3, 1))
