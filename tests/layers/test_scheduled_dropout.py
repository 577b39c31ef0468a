"""Dropout by a schedule: masks, and the same bits however steps are run."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from refusals import refused

import fastnet as fn
from fastnet import random
from fastnet.errors import HyperparameterError

S = fn.schedules
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(40, 6)).astype("f"), RNG.normal(size=(40, 2)).astype("f")
FALLING = S.FlatCosLR(0.6, 30)


def net(p, backend, **more):
    layers = (
        fn.Linear(6, 20),
        fn.Tanh(),
        fn.Dropout(p),
        fn.Linear(20, 12),
        fn.Dropout(0.5 * FALLING),
    )
    return fn.Sequential(*layers, fn.Linear(12, 2), backend=backend, seed=3, **more)


def fitted(backend, chunks=(3,), **more):
    trainer = fn.Trainer(net(FALLING, backend), fn.MSELoss(), fn.Adam(0.01), seed=5)
    for epochs in chunks:
        trainer.fit(X, Y, epochs, 8, verbose=0, **more)
    return trainer


def same(a, b):
    for one, other in zip(a.state_dict().values(), b.state_dict().values(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_mask_of_each_step_has_its_own_share(backend):
    p = S.LambdaLR(1.0, lambda t: [0.0, 0.25, 0.5, 1.0, 0.75][t])
    model = fn.Sequential(fn.Identity(), fn.Dropout(p), dtype="float64", backend=backend, seed=7)
    x = RNG.normal(size=(30, 50))
    dy = RNG.normal(size=x.shape)
    for step, share in enumerate([0.0, 0.25, 0.5, 1.0, 0.75]):
        words = random.words(x.size, 7, random.stream_of(random.DROPOUT, 1), step).reshape(x.shape)
        kept = (words >= share * 2**32) / (1 - share if share < 1 else np.inf)
        np.testing.assert_allclose(model.forward(x), x * kept, rtol=1e-15)
        np.testing.assert_allclose(model.backward(dy), dy * kept, rtol=1e-15)
    np.testing.assert_array_equal(model.predict(x), x)


def test_a_constant_schedule_is_a_number(backend):
    one, other = (net(p, backend) for p in (0.4, S.ConstantLR(0.4, 1.0)))
    for model in (one, other):
        fn.Trainer(model, fn.MSELoss(), seed=1).fit(X, Y, 2, 8, verbose=0)
    same(one, other)


def test_a_lone_layer_counts_its_own_forwards():
    layer = fn.Dropout(S.LambdaLR(1.0, lambda t: float(t > 0)))
    np.testing.assert_array_equal(layer.forward(X), X)
    assert not layer.forward(X).any() and not layer.backward(X).any()


def test_chunks_change_no_bit(backend):
    whole = fitted(backend)
    same(whole.model, fitted(backend, (1, 1, 1)).model)
    called = fitted(backend, callbacks=[fn.Callback()])
    same(whole.model, called.model)
    assert whole.history.records[-1]["loss"] == called.history.records[-1]["loss"]


def test_a_copied_trainer_goes_on(backend):
    trainer = fitted(backend, (1,))
    other = copy.deepcopy(trainer)
    for one in (trainer, other):
        one.fit(X, Y, 2, 8, verbose=0)
    same(trainer.model, other.model)
    same(trainer.model, fitted(backend).model)


def test_train_on_batch_equals_fit(backend):
    trainer = fn.Trainer(net(FALLING, backend), fn.MSELoss(), fn.Adam(0.01), seed=5)
    for _ in range(3):
        for begin in range(0, 40, 8):
            trainer.train_on_batch(X[begin : begin + 8], Y[begin : begin + 8])
    same(trainer.model, fitted(backend, shuffle=False).model)


def test_a_loop_of_ones_own_equals_fit(backend):
    """Where the model's seed is the trainer's, and its counter of forwards the trainer's steps."""
    model, loss, optimizer = net(FALLING, backend), fn.MSELoss(), fn.Adam(0.01)
    for _ in range(3):
        for begin in range(0, 40, 8):
            model.value_and_grad(loss, X[begin : begin + 8], Y[begin : begin + 8])
            optimizer.step(model)
    other = net(FALLING, backend)
    fn.Trainer(other, loss, fn.Adam(0.01), seed=3).fit(X, Y, 3, 8, shuffle=False, verbose=0)
    same(model, other)


def test_a_forward_and_a_backward_are_a_step(backend):
    one, other = net(FALLING, backend, dtype="float64"), net(FALLING, backend, dtype="float64")
    for _ in range(3):
        output = one.forward(X)
        one.zero_grad()
        one.backward((output - Y) * 2 / Y.size)
        other.value_and_grad(fn.MSELoss(), X, Y)
        for name, grad in one.grads.items():
            np.testing.assert_allclose(grad, other.grads[name], rtol=1e-9, atol=1e-12)


def test_many_nets(backend):
    trainers = [
        fn.Trainer(net(p, backend), fn.MSELoss(), fn.Adam(0.01), seed=s)
        for s, p in enumerate((FALLING, S.FlatCosLR(0.3, 9)))
    ]
    alone = copy.deepcopy(trainers)
    fn.fit_many(trainers, X, Y, epochs=3, batch_size=8, verbose=0)
    for one, other in zip(trainers, alone, strict=True):
        other.fit(X, Y, 3, 8, verbose=0)
        same(one.model, other.model)


def test_validation_within_a_call(backend):
    """It does not depend on the schedule."""
    trainer = fitted(backend, validation_data=(X, Y), restore_best=True)
    losses = [record["val_loss"] for record in trainer.history.records]
    assert trainer.evaluate(X, Y)["loss"] == pytest.approx(min(losses), rel=1e-6)


def test_bits_do_not_depend_on_the_backend():
    found = [fitted(b).model for b in ("reference", "numba", "c") if fn.backends()[b].available]
    for model in found[1:]:
        for one, other in zip(
            found[0].state_dict().values(), model.state_dict().values(), strict=True
        ):
            np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-6)


def test_a_share_outside_is_refused_when_it_comes(backend):
    refused(
        lambda: fn.Dropout(S.LambdaLR(1.0, lambda t: 1.5)),
        HyperparameterError,
        r"^p at step 0 is 1\.5; expected a finite number in \[0, 1\]$",
    )
    model = fn.Sequential(
        fn.Linear(6, 2), fn.Dropout(S.LambdaLR(1.0, lambda t: 0.4 * t)), backend=backend
    )
    trainer = fn.Trainer(model, fn.MSELoss(), seed=1)
    refused(
        lambda: trainer.fit(X, Y, 1, 4, verbose=0),
        HyperparameterError,
        r"^p at step \d+ is \d+\.\d+; expected a finite number in \[0, 1\]$",
    )


def test_it_is_part_of_files(tmp_path, backend):
    trainer = fitted(backend, (1,))
    trainer.save(tmp_path / "run")
    other = fn.Trainer.load(tmp_path / "run")
    other.model.to(backend)
    for one in (trainer, other):
        one.fit(X, Y, 1, 8, verbose=0)
    same(trainer.model, other.model)
    assert other.model[2].p == FALLING
