"""fn.check.gradients: it finds wrong gradients, and tells kinks from faults."""

from __future__ import annotations

import copy
from typing import ClassVar

import numpy as np
import pytest
from refusals import refused

import fastnet as fn
from fastnet.errors import CheckFailed, DivergenceError, HyperparameterError, ShapeError
from fastnet.op import Op

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(40, 5)).astype("f")
LABELS = RANDOM.integers(0, 3, 40)
LINEAR = fn.Linear(5, 3)


def net(*layers, width=3, **options):
    return fn.Sequential(fn.Linear(5, 6), *layers, fn.Linear(6, width), seed=1, **options)


LOSSES = [
    (fn.CrossEntropyLoss(), LABELS),
    (fn.CrossEntropyLoss([1, 2, 3], label_smoothing=0.1, reduction="sum"), LABELS),
    (fn.MSELoss(), X[:, :3]),
    (fn.BCEWithLogitsLoss(), (X[:, :3] > 0).astype(float)),
    (fn.PoissonNLLLoss(), np.abs(X[:, :3]).round()),
    (fn.GaussianNLLLoss(full=True), X[:, :3]),
]


@pytest.mark.parametrize(("loss", "y"), LOSSES, ids=lambda v: type(v).__name__)
def test_the_gradients_of_losses(backend, loss, y):
    if isinstance(loss, fn.GaussianNLLLoss):
        model = net(fn.Tanh(), fn.Linear(6, 6), fn.Softplus(), width=6, backend=backend)
        model = fn.Sequential(model, fn.Softplus(), backend=backend, seed=1)
    else:
        model = net(fn.Tanh(), backend=backend)
    report = fn.check.gradients(model, loss, X, y)
    assert report.ok and report and report.error < 1e-6, report
    names = [one.name for one in report.parameters]
    assert names == list(model.named_parameters())
    for one, value in zip(report.parameters, model.parameters(), strict=True):
        assert one.shape == value.shape and one.checked == min(20, value.size)
    assert report.kinks == {}


def test_the_loss_is_that_of_the_rows_in_float64():
    model = net(fn.Tanh())
    index = np.linspace(0, 39, 32).astype(int)
    exact = fn.Sequential(copy.deepcopy(model), dtype="float64")
    expected = exact.value_and_grad(fn.CrossEntropyLoss(), X[index], LABELS[index])
    assert fn.check.gradients(model, fn.CrossEntropyLoss(), X, LABELS).loss == expected
    expected = exact.value_and_grad(fn.CrossEntropyLoss(), X, LABELS)
    assert fn.check.gradients(model, fn.CrossEntropyLoss(), X, LABELS, rows=99).loss == expected


@pytest.mark.parametrize("respect_modes", [False, True])
def test_layers_that_draw_and_that_have_statistics(backend, respect_modes):
    layers = fn.BatchNorm1d(6), fn.PReLU(6), fn.Dropout(0.5), fn.NoisyReLU()
    model = net(*layers, backend=backend)
    model[1].eval()
    report = fn.check.gradients(
        model, fn.CrossEntropyLoss(), X, LABELS, respect_modes=respect_modes
    )
    assert report.ok, report


def test_nested_models():
    model = fn.Sequential(fn.Sequential(fn.Linear(5, 4), fn.Tanh()), fn.Linear(4, 3), seed=0)
    report = fn.check.gradients(model, fn.CrossEntropyLoss(), X, LABELS)
    assert report.ok and [one.name for one in report.parameters] == list(model.named_parameters())


def wrong(factor):
    def squared(y, t):
        return float(np.mean((y - t) ** 2)), factor * (y - t) / y.size

    return squared


def test_a_wrong_gradient_of_a_loss_of_ones_own_is_found(backend):
    model = net(fn.Tanh(), backend=backend)
    assert fn.check.gradients(model, wrong(2.0), X, X[:, :3]).ok
    for factor in (1.0, 2.001, -2.0):
        report = fn.check.gradients(model, wrong(factor), X, X[:, :3])
        assert not report.ok and not report
        expected = abs(factor - 2) / max(abs(factor), 2)
        assert report.error == pytest.approx(expected, rel=1e-2)
        assert "gradients: WRONG" in repr(report)
        one = report.parameters[0]
        assert one.gradient == pytest.approx(factor / 2 * one.difference, rel=1e-4)
        found = f"at {list(one.index)}: gradient {one.gradient:.6g}, difference"
        assert found in repr(report)


def test_a_wrong_backward_of_a_layer_of_ones_own_is_found(passing_ops):
    class tripled(Op):  # noqa: N801
        outputs: ClassVar = {"y": "B N"}
        inputs: ClassVar = {"x": "B N"}
        dims = ("N",)

        @staticmethod
        def forward(y, x):
            np.multiply(x, 3, out=y)

        @staticmethod
        def vjp(dx, dy):
            np.multiply(dy, 2, out=dx)

    class Tripled(fn.Layer):
        def emit(self, g, x):
            return g.apply(tripled, x=x)

    model = fn.Sequential(fn.Linear(5, 4), Tripled(), fn.Linear(4, 3), backend="reference", seed=1)
    report = fn.check.gradients(model, fn.CrossEntropyLoss(), X, LABELS)
    errors = {one.name: one.error for one in report.parameters}
    assert errors["0.weight"] == pytest.approx(1 / 3, rel=1e-2) and errors["2.weight"] < 1e-6
    assert not report.ok and report.kinks == {}


def at_a_kink(**options):
    """Inputs and biases 0: the rectifier's input is 0 exactly, on both sides of which slopes differ."""
    model = net(fn.ReLU(), **options)
    with model.edit() as p:
        p["0.bias"][:] = 0
        p["2.weight"][:] = np.abs(p["2.weight"])
    return model, np.zeros((8, 5))


def test_kinks_are_named_and_no_faults(backend):
    model, x = at_a_kink(backend=backend)
    report = fn.check.gradients(model, fn.MSELoss(), x, np.ones((8, 3)))
    assert report.ok, report
    assert report.kinks == {"layer 1 (ReLU)": 6}
    bias = report.parameters[1]
    assert (bias.name, bias.kinks, bias.checked) == ("0.bias", 6, 0)
    assert "6 elements not compared: kinks of layer 1 (ReLU)" in repr(report)


def test_a_kink_of_the_loss():
    model = fn.Sequential(fn.Linear(5, 3), seed=0)
    with model.edit() as p:
        p["0.weight"][:] = p["0.bias"][:] = 0
    report = fn.check.gradients(model, fn.MultiMarginLoss(margin=0.0), X, LABELS)
    assert report.ok and report.kinks == {"the loss": 18}, report


def test_smaller_differences_pass_a_kink_that_is_near():
    """At a distance of 3e-6 differences over ±1e-5 are wrong, and those over ±1e-6 right."""
    model = fn.Sequential(fn.Linear(5, 6), fn.ReLU(), fn.Linear(6, 3), seed=1, dtype="float64")
    with model.edit() as p:
        p["0.bias"][:] = 3e-6
    report = fn.check.gradients(model, fn.MSELoss(), np.zeros((8, 5)), np.ones((8, 3)))
    assert report.ok and report.kinks == {} and report.error < 1e-5
    assert all(one.kinks == 0 for one in report.parameters)


def test_a_fault_beside_a_kink_is_still_a_fault():
    model, x = at_a_kink()
    report = fn.check.gradients(model, wrong(1.0), x, np.ones((8, 3)))
    assert not report.ok and report.kinks == {"layer 1 (ReLU)": 6}
    assert {one.name for one in report.parameters if one.error > 1e-3} == {"2.bias"}


def bits(model):
    return (
        {name: value.tobytes() for name, value in model.state_dict().items()},
        {name: value.tobytes() for name, value in model.grads.items()},
        (model._draws, model.version, [layer.training for _, layer in model.layers]),
    )


def test_the_model_stays_as_it_is(backend):
    model = net(fn.BatchNorm1d(6), fn.Dropout(0.5), backend=backend)
    model[2].eval()
    model.forward(X)  # its backward is pending
    before = bits(model)
    for check in (fn.check.gradients, fn.check.initial_loss, fn.check.overfit):
        check(model, fn.CrossEntropyLoss(), X, LABELS)
        assert bits(model) == before
    model.backward(np.ones((40, 3)))


def test_it_raises_on_request():
    model = net(fn.Tanh())
    with pytest.raises(CheckFailed, match=r"^gradients: WRONG") as caught:
        fn.check.gradients(model, wrong(1.0), X, X[:, :3], raise_on_failure=True)
    assert isinstance(caught.value.report, fn.check.GradientReport)
    assert isinstance(caught.value, (fn.FastnetError, AssertionError))
    assert fn.check.gradients(model, wrong(2.0), X, X[:, :3], raise_on_failure=True).ok


def test_the_elements_depend_on_the_seed():
    def found(**options):
        report = fn.check.gradients(net(fn.Tanh()), wrong(1.0), X, X[:, :3], samples=2, **options)
        return [one.index for one in report.parameters]

    assert found() == found(seed=0) and found() != found(seed=1)


def test_the_report_is_a_table():
    text = repr(fn.check.gradients(net(fn.Tanh()), fn.CrossEntropyLoss(), X, LABELS))
    lines = text.splitlines()
    assert lines[0].startswith("gradients: ok, largest relative error ")
    assert lines[1].split() == [
        "parameter",
        "shape",
        "checked",
        "kinks",
        "largest",
        "relative",
        "error",
    ]
    assert [line.split()[0] for line in lines[2:]] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert text.isascii()


def test_a_model_without_parameters():
    report = fn.check.gradients(fn.Sequential(fn.Tanh()), fn.MSELoss(), X, X)
    assert report.ok and report.parameters == [] and report.error == 0.0


@pytest.mark.parametrize("check", [fn.check.gradients, fn.check.initial_loss, fn.check.overfit])
def test_what_all_refuse(check):
    loss = fn.CrossEntropyLoss()
    refused(lambda: check(LINEAR, loss, X, LABELS), HyperparameterError, "^model is .*Linear")
    refused(lambda: check(net(), 3, X, LABELS), HyperparameterError, "^loss is 3; expected a loss")
    refused(lambda: check(net(), loss, X[:, :2], LABELS), ShapeError, "^X has ")
    refused(lambda: check(net(), loss, X, LABELS[:3]), ValueError and ShapeError, "y has 3 rows|3")
    refused(lambda: check(net(), loss, X, LABELS + 9), fn.errors.DataError, "^y holds labels from")
    for name, bad in (("rows", 0), ("tolerance", -1), ("raise_on_failure", 1)):
        refused(
            lambda name=name, bad=bad: check(net(), loss, X, LABELS, **{name: bad}),
            HyperparameterError,
            f"^{name} is {bad}; expected",
        )


def test_what_is_refused():
    def check(**options):
        return fn.check.gradients(
            net(fn.BatchNorm1d(6)), fn.CrossEntropyLoss(), X, LABELS, **options
        )

    refused(lambda: check(samples=0), HyperparameterError, "^samples is 0; expected")
    refused(lambda: check(seed=-1), HyperparameterError, "^seed is -1; expected")
    refused(lambda: check(respect_modes=1), HyperparameterError, "^respect_modes is 1; expected")
    refused(lambda: check(rows=1), ShapeError, "^X has 1 rows here; expected at least 2")

    def infinite(y, t):
        return np.inf, y

    with pytest.raises(DivergenceError):
        fn.check.gradients(net(), infinite, X, X[:, :3])


def test_sparse_and_scaled_inputs():
    sparse = pytest.importorskip("scipy.sparse")
    whole = np.where(RANDOM.random((40, 5)) < 0.5, RANDOM.integers(0, 255, (40, 5)), 0)
    given = [sparse.csr_array(whole / 255), fn.Scaled(whole.astype("u1"), 1 / 255), whole / 255]
    for check, name in ((fn.check.gradients, "loss"), (fn.check.initial_loss, "loss")):
        found = [getattr(check(net(), fn.CrossEntropyLoss(), x, LABELS), name) for x in given]
        np.testing.assert_allclose(found[:2], found[2], rtol=1e-5)
    for x in given:
        assert (
            fn.check.overfit(net(fn.Tanh()), fn.CrossEntropyLoss(), x, LABELS, steps=2).rows == 16
        )
