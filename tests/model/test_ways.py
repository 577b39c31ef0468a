"""Short ways do what the methods do in the long way, to the bit, and know when they must not."""

import itertools

import numpy as np
import pytest
from engines import backends

import fastnet as fn
from fastnet.backends.c.backend import CBackend

pytestmark = pytest.mark.skipif("c" not in backends(), reason="needs the backend c")

RNG = np.random.default_rng(7)
X = RNG.standard_normal((12, 5))
LABELS = RNG.integers(0, 3, 12)
NUMBERS = RNG.standard_normal((12, 3))
SHARES = RNG.random((12, 3))

MODELS = {
    "plain": lambda: [fn.Linear(5, 7), fn.Tanh(), fn.Linear(7, 3)],
    "dropout": lambda: [fn.Linear(5, 8), fn.ReLU(), fn.Dropout(0.4), fn.Linear(8, 3)],
    "batchnorm": lambda: [fn.Linear(5, 6), fn.BatchNorm1d(6), fn.PReLU(6), fn.Linear(6, 3)],
}
LOSSES = {
    "mse": (fn.MSELoss, NUMBERS),
    "sum": (lambda: fn.HuberLoss(0.5, reduction="sum"), NUMBERS),
    "labels": (fn.CrossEntropyLoss, LABELS),
    "shares": (fn.BCEWithLogitsLoss, SHARES),
    "counts": (fn.PoissonNLLLoss, np.abs(NUMBERS)),
    "classes": (lambda: fn.CrossEntropyLoss(weight=[1.0, 2.0, 0.5]), LABELS),
}


def net(kind, dtype="float32"):
    return fn.Sequential(*MODELS[kind](), dtype=dtype, backend="c", seed=3)


def rows(y, begin, end):
    return X[begin:end], y[begin:end]


def both(run, monkeypatch):
    """The results with short ways, and without."""
    short = run()
    with monkeypatch.context() as patch:
        patch.setattr(CBackend, "native_calls", False)
        long = run()
    return short, long


def equal(one, other):
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        one, other = list(one.values()), list(other.values())
    if isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            equal(a, b)
    else:
        np.testing.assert_array_equal(one, other, strict=isinstance(one, np.ndarray))


MINIBATCHES = list(itertools.islice(itertools.cycle([(0, 4), (4, 12), (2, 5), (0, 12)]), 11))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("given", [np.float32, np.float64])
def test_a_loop_of_value_and_grad(kind, loss, dtype, given, monkeypatch):
    def run():
        make, y = LOSSES[loss]
        model, optimizer, of = net(kind, dtype), fn.AdamW(1e-2), make()
        found = []
        for number, (begin, end) in enumerate(MINIBATCHES):
            x, t = X[begin:end].astype(given), y[begin:end]
            value = model.value_and_grad(of, x, t, accumulate=number % 3 == 2)
            found += [value, {n: g.copy() for n, g in model.grads.items()}]
            optimizer.step(model)
        return found, model.state_dict(), optimizer.state_dict(model), model.version

    equal(*both(run, monkeypatch))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", MODELS)
def test_a_loop_of_forward_and_backward(kind, dtype, monkeypatch):
    def run():
        model, optimizer, loss = net(kind, dtype), fn.SGD(0.1, momentum=0.9), fn.MSELoss()
        found = []
        for begin, end in MINIBATCHES:
            x, t = rows(NUMBERS, begin, end)
            out = model.forward(x.astype(dtype))
            found += [out, loss.forward(out, t)]
            model.zero_grad()
            found.append(model.backward(loss.backward()))
            optimizer.step(model)
        return found, model.state_dict(), model.version

    equal(*both(run, monkeypatch))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("loss", LOSSES)
def test_train_on_batch(kind, loss, dtype, monkeypatch):
    def run():
        make, y = LOSSES[loss]
        more = {"clip_norm": 0.5, "averaging": fn.EMA(0.9)} if kind == "dropout" else {}
        trainer = fn.Trainer(net(kind, dtype), make(), fn.Adam(1e-2), seed=5, **more)
        found = [trainer.train_on_batch(*rows(y, *part)) for part in MINIBATCHES]
        trainer.fit(X, y, epochs=2, batch_size=5, verbose=0)
        found += [trainer.train_on_batch(*rows(y, *part)) for part in MINIBATCHES]
        state = trainer.state_dict()
        state.pop("key")
        for record in state.pop("history"):
            found += [value for name, value in record.items() if "second" not in name]
        return found, trainer.model.state_dict(), state

    equal(*both(run, monkeypatch))


def test_more_steps_than_numbers_are_kept_for(monkeypatch):
    def run():
        model, loss = net("plain"), fn.MSELoss()
        trainer = fn.Trainer(model, loss, fn.Adam(fn.schedules.StepLR(1e-2, 100)), seed=5)
        found = [trainer.train_on_batch(X, NUMBERS) for _ in range(600)]
        for _ in range(200):
            found.append(model.value_and_grad(loss, X, NUMBERS))
            trainer.optimizer.step(model)
        return found, model.state_dict()

    equal(*both(run, monkeypatch))


def loops(model, trainer, loss, optimizer):
    """What is called a second time below."""
    return [
        trainer.train_on_batch(X, NUMBERS),
        model.value_and_grad(loss, X, NUMBERS),
        optimizer.step(model),
        out := model.forward(X.astype(model.dtype)),
        model.backward(out * 0.5),
    ]


def halve_rate(model, trainer, optimizer):
    optimizer.lr = trainer.optimizer.lr = 1e-3


def group(model, trainer, optimizer):
    trainer.optimizer.groups = [{"params": "0.*", "lr": 0.5}]
    optimizer.groups = [{"params": "0.bias", "lr": 0.5}]


def group_in_place(model, trainer, optimizer):
    group(model, trainer, optimizer)
    loops(model, trainer, fn.MSELoss(), optimizer)
    trainer.optimizer.groups[0]["lr"] = optimizer.groups[0]["lr"] = 0.25


def reload(model, trainer, optimizer):
    trainer.load_state_dict(
        fn.Trainer(net("dropout"), fn.MSELoss(), fn.Adam(), seed=1).state_dict()
    )
    optimizer.load_state_dict(model, {"steps": 0})


def edit(model, trainer, optimizer):
    with model.edit() as p:
        p["0.bias"][...] = 3


def other_loss(model, trainer, optimizer):
    trainer.loss = fn.HuberLoss()


CHANGES = {
    "rate": halve_rate,
    "groups": group,
    "groups in place": group_in_place,
    "reset": lambda m, t, o: (t.reset(), o.reset(m)),
    "states": reload,
    "edit": edit,
    "evaluation": lambda m, t, o: m.eval(),
    "one mode": lambda m, t, o: m[2].eval(),
    "frozen": lambda m, t, o: m.bind().freeze(list(m[0]._parameters.values())),
    "threads": lambda m, t, o: fn.set_num_threads(fn.get_num_threads()),
    "another backend": lambda m, t, o: m.to("reference"),
    "there and back": lambda m, t, o: (m.to("reference"), m.to("c")),
    "loss": other_loss,
    "seed": lambda m, t, o: setattr(t, "seed", 77),
    "step": lambda m, t, o: setattr(t, "step", 1000),
    "values": lambda m, t, o: m.load_state_dict(net("dropout").state_dict()),
    "new parameters": lambda m, t, o: m.reset_parameters(9),
    "optimizer": lambda m, t, o: setattr(t, "optimizer", fn.SGD(0.1)),
    "a fit": lambda m, t, o: t.fit(X, NUMBERS, epochs=3, verbose=0),
    "another trainer": lambda m, t, o: fn.Trainer(m, fn.MSELoss(), t.optimizer, seed=0).fit(
        X, NUMBERS, verbose=0
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_has_changed_between_calls_takes_effect(change, monkeypatch):
    def run():
        model, loss, optimizer = net("dropout"), fn.MSELoss(), fn.Adam(1e-2)
        trainer = fn.Trainer(model, loss, fn.Adam(1e-2), seed=5)
        found = [loops(model, trainer, loss, optimizer) for _ in range(3)]
        CHANGES[change](model, trainer, optimizer)
        found += [loops(model, trainer, loss, optimizer) for _ in range(3)]
        return found, model.state_dict(), trainer.step, trainer.optimizer.state_dict(model)

    equal(*both(run, monkeypatch))


BAD = {
    "nan": (lambda: np.where(X[0, 0] == X, np.nan, X), lambda: NUMBERS),
    "too large": (lambda: X * 1e300, lambda: NUMBERS),
    "width": (lambda: X[:, :4], lambda: NUMBERS),
    "rows": (lambda: X[:3], lambda: NUMBERS),
    "no rows": (lambda: X[:0], lambda: NUMBERS[:0]),
    "targets": (lambda: X, lambda: NUMBERS * np.inf),
    "target width": (lambda: X, lambda: NUMBERS[:, :2]),
    "text": (lambda: X.astype(str), lambda: NUMBERS),
    "nothing": (lambda: None, lambda: NUMBERS),
}


@pytest.mark.parametrize("out", [7, [1.0], np.zeros(()), np.zeros((12, 3), np.int64)])
def test_a_bad_out_keeps_the_pending_backward(out):
    model = net("plain")
    for _ in range(2):
        model.forward(X.astype(np.float32))
    with pytest.raises(fn.errors.ShapeError, match="out is"):
        model.forward(X.astype(np.float32), out=out)
    model.backward(NUMBERS.astype(np.float32))


@pytest.mark.parametrize("bad", BAD)
def test_bad_arguments_get_the_same_errors_and_change_nothing(bad):
    model, loss = net("dropout"), fn.MSELoss()
    trainer = fn.Trainer(model, loss, seed=5)
    for _ in range(2):
        trainer.train_on_batch(X, NUMBERS)
        model.value_and_grad(loss, X, NUMBERS)
        model.forward(X)
    fresh = net("dropout")
    x, y = (make() for make in BAD[bad])
    before = model.version, trainer.step, model._draws
    for call, other in [
        (lambda m, t: t.train_on_batch(x, y), fn.Trainer(fresh, loss, seed=5)),
        (lambda m, t: m.value_and_grad(loss, x, y), None),
    ]:
        with np.errstate(all="ignore"):
            with pytest.raises(fn.FastnetError) as raised:
                call(model, trainer)
            with pytest.raises(fn.FastnetError) as expected:
                call(fresh, other)
        assert str(raised.value) == str(expected.value)
    assert (model.version, trainer.step, model._draws) == before


def test_a_diverging_step_raises_and_counts_nothing():
    model = net("batchnorm")
    trainer = fn.Trainer(model, fn.MSELoss(), fn.SGD(0.1), seed=5)
    for _ in range(2):
        trainer.train_on_batch(X, NUMBERS)
    values = model.state_dict()
    with pytest.raises(fn.DivergenceError, match="step 2"):
        trainer.train_on_batch(X, NUMBERS * 1e30)
    assert trainer.step == 2
    equal(values, model.state_dict())


def test_the_end_of_a_schedule_warns_once():
    model, loss = net("plain"), fn.MSELoss()
    rate = fn.schedules.OneCycleLR(1e-2, total_steps=4)
    trainer = fn.Trainer(model, loss, fn.Adam(rate), seed=0)
    for _ in range(4):
        trainer.train_on_batch(X, NUMBERS)
    with pytest.warns(UserWarning, match="OneCycleLR is made for 4 steps"):
        trainer.train_on_batch(X, NUMBERS)
    for _ in range(4):
        trainer.train_on_batch(X, NUMBERS)


def test_a_subclass_checks_its_own_targets():
    class Picky(fn.MSELoss):
        def target(self, y, shape, name="y"):
            if np.any(np.asarray(y) > 1):
                raise fn.errors.DataError(f"{name} is above 1")
            return super().target(y, shape, name)

    model, loss = net("plain"), Picky()
    low = np.minimum(NUMBERS, 0.5)
    for _ in range(2):
        model.value_and_grad(loss, X, low)
    with pytest.raises(fn.errors.DataError, match="above 1"):
        model.value_and_grad(loss, X, low + 5)


def test_ignored_labels_are_ignored():
    def ignoring(model):
        loss = fn.CrossEntropyLoss(ignore_index=1)
        return [model.value_and_grad(loss, X, y) for y in (LABELS * 0, LABELS, LABELS * 0 + 2)]

    model = net("plain")
    kept = LABELS != 1
    expected = net("plain").value_and_grad(fn.CrossEntropyLoss(), X[kept], LABELS[kept])
    assert ignoring(model)[1] == pytest.approx(expected, rel=1e-6)


def test_views_that_share_memory_are_predicted_from():
    model = fn.Sequential(fn.Linear(4, 4), backend="c", seed=0)
    block = RNG.standard_normal((8, 4)).astype(np.float32)
    expected = model.predict(block[::2].copy())
    np.testing.assert_array_equal(model.predict(block[::2], out=block[:4]), expected)


@pytest.mark.parametrize("given", ["list", "float64", "int64", "uint8", "strided", "reversed"])
def test_predictions_of_other_numbers_and_strides(given):
    model = net("plain")
    whole = np.round(np.abs(X) * 20)
    made = {
        "list": whole.tolist(),
        "float64": whole,
        "int64": whole.astype(np.int64),
        "uint8": whole.astype(np.uint8),
        "strided": np.repeat(whole, 2, axis=1).astype(np.float32)[:, ::2],
        "reversed": whole[::-1].astype(np.float32)[::-1],
    }[given]
    expected = model.predict(np.ascontiguousarray(whole, np.float32))
    np.testing.assert_array_equal(model.predict(made), expected)
    assert model._runtime.thread.fast_path(made, None) is not None
