"""What a trainer adds to its optimizer's steps: clipping, accumulation, averages."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
from refusals import NOT_INTEGERS, refused

import fastnet as fn
from fastnet.errors import DivergenceError, HyperparameterError, UsageError
from fastnet.schedules import Schedule
from fastnet.train import scores

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(43, 3)), RNG.normal(size=(43, 2))
LOSS = fn.MSELoss()
BUFFERS = "1.running_mean", "1.running_var", "1.num_batches_tracked"


def net(backend="auto", dtype="float64", norm=True):
    layers = fn.Linear(3, 6), *([fn.BatchNorm1d(6)] if norm else []), fn.Tanh(), fn.Linear(6, 2)
    return fn.Sequential(*layers, dtype=dtype, backend=backend, seed=1)


def trainer(model, optimizer=None, **options):
    return fn.Trainer(model, LOSS, optimizer or fn.SGD(0.5, 0.9), seed=5, **options)


def bits(model):
    return {name: value.tobytes() for name, value in model.state_dict().items()}


def by_hand(model, optimizer, epochs=2, batch_size=5, change=None, after=None, several=1):
    """The same fit as a loop of one's own."""
    for epoch in range(epochs):
        minibatches = list(fn.batches(X, Y, batch_size=batch_size, seed=5, epoch=epoch))
        for i in range(0, len(minibatches), several):
            together = minibatches[i : i + several]
            total, rows = {}, sum(len(x) for x, _ in together)
            for x, y in together:
                model.value_and_grad(LOSS, x, y)
                for name, g in model.grads.items():
                    total[name] = total.get(name, 0.0) + g * (len(x) / rows)
            if several > 1:
                for name, p in model._named().items():
                    if p.trainable:
                        p.shown(p.grad)[...] = total[name]
                model.touch()
            if change:
                change(model)
            optimizer.step(model)
            if after:
                after(model)


CLIPPING = {
    "value": ({"clip_value": 0.01}, lambda m: fn.clip_grad_value_(m, 0.01)),
    "norm": ({"clip_norm": 0.1}, lambda m: fn.clip_grad_norm_(m, 0.1)),
    "norm that is not reached": ({"clip_norm": 1e6}, lambda m: fn.clip_grad_norm_(m, 1e6)),
    "both": (
        {"clip_value": 0.05, "clip_norm": 0.1},
        lambda m: (fn.clip_grad_value_(m, 0.05), fn.clip_grad_norm_(m, 0.1)),
    ),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CLIPPING)
def test_clipping_is_that_of_a_loop_by_hand(backend, case, dtype):
    options, change = CLIPPING[case]
    one, two, plain = (net(backend, dtype) for _ in range(3))
    trainer(one, **options).fit(X, Y, 2, 5, verbose=0)
    by_hand(two, fn.SGD(0.5, 0.9), change=change)
    trainer(plain).fit(X, Y, 2, 5, verbose=0)
    assert bits(one) == bits(two)
    assert (bits(one) == bits(plain)) == (case == "norm that is not reached")


def test_the_norm_is_that_of_all_gradients(backend):
    model = net(backend)
    model.value_and_grad(LOSS, X, Y)
    before = {name: g.copy() for name, g in model.grads.items()}
    norm = math.sqrt(sum((g**2).sum() for g in before.values()))
    assert model.grad_norm() == pytest.approx(norm, rel=1e-14)
    assert fn.clip_grad_norm_(model, 2 * norm) == pytest.approx(norm, rel=1e-14)
    for name, g in before.items():
        np.testing.assert_array_equal(model.grads[name], g)
    assert fn.clip_grad_norm_(model, norm / 3) == pytest.approx(norm, rel=1e-14)
    assert model.grad_norm() == pytest.approx(norm / 3, rel=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_norm_that_is_not_finite(backend, bad):
    model = net(backend, "float32")
    model.value_and_grad(LOSS, X, Y)
    model._named()["0.weight"].grad[1, 2] = bad
    model.touch()
    before = {name: g.copy() for name, g in model.grads.items()}
    with pytest.raises(DivergenceError, match=f"norm of the gradients is {bad}"):
        fn.clip_grad_norm_(model, 0.1, error_if_nonfinite=True)
    for name, g in before.items():
        np.testing.assert_array_equal(model.grads[name], g)
    assert not math.isfinite(fn.clip_grad_norm_(model, 0.1))
    assert np.isnan(model.grads["0.weight"]).sum() == (1 if np.isinf(bad) else 18)


def test_norms_beyond_float32(backend):
    """Squares are summed in float64."""
    model = net(backend, "float32")
    for p in model._named().values():
        if p.trainable:
            p.grad[...] = 3e30
    count = sum(p.size for p in model.parameters())
    norm = fn.clip_grad_norm_(model, 1.0, error_if_nonfinite=True)
    assert norm == pytest.approx(3e30 * count**0.5, rel=1e-6)
    assert model.grad_norm() == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize("several", [1, 2])
def test_a_step_whose_norm_is_not_finite_is_not_applied(backend, several):
    """The loss is finite, its gradient with respect to the first weights overflows."""
    model = net(backend, "float32")
    with model.edit() as values:
        values["0.weight"][...] *= 1e-12
        values["3.weight"][...] *= 1e15
    fit = trainer(model, clip_norm=1.0)
    before = bits(model)
    message = r"the norm of the gradients of step \d is (inf|nan); its update was not applied"
    with pytest.raises(DivergenceError, match=message):
        fit.fit(X * 1e12, Y, 1, 22, accumulation_steps=several, verbose=0)
    after = bits(model)
    kept = [name for name in before if several == 1 or name not in BUFFERS]
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert fit.step == several - 1 and fit.optimizer.state(model).steps == 0
    assert int(model.state_dict()["1.num_batches_tracked"]) == several - 1


@pytest.mark.parametrize("several", [2, 3, 4, 100])
@pytest.mark.parametrize("optimizer", [fn.SGD(0.1, 0.9), fn.Adam(0.01)], ids=repr)
def test_accumulation_is_a_larger_minibatch(backend, optimizer, several):
    """43 rows in minibatches of 5: the last group is smaller, and so is its last minibatch."""
    one, two = net(backend, norm=False), net(backend, norm=False)
    small = trainer(one, copy.deepcopy(optimizer))
    large = trainer(two, copy.deepcopy(optimizer))
    small.fit(X, Y, 3, 5, accumulation_steps=several, verbose=0)
    large.fit(X, Y, 3, 5 * several, verbose=0)
    assert small.optimizer.state(one).steps == large.optimizer.state(two).steps
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    losses = [t.history.records[-1]["loss"] for t in (small, large)]
    assert abs(losses[0] - losses[1]) < 0.1 * losses[0]


def test_accumulation_is_that_of_a_loop_by_hand(backend):
    """With batchnorm, whose statistics are each minibatch's, and clipping of the mean."""
    one, two = net(backend), net(backend)
    trainer(one, clip_norm=0.1).fit(X, Y, 2, 5, accumulation_steps=3, verbose=0)
    by_hand(two, fn.SGD(0.5, 0.9), several=3, change=lambda m: fn.clip_grad_norm_(m, 0.1))
    for name, value in one.state_dict().items():
        np.testing.assert_allclose(value, two.state_dict()[name], rtol=1e-11, atol=1e-13)


class Ramp(Schedule):
    """base + slope·t."""

    def __init__(self, base, slope):
        super().__init__(base=base, slope=slope)

    def values(self, t):
        return self.base + self.slope * t


def test_schedules_count_updates(backend):
    one, two = net(backend, norm=False), net(backend, norm=False)
    trainer(one, fn.SGD(Ramp(0.5, -0.01))).fit(X, Y, 3, 5, accumulation_steps=4, verbose=0)
    trainer(two, fn.SGD(Ramp(0.5, -0.01))).fit(X, Y, 3, 20, verbose=0)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


EVERYTHING = {"clip_value": 0.3, "clip_norm": 0.2, "averaging": fn.EMA(0.8)}


@pytest.mark.parametrize("averaging", [fn.EMA(0.8), fn.SWA(2)], ids=repr)
def test_how_steps_are_chunked_changes_nothing(backend, monkeypatch, averaging):
    found = []
    for seconds in (0.0, 1e9):
        monkeypatch.setattr(scores, "CHUNK_SECONDS", seconds)
        model = net(backend, "float32")
        fit = trainer(model, **EVERYTHING | {"averaging": averaging})
        fit.fit(X, Y, 3, 5, accumulation_steps=4, verbose=0)
        found.append((bits(model), bits(fit.averaged_model(X))))
    assert found[0] == found[1]


def averages(model):
    return {name: np.array(p) for name, p in model.named_parameters().items()}


def test_ema(backend):
    """The first step's parameters, then a ← a + (1 − decay)·(w − a)."""
    one, two, seen = net(backend), net(backend), []
    fit = trainer(one, averaging=fn.EMA(0.7))
    fit.fit(X, Y, 2, 5, verbose=0)
    by_hand(two, fn.SGD(0.5, 0.9), after=lambda m: seen.append(averages(m)))
    assert bits(one) == bits(two)  # the fit itself does not change
    want = seen[0]
    for w in seen[1:]:
        want = {name: a + 0.3 * (w[name] - a) for name, a in want.items()}
    made = fit.averaged_model()
    for name, a in made.named_parameters().items():
        np.testing.assert_allclose(a, want[name], rtol=1e-13)
    for name in ("1.running_mean", "1.running_var"):
        np.testing.assert_array_equal(made.state_dict()[name], one.state_dict()[name])
    assert not made.training and one.training
    assert not np.array_equal(made.predict(X), one.predict(X))


def test_ema_counts_updates(backend):
    one, two = net(backend, norm=False), net(backend, norm=False)
    fits = [trainer(model, averaging=fn.EMA(0.7)) for model in (one, two)]
    fits[0].fit(X, Y, 3, 5, accumulation_steps=4, verbose=0)
    fits[1].fit(X, Y, 3, 20, verbose=0)
    made = [fit.averaged_model() for fit in fits]
    for a, b in zip(made[0].parameters(), made[1].parameters(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("start", "every", "taken"), [(1, 1, [1, 2, 3, 4, 5]), (2, 2, [2, 4])])
def test_swa(backend, start, every, taken):
    model, seen = net(backend, norm=False), {}
    fit = trainer(model, averaging=fn.SWA(start, every))
    for epoch in range(1, 6):
        fit.fit(X, Y, 1, 5, verbose=0)
        seen[epoch] = averages(model)
    made = fit.averaged_model()
    for name, a in made.named_parameters().items():
        want = np.mean([seen[epoch][name] for epoch in taken], axis=0)
        np.testing.assert_allclose(a, want, rtol=1e-13)


def test_swa_needs_inputs_where_there_is_batchnorm(backend):
    fit = trainer(net(backend), averaging=fn.SWA(1))
    fit.fit(X, Y, 2, 5, verbose=0)
    refused(fit.averaged_model, UsageError, "the model has batchnorm, .* pass inputs X")
    before = bits(fit.model)
    made = fit.averaged_model(X, 23)
    assert bits(fit.model) == before
    twin = copy.deepcopy(made)
    means, variances = [], []
    for x in (X[:23], X[23:]):
        h = x @ twin.state_dict()["0.weight"].T + twin.state_dict()["0.bias"]
        means.append(h.mean(0))
        variances.append(h.var(0, ddof=1))
    state = made.state_dict()
    np.testing.assert_allclose(state["1.running_mean"], np.mean(means, 0), rtol=1e-12)
    np.testing.assert_allclose(state["1.running_var"], np.mean(variances, 0), rtol=1e-12)
    assert int(state["1.num_batches_tracked"]) == 2


@pytest.mark.parametrize("way", [copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
@pytest.mark.parametrize("averaging", [fn.EMA(0.8), fn.SWA(2)], ids=repr)
def test_a_copy_goes_on_as_the_original(backend, way, averaging):
    fit = trainer(net(backend), fn.Adam(0.1, l1=0.01), **EVERYTHING | {"averaging": averaging})
    fit.fit(X, Y, 3, 5, accumulation_steps=2, verbose=0)
    twin = way(fit)
    for one in (fit, twin):
        one.fit(X, Y, 2, 5, accumulation_steps=2, verbose=0)
    assert bits(twin.model) == bits(fit.model)
    assert bits(twin.averaged_model(X)) == bits(fit.averaged_model(X))


def test_reset_forgets_the_average(backend):
    fit = trainer(net(backend), averaging=fn.EMA(0.8))
    fit.fit(X, Y, 1, 5, verbose=0)
    first = bits(fit.averaged_model())
    fit.reset()
    refused(fit.averaged_model, UsageError, r"EMA\(decay=0.8\) has averaged nothing yet")
    fit.fit(X, Y, 1, 5, verbose=0)
    assert bits(fit.averaged_model()) == first


def test_a_range_test_leaves_the_average(backend):
    fit = trainer(net(backend), **EVERYTHING)
    fit.fit(X, Y, 1, 5, verbose=0)
    before = bits(fit.averaged_model())
    fit.find_lr(X, Y, steps=5, batch_size=5)
    assert bits(fit.averaged_model()) == before


def test_without_averages():
    fit = trainer(net())
    fit.fit(X, Y, 1, 5, verbose=0)
    refused(fit.averaged_model, UsageError, r"no averages; pass averaging=EMA")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fn.clip_grad_norm_([np.ones(3)], 1.0), "^model is .*; expected a Sequential"),
        (lambda: fn.clip_grad_value_(None, 1.0), "^model is None; expected a Sequential"),
        (lambda: trainer(net(), averaging=0.9), "^averaging is 0.9; expected an Averaging"),
        (lambda: trainer(net(), averaging=fn.EMA), "^averaging is .*; expected an Averaging"),
    ],
)
def test_what_is_refused(call, message):
    refused(call, HyperparameterError, message)


def test_accumulation_steps_that_are_refused():
    fit = trainer(net())
    for value in [*NOT_INTEGERS, 0, -2]:
        refused(
            lambda value=value: fit.fit(X, Y, accumulation_steps=value, verbose=0),
            HyperparameterError,
            "^accumulation_steps is .*; expected an integer ≥ 1$",
        )
    assert fit.step == 0
