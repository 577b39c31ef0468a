"""Losses where they are not smooth and at the ends of the number line, for tests of backends and peers.

PyTorch's conventions, save where a row says otherwise.
"""

from __future__ import annotations

import math

import numpy as np

import fastnet as fn

LEAST = float(np.float32(1e-12))  # the denominator of BCELoss' gradient
HALF = math.log(2) * 2 - 2 + 0.5 * math.log(4 * math.pi)  # Stirling's ln 2!
COSH_1 = math.log(math.cosh(1)), math.tanh(1)
U, FAR = {"pos_weight": 3.0}, {"u": 2.0, "beta": 4.0}
RATE, Q = {"log_input": False}, {"quantile": 0.25}

# Loss, options, and of each element: y, target, loss, dl/dy.
ELEMENTS = [
    (fn.L1Loss, {}, 2.0, 2.0, 0.0, 0.0),
    (fn.L1Loss, {}, -0.0, 0.0, 0.0, 0.0),
    (fn.L1Loss, {}, 1e30, -1e30, 2e30, 1.0),
    (fn.HuberLoss, {"delta": 0.5}, 0.0, 0.0, 0.0, 0.0),
    (fn.HuberLoss, {"delta": 0.5}, 1.5, 1.0, 0.125, 0.5),
    (fn.HuberLoss, {"delta": 0.5}, 1.0, 1.5, 0.125, -0.5),
    (fn.HuberLoss, {"delta": 0.5}, 1e30, 0.0, 5e29, 0.5),
    (fn.HuberLoss, {"delta": 0.5}, -1e30, 0.0, 5e29, -0.5),
    (fn.SmoothL1Loss, {"beta": 0.5}, 0.0, 0.0, 0.0, 0.0),
    (fn.SmoothL1Loss, {"beta": 0.5}, 1.5, 1.0, 0.25, 1.0),
    (fn.SmoothL1Loss, {"beta": 0.5}, 1.0, 1.5, 0.25, -1.0),
    (fn.SmoothL1Loss, {"beta": 0.5}, -1e30, 0.0, 1e30, -1.0),
    (fn.SmoothL1Loss, {"beta": 0}, 2.0, 2.0, 0.0, 0.0),
    (fn.SmoothL1Loss, {"beta": 0}, 1e-30, 0.0, 1e-30, 1.0),
    (fn.SmoothL1Loss, {"beta": 0}, -1e-30, 0.0, 1e-30, -1.0),
    (fn.LogCoshLoss, {}, 0.0, 0.0, 0.0, 0.0),
    (fn.LogCoshLoss, {}, 1.0, 0.0, *COSH_1),  # where one form takes over from the other
    (fn.LogCoshLoss, {}, 1e30, 0.0, 1e30, 1.0),
    (fn.LogCoshLoss, {}, -1e30, 1e30, 2e30, -1.0),
    (fn.PinballLoss, Q, 2.0, 2.0, 0.0, 0.0),
    (fn.PinballLoss, Q, 2.0, 4.0, 0.5, -0.25),
    (fn.PinballLoss, Q, 4.0, 2.0, 1.5, 0.75),
    (fn.PinballLoss, Q, 1e30, -1e30, 1.5e30, 0.75),
    (fn.PinballLoss, Q, -1e30, 1e30, 5e29, -0.25),
    (fn.RBFLoss, {}, 3.0, 3.0, -1.0, 0.0),
    (fn.RBFLoss, FAR, 2e38, 0.0, 0.0, 0.0),
    (fn.RBFLoss, FAR, 1e30, -1e30, 0.0, 0.0),
    (fn.RBFLoss, {}, -3e38, 3e38, 0.0, 0.0),  # their difference is infinite in float32
    (fn.BCELoss, {}, 0.0, 0.0, 0.0, 0.0),
    (fn.BCELoss, {}, 1.0, 1.0, 0.0, 0.0),
    (fn.BCELoss, {}, 0.0, 1.0, 100.0, -1 / LEAST),
    (fn.BCELoss, {}, 1.0, 0.0, 100.0, 1 / LEAST),
    (fn.BCELoss, {}, 1.0, 0.5, 50.0, 0.5 / LEAST),
    (fn.BCEWithLogitsLoss, {}, 0.0, 0.5, math.log(2), 0.0),
    (fn.BCEWithLogitsLoss, {}, 1e30, 1.0, 0.0, 0.0),
    (fn.BCEWithLogitsLoss, {}, 1e30, 0.0, 1e30, 1.0),
    (fn.BCEWithLogitsLoss, {}, -1e30, 0.0, 0.0, 0.0),
    (fn.BCEWithLogitsLoss, {}, -1e30, 1.0, 1e30, -1.0),
    (fn.BCEWithLogitsLoss, U, 1e30, 1.0, 0.0, 0.0),
    (fn.BCEWithLogitsLoss, U, 1e30, 0.0, 1e30, 1.0),
    (fn.BCEWithLogitsLoss, U, -1e30, 0.0, 0.0, 0.0),
    (fn.BCEWithLogitsLoss, U, -1e30, 1.0, 3e30, -3.0),
    (fn.KLDivLoss, {}, -5.0, 0.0, 0.0, 0.0),
    (fn.KLDivLoss, {}, -1e30, 0.0, 0.0, 0.0),
    (fn.KLDivLoss, {}, -1e30, 1.0, 1e30, -1.0),
    (fn.KLDivLoss, {"log_target": True}, -2.0, -1e30, 0.0, 0.0),
    (fn.KLDivLoss, {"log_target": True}, -1e30, 0.0, 1e30, -1.0),
    (fn.PoissonNLLLoss, {}, -1e30, 0.0, 0.0, 0.0),
    (fn.PoissonNLLLoss, {}, -1e30, 2.0, 2e30, -2.0),
    *(  # ln t! is left out up to t = 1
        (fn.PoissonNLLLoss, {"full": True}, 0.0, t, 1.0 + (t > 1) * HALF, 1 - t)
        for t in (0.0, 1.0, 2.0)
    ),
    (fn.PoissonNLLLoss, RATE, 0.0, 0.0, 0.0, 1.0),
    (fn.PoissonNLLLoss, RATE, 0.0, 2.0, -2 * math.log(1e-8), 1 - 2 / 1e-8),
    (fn.PoissonNLLLoss, RATE, 1e30, 0.0, 1e30, 1.0),
    (fn.PoissonNLLLoss, {**RATE, "full": True, "eps": 0.5}, 0.5, 1.0, 0.5, 0.0),
]

S = {"label_smoothing": 0.5}
# Loss, options, the output at the label and the others; of C classes: a row's loss, dl/dy at the label
# and elsewhere.
CLASSES = [
    (fn.CrossEntropyLoss, {}, 0.0, 0.0, math.log, lambda c: 1 / c - 1, lambda c: 1 / c),
    (fn.CrossEntropyLoss, {}, 1e30, -1e30, lambda c: 0, lambda c: 0, lambda c: 0),
    (
        fn.CrossEntropyLoss,
        {},
        -1e30,
        1e30,
        lambda c: 2e30 * (c > 1),
        lambda c: -1.0 * (c > 1),
        lambda c: 1 / (c - 1),
    ),
    (
        fn.CrossEntropyLoss,
        S,
        1e30,
        -1e30,
        lambda c: 1e30 * (c - 1) / c,
        lambda c: 0.5 - 0.5 / c,
        lambda c: -0.5 / c,
    ),
    (fn.NLLLoss, {}, 0.0, -1e30, lambda c: 0, lambda c: -1, lambda c: 0),
    (fn.NLLLoss, {}, -1e30, 0.0, lambda c: 1e30, lambda c: -1, lambda c: 0),
    *(
        (fn.MultiMarginLoss, {"p": p}, a, b, loss, at_label, elsewhere)
        for p in (1, 2)
        for a, b, loss, at_label, elsewhere in [
            (0.5, -0.5, lambda c: 0, lambda c: 0, lambda c: 0),
            (1e30, -1e30, lambda c: 0, lambda c: 0, lambda c: 0),
            (3.0, 3.0, lambda c: 1 - 1 / c, lambda c, p=p: p / c - p, lambda c, p=p: p / c),
        ]
    ),
    (
        fn.MultiMarginLoss,
        {},
        -1e30,
        1e30,
        lambda c: 2e30 * (1 - 1 / c),
        lambda c: 1 / c - 1,
        lambda c: 1 / c,
    ),
    *(
        (fn.OneVsRestHingeLoss, {"p": p, "margin": 0.5}, a, b, loss, at_label, elsewhere)
        for p in (1, 2)
        for a, b, loss, at_label, elsewhere in [
            (0.5, -0.5, lambda c: 0, lambda c: 0, lambda c: 0),
            (1e30, -1e30, lambda c: 0, lambda c: 0, lambda c: 0),
            (0.0, 0.0, lambda c, p=p: c * 0.5**p, lambda c: -1, lambda c: 1),
        ]
    ),
    (fn.OneVsRestHingeLoss, {}, -1e30, 1e30, lambda c: c * 1e30, lambda c: -1, lambda c: 1),
]

LOW = {"eps": 0.25}
# Of GaussianNLLLoss: options, mean, variance, target; loss, its slopes in mean and variance.
GAUSSIANS = [
    *(
        (LOW, 1.0, variance, 0.0, 0.5 * (math.log(0.25) + 4), 4.0, -6.0)
        for variance in (0.25, 0.1, 0.0, -1.0)  # the slope is that at eps; PyTorch refuses -1
    ),
    (LOW, 3.0, 0.0, 3.0, 0.5 * math.log(0.25), 0.0, 2.0),
    ({}, 1.0, 0.0, 1.0, 0.5 * math.log(1e-6), 0.0, 5e5),
    ({}, 1.0, 1e30, 0.0, 0.5 * math.log(1e30), 1e-30, 5e-31),
]
