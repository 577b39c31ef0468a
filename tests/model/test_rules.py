"""The rules of calling a model: forward, backward, losses, loops of one's own, inputs of any kind."""

from __future__ import annotations

import numpy as np
import pytest

import fastnet as fn
from fastnet.model import runtime
from fastnet.plan import compiler

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 3))
LABELS = RNG.integers(0, 2, size=12)
DY = RNG.normal(size=(12, 2))


def net(backend, *, p=None, seed=1):
    dropout = () if p is None else (fn.Dropout(p),)
    layers = (fn.Linear(3, 5), fn.BatchNorm1d(5), fn.Tanh(), *dropout, fn.Linear(5, 2))
    return fn.Sequential(*layers, dtype="float64", backend=backend, seed=seed)


def values(model):
    return {name: value.copy() for name, value in model.state_dict().items()}


def gradients(model):
    return {name: grad.copy() for name, grad in model.grads.items()}


def assert_close(a, b, tolerance=1e-12):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("call", ["forward", "predict"])
def test_outputs_are_copies(backend, call):
    model = net(backend).eval()
    run = getattr(model, call)
    first = run(X)
    kept = first.copy()
    run(-X)
    np.testing.assert_array_equal(first, kept)
    first[:] = 7.0
    np.testing.assert_array_equal(run(X), kept)


@pytest.mark.parametrize("call", ["forward", "predict"])
def test_out_is_filled_and_returned(backend, call):
    model = net(backend).eval()
    run = getattr(model, call)
    wide = np.zeros((12, 4))
    out = wide[:, ::2]  # not contiguous
    assert run(X, out=out) is out
    np.testing.assert_array_equal(out, run(X))
    assert not wide[:, 1::2].any()


@pytest.mark.parametrize("call", ["forward", "predict"])
@pytest.mark.parametrize("out", [np.empty((12, 3)), np.empty((12, 2), "f"), [[0.0] * 2] * 12])
def test_an_out_that_does_not_fit_is_refused(backend, call, out):
    with pytest.raises(fn.errors.ShapeError, match=r"out is .* expected an ndarray of float64"):
        getattr(net(backend), call)(X, out=out)


def test_a_refused_out_changes_nothing(backend):
    model = net(backend)
    before = values(model)
    with pytest.raises(fn.errors.ShapeError):
        model.forward(X, out=np.empty((1, 1)))
    assert_close(values(model), before, 0)


def test_backward_belongs_to_the_last_forward(backend):
    model, other = net(backend).eval(), net(backend).eval()
    model.forward(X[:5])
    model.forward(X)
    with pytest.raises(fn.errors.ShapeError, match=r"dy has shape \(5, 2\), expected .*\(12, 2\)"):
        model.backward(DY[:5])
    other.forward(X)
    np.testing.assert_array_equal(model.backward(DY), other.backward(DY))


def test_backward_needs_a_forward_of_its_own(backend):
    model = net(backend)
    with pytest.raises(fn.errors.UsageError, match="needs a forward"):
        model.backward(DY)
    model.forward(X)
    model.backward(DY)
    with pytest.raises(fn.errors.UsageError, match="needs a forward"):
        model.backward(DY)


def edit(model):
    with model.edit() as p:
        p["0.bias"][:] = 1.0


@pytest.mark.parametrize(
    "change",
    [
        edit,
        fn.SGD().step,
        lambda m: m.reset_parameters(),
        lambda m: m.load_state_dict(m.state_dict()),
        lambda m: m.value_and_grad(fn.MSELoss(), X, DY),  # moves running statistics
        lambda m: fn.Trainer(m, fn.MSELoss()).fit(X, DY, verbose=0),
    ],
    ids=["edit", "step", "reset", "load", "value_and_grad", "fit"],
)
def test_a_change_of_values_ends_a_pending_backward(backend, change):
    model = net(backend)
    model.forward(X)
    change(model)
    before = gradients(model)
    with pytest.raises(fn.errors.UsageError, match="have changed since the forward"):
        model.backward(DY)
    assert_close(gradients(model), before, 0)
    with pytest.raises(fn.errors.UsageError, match="needs a forward"):
        model.backward(DY)


@pytest.mark.parametrize("rows", [5, 12, 600])
def test_predictions_do_not_disturb_a_pending_backward(backend, rows):
    model, other = net(backend, p=0.5), net(backend, p=0.5)
    model.forward(X)
    other.forward(X)
    many = np.resize(-X, (rows, 3))
    model.predict(many)
    model.predict(many, batch_size=2)
    fn.Trainer(model, fn.MSELoss()).evaluate(many, np.zeros((rows, 2)))
    model.summary(batch_size=rows)
    np.testing.assert_array_equal(model.backward(DY), other.backward(DY))
    assert_close(gradients(model), gradients(other), 0)


def test_backward_after_a_forward_in_evaluation_mode(backend):
    model = net(backend, p=0.5)
    model.forward(X)  # statistics other than the initial ones
    model.eval()
    before = values(model)
    np.testing.assert_allclose(model.forward(X), model.predict(X), rtol=1e-12)
    dx = model.backward(DY)
    assert_close(values(model), before, 0)
    step = 1e-6
    for row, column in ((0, 0), (7, 2)):
        moved = X.copy()
        moved[row, column] += step
        up = float(np.sum(model.predict(moved) * DY))
        moved[row, column] -= 2 * step
        down = float(np.sum(model.predict(moved) * DY))
        assert dx[row, column] == pytest.approx((up - down) / (2 * step), rel=1e-6)


@pytest.mark.parametrize(
    ("loss", "y"), [(fn.MSELoss(), DY), (fn.CrossEntropyLoss(), LABELS)], ids=["mse", "nll"]
)
@pytest.mark.parametrize("training", [True, False])
def test_value_and_grad_equals_forward_and_backward(backend, loss, y, training):
    one, two = (net(backend, p=0.3).train(training) for _ in range(2))
    for _ in range(2):
        value = one.value_and_grad(loss, X, y)
        two.zero_grad()
        assert loss.forward(two.forward(X), y) == pytest.approx(value, rel=1e-12)
        two.backward(loss.backward())
        assert_close(gradients(one), gradients(two))
        assert_close(values(one), values(two))


def test_value_and_grad_overwrites_unless_asked_to_accumulate(backend):
    model, loss = net(backend).eval(), fn.MSELoss()
    model.value_and_grad(loss, X, DY)
    first = gradients(model)
    assert any(grad.any() for grad in first.values())
    model.value_and_grad(loss, X, DY)
    assert_close(gradients(model), first, 0)
    model.value_and_grad(loss, X, DY, accumulate=True)
    assert_close(gradients(model), {name: 2 * grad for name, grad in first.items()})


def test_backward_adds_to_gradients_until_zero_grad(backend):
    model = net(backend).eval()
    model.forward(X)
    dx = model.backward(DY)
    kept, first = dx.copy(), gradients(model)
    model.forward(X)
    model.backward(DY)
    assert_close(gradients(model), {name: 2 * grad for name, grad in first.items()})
    model.zero_grad()
    assert not any(grad.any() for grad in model.grads.values())
    model.forward(X)
    model.backward(DY)
    assert_close(gradients(model), first, 0)
    model.forward(X)
    model.backward(-DY)
    np.testing.assert_array_equal(dx, kept)  # a copy, too


# eps is large, as Adam would magnify the rounding in the gradient of a bias before batchnorm, 0.
@pytest.mark.parametrize(
    "optimizer", [fn.SGD(0.1, 0.9), fn.Adam(eps=1e-3), fn.AdamW(0.01, eps=1e-3)], ids=repr
)
def test_a_loop_of_ones_own_equals_fit(backend, optimizer):
    one, two, loss = net(backend), net(backend), fn.CrossEntropyLoss()
    fn.Trainer(one, loss, optimizer, seed=5).fit(X, LABELS, epochs=3, batch_size=5, verbose=0)
    for epoch in range(3):
        for x, y in fn.batches(X, LABELS, batch_size=5, seed=5, epoch=epoch):
            two.zero_grad()
            loss.forward(two.forward(x), y)
            two.backward(loss.backward())
            optimizer.step(two)
    assert_close(values(one), values(two), 1e-10)
    assert not np.allclose(one.predict(X), net(backend).predict(X), atol=1e-3)


def test_a_larger_batch_after_a_smaller_one(backend):
    grown, wide = net(backend, p=0.5), net(backend, p=0.5)
    wide.forward(X)  # a plan for all rows from the start
    wide.reset_parameters()
    for rows in (2, 12, 7):
        np.testing.assert_array_equal(grown.forward(X[:rows]), wide.forward(X[:rows]))
        np.testing.assert_array_equal(grown.backward(DY[:rows]), wide.backward(DY[:rows]))
    assert_close(gradients(grown), gradients(wide), 0)


def test_a_plan_serves_smaller_batches(backend, monkeypatch):
    compiled = []

    def compile_plan(*arguments, **options):
        compiled.append(arguments)
        return compiler.compile_plan(*arguments, **options)

    monkeypatch.setattr(runtime, "compile_plan", compile_plan)
    runtime._plans.clear()
    model = net(backend)
    for rows, plans in ((12, 1), (5, 1), (12, 1), (2, 1), (13, 2), (12, 2)):
        model.forward(np.resize(X, (rows, 3)))
        assert len(compiled) == plans
    fit = fn.Trainer(model, fn.MSELoss()).fit
    for rows in (12, 7, 12):  # the last minibatches are smaller
        fit(X[:rows], DY[:rows], epochs=2, batch_size=5, verbose=0)
    assert len(compiled) == 3


def test_each_training_forward_draws_dropout_anew(backend):
    ones = np.ones((4, 50), "f")
    model = fn.Sequential(fn.Dropout(0.5), backend=backend, seed=3)
    twin = fn.Sequential(fn.Dropout(0.5), backend="reference", seed=3)
    first, second, third, fourth = (twin.forward(ones) for _ in range(4))
    assert len({mask.tobytes() for mask in (first, second, third, fourth)}) == 4
    np.testing.assert_array_equal(model.forward(ones), first)
    model.eval().forward(ones)  # draws nothing, like predict
    model.train().predict(ones)
    np.testing.assert_array_equal(model.forward(ones), second)
    loss = model.value_and_grad(fn.MSELoss(), ones, third + 1)
    assert loss == pytest.approx(1.0)
    np.testing.assert_array_equal(model.forward(ones), fourth)
    model.reset_parameters()
    np.testing.assert_array_equal(model.forward(ones), first)


def test_each_dropout_of_a_model_draws_for_itself(backend):
    model = fn.Sequential(fn.Dropout(0.5), fn.Dropout(0.5), backend=backend, seed=3)
    share = np.mean(model.forward(np.ones((100, 100), "f")) > 0)
    assert share == pytest.approx(0.25, abs=0.03)


def unaligned(x):
    block = np.zeros(x.nbytes + 1, np.uint8)
    view = block[1:].view(x.dtype).reshape(x.shape)
    view[:] = x
    assert not view.flags.aligned
    return view


def frozen(x):
    x = x.copy()
    x.flags.writeable = False
    return x


class Tensor:
    """An array as other libraries hand theirs out."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


class Wrapped:
    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return np.array(self.array, dtype, copy=copy)


KINDS = {
    "__dlpack__": lambda x: Tensor(x.copy()),
    "__array__": lambda x: Wrapped(x.copy()),
    "buffer": lambda x: memoryview(x.copy()),
    "float32": lambda x: x.astype("f"),
    "uint8": lambda x: x.astype("u1"),
    "int64": lambda x: x.astype("i8"),
    "big-endian": lambda x: x.astype(">f4"),
    "float16": lambda x: x.astype("e"),
    "fortran": np.asfortranarray,
    "strided": lambda x: np.repeat(np.repeat(x, 2, 0), 3, 1)[::2, ::3],
    "reversed": lambda x: x[::-1, ::-1].copy()[::-1, ::-1],
    "read-only": frozen,
    "unaligned": unaligned,
    "list": lambda x: x.tolist(),
}


def plain(given):
    return np.asarray(given.array if isinstance(given, (Tensor, Wrapped)) else given)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_inputs_of_any_kind_give_the_same_and_stay_as_they_are(backend, kind, dtype):
    whole = np.random.default_rng(1).integers(0, 9, size=(6, 3)).astype("float64")
    given, before = KINDS[kind](whole), KINDS[kind](whole)
    results = []
    for x in (given, whole.astype(dtype)):
        layers = fn.Linear(3, 4), fn.ReLU(), fn.Linear(4, 3)
        model = fn.Sequential(*layers, dtype=dtype, backend=backend, seed=2)
        outputs = [model.predict(x), model.forward(x), model.backward(x)]
        loss = model.value_and_grad(fn.MSELoss(), x, x)
        fn.Trainer(model, fn.MSELoss(), seed=0).fit(x, x, batch_size=4, verbose=0)
        results.append([*outputs, loss, *values(model).values()])
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(*map(plain, (given, before)))


def test_a_prediction_may_be_written_over_its_input(backend):
    model = fn.Sequential(fn.Linear(3, 3), backend=backend, seed=0)
    x = np.random.default_rng(0).normal(size=(9, 3)).astype("float32")
    expected = model.predict(x)
    room = np.zeros((14, 3), "float32")
    room[:9] = x
    model.predict(room[:9], batch_size=4, out=room[5:])
    np.testing.assert_array_equal(room[5:], expected)


class OnAnotherDevice:
    """Speaks DLPack, but not of memory that NumPy can reach."""

    def __dlpack__(self, **options):
        raise BufferError("the array is on another device")

    def __dlpack_device__(self):
        return (1, 0)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (OnAnotherDevice(), "x cannot be read by DLPack: the array is on another device"),
        (np.ma.masked_less([[0.0, 1.0, 2.0]], 1), "x is a masked array with masked values"),
    ],
    ids=["device", "masked"],
)
def test_arrays_that_cannot_be_read_whole_are_refused(x, message):
    with pytest.raises(fn.errors.DataError, match=message):
        net("reference").predict(x)
