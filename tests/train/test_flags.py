"""Flags of fits, callbacks, optimizers and schedules are True or False, or refused."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refused

import fastnet as fn
from fastnet.errors import HyperparameterError

X, Y = np.eye(12, 3), np.arange(12) % 2


def trainer():
    return fn.Trainer(fn.Sequential(fn.Linear(3, 2), seed=1), fn.CrossEntropyLoss(), seed=2)


def fit(**given):
    return trainer().fit(X, Y, validation_data=(X, Y), verbose=0, **given)


@pytest.mark.parametrize("bad", ["no", 1, None, np.array([True])], ids=repr)
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (fit, "shuffle"),
        (fit, "drop_last"),
        (fit, "restore_best"),
        (lambda **given: trainer().find_lr(X, Y, 4, steps=2, **given), "drop_last"),
        (lambda **given: trainer().fit_full_batch(X, Y, **given), "decay_biases_and_norms"),
        (fn.EarlyStopping, "restore_best_weights"),
        (fn.Record, "activations"),
        (fn.Record, "gradients"),
        (fn.Adam, "amsgrad"),
        (fn.AdamW, "amsgrad"),
        (fn.RMSprop, "centered"),
        (fn.SGD, "nesterov"),
        (fn.SGD, "l1_proximal"),
        (fn.Lion, "decay_biases_and_norms"),
        (lambda **given: fn.schedules.OneCycleLR(0.1, 9, **given), "three_phase"),
        (lambda **given: fn.schedules.OneCycleMomentum(9, **given), "three_phase"),
    ],
)
def test_every_flag_is_a_flag(make, name, bad):
    message = rf"^{name} is .*; expected True or False$"
    refused(lambda: make(**{name: bad}), HyperparameterError, message)


@pytest.mark.parametrize("name", ["amsgrad", "l1_proximal", "decoupled_weight_decay"])
def test_a_flag_that_is_assigned_is_checked_too(name):
    optimizer = fn.Adam()
    message = rf"^{name} is 'no'; expected True or False$"
    refused(lambda: setattr(optimizer, name, "no"), HyperparameterError, message)
    assert getattr(optimizer, name) is False
