"""Dropout of rows that are part of a larger minibatch: the masks are those of the whole."""

import numpy as np
import pytest

from fastnet import Dropout, Linear, Sequential, random
from fastnet.layers import AlphaDropout, ReLU


def test_words_of_rows_are_those_of_the_whole():
    whole = random.words(40 * 7, 3, 5, 11).reshape(40, 7)
    for place, rows in ((0, 40), (1, 3), (9, 31), (13, 1), (39, 1)):
        step = random.at_place(11, place)
        part = random.words_of_rows((rows, 7), 3, 5, step)
        np.testing.assert_array_equal(part, whole[place : place + rows])


LAYERS = {
    "dropout": lambda: (Dropout(0.4),),
    "after relu": lambda: (ReLU(), Dropout(0.4)),
    "alpha": lambda: (AlphaDropout(0.3),),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("width", [1, 7, 33, 64])
@pytest.mark.parametrize("on", ["c", "numba", "reference"])
def test_rows_at_a_place_have_the_masks_of_the_whole(on, name, width):
    model = Sequential(Linear(3, width), *LAYERS[name](), seed=0, backend=on, dtype="float64")
    x = np.random.default_rng(0).normal(size=(61, 3))
    executor = model._runtime.executor((3,), 61, (True,) * len(model.layers))
    whole = executor.forward(x, 7, 5).copy()
    for begin, end in ((0, 61), (1, 2), (5, 61), (16, 40), (32, 61)):
        part = executor.forward(x[begin:end], 7, random.at_place(5, begin))
        np.testing.assert_allclose(part, whole[begin:end], rtol=1e-12)
