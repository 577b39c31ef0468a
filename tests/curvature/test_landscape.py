"""Slices of a loss."""

from __future__ import annotations

import numpy as np
import pytest

import fastnet as fn
from fastnet.errors import HyperparameterError, StateDictError, UsageError

LOSS = fn.CrossEntropyLoss()


def net(backend="reference", *layers, dtype="float64"):
    middle = layers or (fn.BatchNorm1d(7), fn.Tanh(), fn.Dropout(0.5))
    model = fn.Sequential(
        fn.Linear(5, 7), *middle, fn.Linear(7, 3), dtype=dtype, backend=backend, seed=3
    )
    model.forward(np.random.default_rng(1).normal(2, 3, size=(50, 5)))  # moves the statistics
    return model.eval()


def data(rows=40):
    rng = np.random.default_rng(0)
    return rng.normal(size=(rows, 5)), rng.integers(0, 3, rows), rng.uniform(0.2, 2, rows)


def evaluated(model, x, y, w=None, loss=LOSS):
    return fn.Trainer(model, loss).evaluate(x, y, sample_weight=w)["loss"]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_it_is_the_loss_of_evaluate_at_moved_parameters(backend, dtype, reduction):
    model, (x, y, w) = net(backend, dtype=dtype), data(rows=300)
    loss = fn.CrossEntropyLoss(weight=[1.0, 2.0, 0.5], reduction=reduction)
    start = model.state_dict()
    found = fn.curvature.landscape(model, loss, x, y, points=3, extent=0.5, sample_weight=w)
    np.testing.assert_array_equal(found.alpha, [-0.5, 0, 0.5])
    np.testing.assert_array_equal(found.beta, found.alpha)
    assert found.loss.shape == (3, 3) and len(found.directions) == 2
    assert found.loss[1, 1] == evaluated(model, x, y, w, loss)
    for i, j in ((0, 1), (2, 2), (1, 0)):
        with model.edit() as p:
            for name in found.directions[0]:
                step = found.alpha[i] * found.directions[0][name].astype(float)
                step += found.beta[j] * found.directions[1][name].astype(float)
                p[name][:] = start[name] + step
        close = 1e-12 if dtype == "float64" else 1e-5
        assert found.loss[i, j] == pytest.approx(evaluated(model, x, y, w, loss), rel=close)
        model.load_state_dict(start)


def test_filters_have_the_norms_of_the_models():
    model, (x, y, _) = net("reference", fn.LayerNorm(7), fn.PReLU()), data()
    found = fn.curvature.landscape(model, LOSS, x, y, points=2)
    parameters = model.named_parameters()
    one, two = found.directions
    assert list(one) == list(parameters)
    for name, p in parameters.items():
        for d in (one, two):
            assert d[name].shape == p.shape
            if p.ndim > 1:
                norms = [np.linalg.norm(a, axis=1) for a in (d[name], p)]
                np.testing.assert_allclose(*norms, rtol=1e-12)
            else:
                assert not d[name].any()
        assert p.ndim == 1 or not np.allclose(one[name], two[name])
    raw = fn.curvature.landscape(model, LOSS, x, y, points=2, normalize=False)
    assert all(d.any() for d in raw.directions[0].values())


def test_along_an_eigenvector_its_curvature_is_the_eigenvalue(backend):
    model, (x, y, w) = net(backend, fn.Tanh()), data()
    values, vectors = np.linalg.eigh(model.hessian(LOSS, x, y, sample_weight=w))
    parts, shapes = fn.curvature.slices(model), model.named_parameters()
    top = {n: vectors[part, -1].reshape(shapes[n].shape) for n, part in parts.items()}
    given = {"points": 3, "extent": 1e-3, "normalize": False, "sample_weight": w}
    found = fn.curvature.landscape(model, LOSS, x, y, directions=[top], **given)
    assert found.beta is None and found.loss.shape == (3,)
    bent = (found.loss[0] - 2 * found.loss[1] + found.loss[2]) / 1e-6
    assert bent == pytest.approx(values[-1], rel=1e-4)
    for name, d in found.directions[0].items():
        np.testing.assert_array_equal(d, top[name])


def test_in_training_mode_batch_statistics_are_of_all_rows(backend):
    model, (x, y, _) = net(backend, fn.BatchNorm1d(7), fn.Tanh()), data(rows=300)
    model.train()
    state = model.state_dict()
    found = fn.curvature.landscape(model, LOSS, x, y, directions=1, points=3)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, state[name])
    assert found.loss[1] == pytest.approx(model.value_and_grad(LOSS, x, y), rel=1e-12)
    ends = fn.curvature.landscape(model.eval(), LOSS, x, y, directions=1, points=3)
    assert ends.loss[1] != pytest.approx(found.loss[1], rel=1e-6)


def test_frozen_parameters_do_not_move(backend):
    model, (x, y, _) = net(backend), data()
    model.freeze("0.*", "1.*")
    found = fn.curvature.landscape(model, LOSS, x, y, directions=1, points=3)
    assert list(found.directions[0]) == ["4.weight", "4.bias"]
    with pytest.raises(UsageError, match=r"no trainable parameters.*model\.unfreeze"):
        fn.curvature.landscape(model.freeze(), LOSS, x, y)


def test_a_seed_repeats_it_and_others_differ():
    model, (x, y, _) = net(), data()
    of = {s: fn.curvature.landscape(model, LOSS, x, y, points=3, seed=s).loss for s in (0, 1)}
    again = fn.curvature.landscape(model, LOSS, x, y, points=3).loss
    np.testing.assert_array_equal(again, of[0])
    assert (of[0] != of[1]).sum() == 8  # all but the centre


def test_losses_that_overflow_are_shown_as_such(backend):
    model, (x, y, _) = net(backend, fn.ReLU(), dtype="float32"), data()
    loss, y = fn.MSELoss(), np.eye(3)[y]
    found = fn.curvature.landscape(model, loss, x, y, directions=1, points=3, extent=1e25)
    assert np.isfinite(found.loss[1]) and not np.isfinite(found.loss[[0, 2]]).any()
    assert repr(found).startswith("<Landscape of 3 losses, from ")


class Interrupted(Exception):
    """Stands for what a signal raises."""


@pytest.mark.parametrize("error", [KeyboardInterrupt, Interrupted])
def test_nothing_changes_after_an_error_either(backend, error, monkeypatch):
    model, (x, y, _) = net(backend, fn.BatchNorm1d(7)), data()
    model.value_and_grad(LOSS, x, y)
    model.train()
    state, version = model.state_dict(), model.version
    gradients = {name: g.copy() for name, g in model.grads.items()}
    fn.curvature.landscape(model, LOSS, x, y, points=3)
    from fastnet.curvature import slice as room

    calls, run = [], room._Moved.loss

    def fails(self, *given):
        calls.append(1)
        if len(calls) == 4:
            raise error
        return run(self, *given)

    monkeypatch.setattr(room._Moved, "loss", fails)
    with pytest.raises(error):
        fn.curvature.landscape(model, LOSS, x, y, points=3)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, state[name])
    for name, g in model.grads.items():
        np.testing.assert_array_equal(g, gradients[name])
    assert model.version == version and model.training
    model.value_and_grad(LOSS, x, y)  # the lock is free


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"points": 1}, "^points is 1; expected an integer ≥ 2"),
        ({"extent": 0}, "^extent is 0; expected a finite number in"),
        (
            {"directions": 3},
            "^directions is 3; expected 1 or 2, or a list of one or two directions",
        ),
        ({"directions": []}, r"^directions is \[\]; expected 1 or 2"),
        ({"directions": "random"}, "^directions is 'random'; expected 1 or 2"),
        ({"directions": {"0.weight": 1}}, "^directions is .*; expected 1 or 2"),
        ({"normalize": "filter"}, "^normalize is 'filter'; expected True or False"),
        ({"seed": 0.5}, "^seed is 0.5"),
        ({"model": None}, "^model is None; expected a Sequential"),
    ],
)
def test_bad_arguments(given, message):
    x, y, _ = data()
    with pytest.raises(HyperparameterError, match=message):
        fn.curvature.landscape(**{"model": net(), "loss": LOSS, "X": x, "y": y, **given})


def test_bad_directions_and_losses():
    model, (x, y, _) = net("reference", fn.Tanh()), data()
    good = {name: np.ones(p.shape) for name, p in model.named_parameters().items()}
    for bad in ({"0.weight": good["0.weight"]}, {**good, "2.bias": np.ones(4)}, 3):
        with pytest.raises(StateDictError, match=r"directions\[1\]"):
            fn.curvature.landscape(model, LOSS, x, y, directions=[good, bad])
    flat = {n: np.zeros(v.shape) if v.ndim > 1 else v for n, v in good.items()}
    with pytest.raises(UsageError, match=r"nothing of the directions is left.*normalize=False"):
        fn.curvature.landscape(model, LOSS, x, y, directions=[flat])
    with pytest.raises(UsageError, match=r"which Python computes; expected a loss of fastnet's"):
        fn.curvature.landscape(model, lambda output, y: (0.0, output), x, y)
