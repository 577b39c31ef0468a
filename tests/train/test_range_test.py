"""`trainer.find_lr`: the curve, its independence of chunks, and that nothing of it stays behind."""

from __future__ import annotations

import numpy as np
import pytest
from missing import hide
from refusals import NOT_FINITE, NOT_INTEGERS, NOT_NUMBERS, refused

import fastnet as fn
from fastnet.backends import registry
from fastnet.errors import DivergenceError, HyperparameterError, MissingExtra, UsageError, shown
from fastnet.train import range_test, scores

S = fn.schedules
RNG = np.random.default_rng(0)
X = RNG.normal(size=(37, 3))
Y = (X.sum(1) > 0).astype(int)


def trainer(backend="auto", optimizer=None, dtype="float64", bn=True):
    extra = [fn.BatchNorm1d(6), fn.Dropout(0.2)] if bn else []
    layers = fn.Linear(3, 6), *extra, fn.Tanh(), fn.Linear(6, 2)
    model = fn.Sequential(*layers, seed=1, backend=backend, dtype=dtype)
    return fn.Trainer(model, fn.CrossEntropyLoss(), optimizer or fn.Adam(0.01), seed=2)


def everything(t):
    """All that a range test could change."""
    state = t.model.optimizer_state(t.optimizer)
    segments = {name: block.tobytes() for name, block in t.model.bind().segments.items()}
    memory = state.rule.segment.tobytes(), state.steps
    counts = t.step, t.epoch, len(t.history), t.stop_training
    return segments, memory, counts, repr(t.optimizer), t.model.training, id(t.optimizer)


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize(
    "options", [{"max_lr": 0.1}, {"max_lr": 1e200, "min_lr": 1.0}], ids=["quiet", "diverges"]
)
def test_everything_is_as_it_was(backend, trained, options):
    t, twin = trainer(backend), trainer(backend)
    if trained:
        for one in (t, twin):
            one.fit(X, Y, 2, 5, verbose=0)
    before = everything(t)
    found = t.find_lr(X, Y, 5, **options)
    assert everything(t) == before
    assert (len(found.rates) < 200) == ("min_lr" in options) and np.isfinite(found.losses).all()
    for one in (t, twin):
        one.fit(X, Y, 2, 5, verbose=0)
    assert everything(t)[:3] == everything(twin)[:3]


def test_gradients_of_a_loop_are_as_they_were(backend):
    t = trainer(backend, bn=False)
    t.model.value_and_grad(t.loss, X, Y)
    before = everything(t)
    t.find_lr(X, Y, 5)
    assert everything(t) == before


@pytest.mark.parametrize("after", [False, True])
def test_ctrl_c_leaves_everything_as_it_was(backend, after, monkeypatch):
    if backend == "cuda":
        pytest.skip("has no native call: see tests/backends/test_cuda_training.py")
    t = trainer(backend)
    t.fit(X, Y, 2, 5, verbose=0)
    before, engine, chunks = everything(t), registry.get(backend), []
    train = engine.train

    def interrupted(args):
        chunks.append(1)
        if after or len(chunks) < 3:
            train(args)
        if len(chunks) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(engine, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        t.find_lr(X, Y, 5)
    monkeypatch.undo()
    assert everything(t) == before
    with t.model.edit():
        pass


def test_losses_are_those_of_a_loop_with_such_rates(backend):
    t, loss = trainer(backend, fn.SGD(0.1, 0.9), bn=False), fn.CrossEntropyLoss()
    found = t.find_lr(X, Y, 8, min_lr=1e-3, max_lr=1.0, steps=23)
    np.testing.assert_allclose(found.rates, np.geomspace(1e-3, 1.0, 23), rtol=1e-12)
    optimizer, want = fn.SGD(S.ExponentialLR(1e-3, 1000 ** (1 / 22)), 0.9), []
    for epoch in range(5):
        for xb, yb in fn.batches(X, Y, batch_size=8, seed=2, epoch=epoch):
            want.append(t.model.value_and_grad(loss, xb, yb))
            optimizer.step(t.model)
    np.testing.assert_allclose(found.losses, want[:23], rtol=1e-9)


def test_the_curve_does_not_depend_on_chunks(backend, monkeypatch):
    curves, calls, resized = [], [], scores.resized
    monkeypatch.setattr(range_test, "resized", lambda *a: (calls.append(1), resized(*a))[1])
    for seconds in (0.0, 1e9):  # chunks of one step, and of 1, 8, 64, …
        monkeypatch.setattr(scores, "CHUNK_SECONDS", seconds)
        calls.clear()
        curves.append(trainer(backend).find_lr(X, Y, 5, max_lr=1e4))
        steps = len(curves[0].rates)
        assert 0 <= len(calls) - steps <= 1 if seconds == 0.0 else len(calls) <= 4 < steps
    for name in ("rates", "losses", "smoothed"):
        np.testing.assert_array_equal(*(getattr(curve, name) for curve in curves))
    assert curves[0].suggestion == curves[1].suggestion


def test_it_holds_the_model():
    t = trainer()
    with t.model.edit():
        refused(lambda: t.find_lr(X, Y), UsageError, "being trained or edited elsewhere")


def test_groups_keep_their_ratios(monkeypatch):
    groups = [{"params": "0.*", "lr": 0.05}, {"params": "4.*", "weight_decay": 0.1}]
    optimizer = fn.SGD(S.ConstantLR(0.1, 1.0, 0), groups=groups)
    trial = range_test.Trial.checked(1e-3, 1.0, 4, 1.0)
    trying = trial.optimizer(optimizer, 7)
    assert trying.lr == trial.rates and trying.groups[0]["lr"] == 0.5 * trial.rates
    assert "lr" not in trying.groups[1] and optimizer.groups[0]["lr"] == 0.05
    trying = trial.optimizer(fn.SGD(0.0, groups=groups), 0)
    assert trying.groups[0]["lr"] == 1.0 * trial.rates
    t = trainer(optimizer=optimizer)
    before = everything(t)
    t.find_lr(X, Y, 5)
    assert everything(t) == before


# What the curve says.


def curve(losses, stop_factor=1.0):
    return range_test.evaluate(
        np.geomspace(1e-4, 1.0, len(losses)), np.asarray(losses), stop_factor
    )


def test_the_suggestion_is_where_a_curve_falls_most_steeply():
    at = np.linspace(-4, 0, 201)
    noise = RNG.normal(0, 0.02, 201)
    found = curve(1 / (1 + np.exp(8 * (at + 2))) + 0.5 * np.exp(20 * (at + 0.2)) + 0.1 + noise)
    assert 10**-2.15 < found.suggestion < 10**-1.85
    assert 10**-1.6 < found.lowest < 10**-0.2
    np.testing.assert_allclose(found.smoothed[:180], found.losses[:180], atol=0.1)


@pytest.mark.parametrize(
    "losses",
    [np.ones(200), np.linspace(1, 2, 200), 1 + RNG.normal(0, 0.1, 200)],
    ids=["flat", "rising", "noise"],
)
def test_a_curve_that_does_not_fall_suggests_nothing(losses):
    assert curve(losses).suggestion is None


def test_it_ends_where_the_loss_is_too_high():
    losses = np.r_[np.full(20, 2.0), np.linspace(2, 1, 20), np.full(20, 50.0)]
    assert len(curve(losses).rates) == 41
    assert len(curve(losses, 1e3).rates) == 60
    assert len(curve(-losses).rates) == 60
    assert len(curve([1.0, 9.0, 99.0]).rates) == 3


def test_minibatches_that_differ_much_do_not_mislead():
    x = np.random.default_rng(0).normal(size=(30, 3))
    y = x @ [[1.0], [2.0], [3.0]]
    for drop_last in (False, True):
        model = fn.Sequential(fn.Linear(3, 1), seed=0)
        found = fn.Trainer(model, fn.MSELoss(), fn.SGD(), seed=0).find_lr(
            x, y, 8, drop_last=drop_last
        )
        assert 3e-3 < found.suggestion < 0.1 and found.losses[:10].std() > 1
        assert len(fn.Trainer(model, fn.MSELoss(), fn.SGD(), seed=0).find_lr(x, y, 1).rates) > 150


def test_on_real_digits():
    (x, y), _ = fn.datasets.digits()
    for optimizer, low, high in [(fn.SGD(), 0.05, 1.0), (fn.Adam(), 1e-3, 0.03)]:
        model = fn.Sequential(fn.Linear(64, 128), fn.ReLU(), fn.Linear(128, 10), seed=0)
        t = fn.Trainer(model, fn.CrossEntropyLoss(), optimizer, seed=0)
        found = t.find_lr(x, y)
        assert low < found.suggestion < high and found.suggestion < found.lowest
        t.optimizer.lr = found.suggestion
        assert t.fit(x, y, 3, verbose=0).history["accuracy"][-1] > 0.93


# Errors.


@pytest.mark.parametrize(
    ("name", "wanted", "bad"),
    [
        ("min_lr", "a finite number in (0, inf)", [*NOT_NUMBERS, *NOT_FINITE, 0, -1]),
        ("max_lr", "a finite number in (0, inf)", [*NOT_NUMBERS, *NOT_FINITE, 0, -1]),
        ("stop_factor", "a finite number in [0, inf)", [*NOT_NUMBERS, *NOT_FINITE, -1]),
        ("steps", "an integer ≥ 2", [*NOT_INTEGERS, 1, -1]),
        ("batch_size", "an integer ≥ 1", [*NOT_INTEGERS, 0]),
        ("max_lr", "more than min_lr = 1e-06", [1e-6, 1e-9]),
        ("max_lr", "at most 1e200·min_lr = 1e+194", [1e195, 1e300]),
    ],
)
def test_bad_arguments_are_refused_before_anything_changes(name, wanted, bad):
    t = trainer()
    before = everything(t)
    for value in bad:
        with pytest.raises(HyperparameterError) as caught:
            t.find_lr(X, Y, **{name: value})
        assert str(caught.value) == f"{name} is {shown(value)}; expected {wanted}"
    assert everything(t) == before


def test_a_first_loss_that_is_not_finite_is_an_error(backend):
    t = trainer(backend, dtype="float32")
    with t.model.edit() as p:
        p["0.weight"][:] = 3e38
    before = everything(t)
    with np.errstate(all="ignore"), pytest.raises(DivergenceError):
        t.find_lr(X * 1e3, Y, 5)
    assert everything(t) == before


def test_the_plot():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    from matplotlib import pyplot

    found = trainer().find_lr(X, Y, 5)
    (ax,) = found.plot().axes
    assert ax.get_xscale() == "log" and ax.get_xlabel() == "learning rate"
    raw, smoothed, *_ = ax.get_lines()
    np.testing.assert_array_equal(raw.get_ydata(), found.losses)
    np.testing.assert_array_equal(smoothed.get_xdata(), found.rates)
    given = pyplot.figure()
    assert found.plot(given) is given
    given.canvas.draw()
    pyplot.close("all")
    assert "suggestion" in repr(found)


def test_a_plot_without_matplotlib_says_how_to_get_it(monkeypatch):
    found = trainer().find_lr(X, Y, 5)
    hide(monkeypatch, "matplotlib")
    with pytest.raises(MissingExtra, match=r'pip install "fastnet-engine\[plot\]"'):
        found.plot()


def test_averages_of_parameters_are_as_they_were(backend):
    model = fn.Sequential(fn.Linear(3, 2), seed=1, backend=backend)
    t = fn.Trainer(model, fn.CrossEntropyLoss(), fn.SGD(0.1), averaging=fn.EMA(0.7), seed=2)
    t.fit(X, Y, 1, 5, verbose=0)
    before = t.averaged_model().predict(X)
    t.find_lr(X, Y, 5)
    np.testing.assert_array_equal(t.averaged_model().predict(X), before)
