"""What initialisers are for: the variance of activations and gradients through twenty layers.

Each row holds what the theory foretells for the last activations and for the first gradients, relative
to what came in: 1 for the pairs that belong together, the power of the missing factor for others.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

import fastnet as fn
from fastnet import init

DEPTH, WIDTH, ROWS, SEEDS = 20, 200, 64, range(4)
LEVEL = [WIDTH] * (DEPTH + 1)
TAPER = [round(4 * WIDTH * 16 ** (-k / DEPTH)) for k in range(DEPTH + 1)]  # to a sixteenth


# E f′(z)² of SELU for z ~ N(0, 1): λ²(½ + α²·e²·Φ(−2)).
SELU = 1.0507009873554805**2 * (0.5 + (1.6732632423543772 * math.e) ** 2 * math.erfc(2**0.5) / 2)


def leaky():
    return fn.LeakyReLU(0.5)


PAIRS = [  # initialiser, activation, widths, forward, backward
    (init.LecunUniform(), None, LEVEL, 1, 1),
    (init.LecunNormal(), None, LEVEL, 1, 1),
    (init.GlorotUniform(), None, LEVEL, 1, 1),
    (init.GlorotNormal(), None, LEVEL, 1, 1),
    (init.KaimingUniform(), fn.ReLU, LEVEL, 1, 1),
    (init.KaimingNormal(), fn.ReLU, LEVEL, 1, 1),
    (init.KaimingNormal(nonlinearity="relu"), fn.ReLU, LEVEL, 1, 1),
    (init.KaimingNormal(a=0.5), leaky, LEVEL, 1, 1),
    (init.KaimingNormal(a=0.25), fn.PReLU, LEVEL, 1, 1),
    (init.LecunNormal(), fn.SELU, LEVEL, 1, SELU**DEPTH),
    (init.Orthogonal(), None, LEVEL, 1, 1),
    (init.Orthogonal(nonlinearity="relu"), fn.ReLU, LEVEL, 1, 1),
    # One mode keeps activations, the other gradients; the other way they follow the widths.
    (init.KaimingNormal(mode="fan_in"), fn.ReLU, TAPER, 1, 1 / 16),
    (init.KaimingNormal(mode="fan_out"), fn.ReLU, TAPER, 16, 1),
    (init.LecunNormal(), None, TAPER, 1, 1 / 16),
    (init.GlorotNormal(), None, TAPER, 4, 1 / 4),  # the mean of both
    # Pairs that do not belong together.
    (init.KaimingNormal(), None, LEVEL, 2.0**DEPTH, 2.0**DEPTH),
    (init.GlorotNormal(), fn.ReLU, LEVEL, 2.0**-DEPTH, 2.0**-DEPTH),
    (init.Orthogonal(), fn.ReLU, LEVEL, 2.0**-DEPTH, 2.0**-DEPTH),
    (init.KaimingNormal(), leaky, LEVEL, 1.25**DEPTH, 1.25**DEPTH),
    (init.KaimingNormal(), fn.PReLU, LEVEL, 1.0625**DEPTH, 1.0625**DEPTH),
    (init.KaimingNormal(a=5**0.5), fn.ReLU, LEVEL, 6.0**-DEPTH, 6.0**-DEPTH),  # PyTorch's default
]


def deep(initializer, activation, widths, seed):
    layers = []
    for inputs, outputs in pairwise(widths):
        layers.append(fn.Linear(inputs, outputs, bias=False, weight_init=initializer))
        layers += [activation()] if activation else []
    return fn.Sequential(*layers, seed=seed, dtype="float64", backend="reference")


def gains(initializer, activation, widths, size=1.0):
    """E y²/E x² and E dx²/E dy², the means over a few nets."""
    found = []
    for seed in SEEDS:
        random = np.random.default_rng(seed)
        model = deep(initializer, activation, widths, seed)
        x = size * random.normal(size=(ROWS, widths[0]))
        y = model.forward(x)
        dy = random.normal(size=y.shape)
        dx = model.backward(dy)
        found.append([(y**2).mean() / (x**2).mean(), (dx**2).mean() / (dy**2).mean()])
    return np.mean(found, axis=0)


def ident(value):
    return repr(value) if isinstance(value, init.Initializer) else getattr(value, "__name__", "")


@pytest.mark.parametrize(
    ("initializer", "activation", "widths", "forward", "backward"), PAIRS, ids=ident
)
def test_through_twenty_layers(initializer, activation, widths, forward, backward):
    """Within a factor of 1.5; what does not belong together is off by 3 and more."""
    got = gains(initializer, activation, widths) / np.array([forward, backward])
    assert np.all((got > 1 / 1.5) & (got < 1.5)), got


def test_orthogonal_weights_keep_every_length():
    """Of each row, not of the average alone."""
    model = deep(init.Orthogonal(), None, LEVEL, 0)
    x = np.random.default_rng(0).normal(size=(9, WIDTH))
    lengths = [np.linalg.norm(a, axis=1) for a in (x, model.forward(x), model.backward(x))]
    np.testing.assert_allclose(lengths[1:], [lengths[0]] * 2, rtol=1e-12)


def test_tanh():
    """Near 0 it is the identity, which Glorot's serve; the gain of 5/3 holds larger signals up."""
    small = gains(init.GlorotUniform(), fn.Tanh, LEVEL, size=1e-3)
    assert np.all((small > 0.5) & (small < 2))
    assert np.all(gains(init.KaimingUniform(), fn.Tanh, LEVEL, size=1e-3) > 1e4)
    x = np.random.default_rng(0).normal(size=(ROWS, WIDTH))
    kept, lost = (
        [(deep(make, fn.Tanh, LEVEL[:depth], 0).forward(x) ** 2).mean() for depth in (8, 15, 21)]
        for make in (init.GlorotUniform(nonlinearity="tanh"), init.GlorotUniform())
    )
    assert max(kept) < 1.1 * min(kept)
    assert lost[0] > 1.5 * lost[1] > 2 * lost[2]


def test_sigmoids_with_four_times_glorots_weights_are_tanh_with_glorots():
    """σ(z) = (1 + tanh(z/2))/2, so that biases which absorb the 1/2 leave the same function."""
    x = np.random.default_rng(0).normal(size=(ROWS, WIDTH))
    tanh = deep(init.GlorotUniform(), fn.Tanh, LEVEL[:8], 5)
    layers = [
        fn.Linear(WIDTH, WIDTH, weight_init=init.GlorotUniform(gain=4), bias_init=init.Zeros())
        for _ in LEVEL[1:8]
    ]
    both = [layer for one in layers for layer in (one, fn.Sigmoid())]
    sigmoid = fn.Sequential(*both, seed=5, dtype="float64", backend="reference")
    with sigmoid.edit() as values:
        for name, bias in values.items():
            if name.endswith("bias"):
                bias[...] = -values[name.replace("bias", "weight")].sum(axis=1) / 2
    got = 2 * sigmoid.forward((1 + x) / 2) - 1
    np.testing.assert_allclose(got, tanh.forward(x), rtol=0, atol=1e-12)
