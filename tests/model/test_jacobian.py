"""The Jacobian of outputs by inputs and by parameters."""

from __future__ import annotations

import numpy as np
import pytest

import fastnet as fn
from fastnet.errors import HyperparameterError, ShapeError, UsageError
from fastnet.model import jacobian


def net(backend, *layers, inputs=5, outputs=3):
    middle = layers or (fn.BatchNorm1d(8), fn.Tanh(), fn.Dropout(0.5))
    model = fn.Sequential(
        fn.Linear(inputs, 8),
        *middle,
        fn.Linear(8, outputs),
        dtype="float64",
        backend=backend,
        seed=2,
    )
    model.forward(np.random.default_rng(6).normal(2, 3, size=(50, inputs)))  # moves statistics
    return model


def differences(model, x):
    """∂y/∂x by central differences, (n, k, d)."""
    steps = 1e-5 * np.eye(x.shape[1])
    slopes = [(model.predict(x + h) - model.predict(x - h)) / 2e-5 for h in steps]
    return np.stack(slopes, axis=2)


@pytest.mark.parametrize(("inputs", "outputs"), [(5, 3), (2, 7)])
@pytest.mark.parametrize("rows", [1, 7, 300])
def test_it_is_the_slope_of_predict(backend, rows, inputs, outputs):
    model = net(backend, inputs=inputs, outputs=outputs)
    x = np.random.default_rng(0).normal(size=(rows, inputs))
    found, expected = model.jacobian(x), differences(model, x)
    assert found.shape == (rows, outputs, inputs) and found.dtype == np.float64
    np.testing.assert_allclose(found, expected, atol=1e-8)
    for outputs, chosen in (([2, 0], [2, 0]), (1, [1])):  # perhaps by the other mode
        some = model.jacobian(x, outputs)
        np.testing.assert_allclose(some, found[:, chosen], rtol=1e-12, atol=1e-15)


def test_both_modes_agree(backend, monkeypatch):
    model, x = net(backend), np.random.default_rng(1).normal(size=(300, 5))
    found = []
    for work in (0, 1000):  # forward mode, and reverse mode
        monkeypatch.setattr(jacobian, "FORWARD", work)
        by_parameters = model.jacobian(x[:4], wrt="parameters")
        found.append([model.jacobian(x), *by_parameters.values()])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)


def test_by_parameters_it_is_the_gradient_of_each_output(backend):
    model, x = net(backend).eval(), np.random.default_rng(2).normal(size=(4, 5))
    found = model.jacobian(x, [2, 1], wrt="parameters")
    assert list(found) == list(model.named_parameters())
    for i in range(4):
        for j, output in enumerate((2, 1)):
            model.zero_grad()
            model.forward(x[i : i + 1])
            model.backward(np.eye(3)[[output]])
            for name, g in model.grads.items():
                np.testing.assert_allclose(found[name][i, j], g, rtol=1e-12, atol=1e-15)


def test_frozen_parameters_have_none_and_few_others_take_forward_mode(backend):
    model, x = net(backend, outputs=9), np.random.default_rng(3).normal(size=(6, 5))
    whole = model.jacobian(x, wrt="parameters")
    model.freeze().unfreeze("4.bias")
    model.freeze("4.bias").unfreeze("1.bias")
    found = model.jacobian(x, wrt="parameters")
    assert list(found) == ["1.bias"]
    np.testing.assert_allclose(found["1.bias"], whole["1.bias"], rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(model.jacobian(x), net(backend, outputs=9).jacobian(x))
    assert model.freeze().jacobian(x, wrt="parameters") == {}


def test_nothing_else_changes(backend):
    model, rng = net(backend), np.random.default_rng(4)
    x, y, loss = rng.normal(size=(20, 5)), rng.integers(0, 3, 20), fn.CrossEntropyLoss()
    model.value_and_grad(loss, x, y)
    gradients = {name: g.copy() for name, g in model.grads.items()}
    output = model.forward(x)
    state, version = model.state_dict(), model.version
    for wrt in ("x", "parameters"):
        model.jacobian(x, wrt=wrt)
        model.jacobian(rng.normal(size=(1, 5)), wrt=wrt)
    for name, g in model.grads.items():
        np.testing.assert_array_equal(g, gradients[name])
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, state[name])
    assert model.training and model.version == version
    loss.forward(output, y)
    model.zero_grad()
    model.backward(loss.backward())  # of the forward before


def test_a_layer_without_tangents_takes_reverse_mode():
    class Cubed(fn.CustomLayer):
        """y = x³."""

        def forward(self, x, saved):
            saved.x = x
            return x**3

        def backward(self, dy, saved):
            return 3 * dy * saved.x**2

    model = net("reference", Cubed(), inputs=2, outputs=7)
    x = np.random.default_rng(5).normal(size=(3, 2))
    np.testing.assert_allclose(model.jacobian(x), differences(model, x), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("wrt", ["x", "parameters"])
def test_no_rows(backend, wrt):
    found = net(backend).jacobian(np.zeros((0, 5)), wrt=wrt)
    assert (found if wrt == "x" else found["4.weight"]).shape[:2] == (0, 3)


def test_a_model_that_hands_its_inputs_on():
    x = np.random.default_rng(6).normal(size=(4, 3))
    model = fn.Sequential(fn.Identity(), backend="reference", dtype="float64")
    np.testing.assert_array_equal(model.jacobian(x), np.broadcast_to(np.eye(3), (4, 3, 3)))
    assert model.jacobian(x, wrt="parameters") == {}


@pytest.mark.parametrize("outputs", [3, -1, 1.0, [], [[0, 1]], "0", True, [0, 3], [[1], [1, 2]]])
def test_bad_outputs(outputs):
    with pytest.raises(HyperparameterError, match=r"^outputs is .*expected None, the number"):
        net("reference").jacobian(np.zeros((4, 5)), outputs)


def test_bad_arguments():
    model = net("reference")
    with pytest.raises(
        HyperparameterError, match=r"^wrt is 'y'; expected one of 'x', 'parameters'"
    ):
        model.jacobian(np.zeros((4, 5)), wrt="y")
    with pytest.raises(ShapeError):
        model.jacobian(np.zeros((4, 6)))
    with pytest.raises(UsageError, match="expected dense rows"):
        model.jacobian(fn.Scaled(np.zeros((4, 5), np.uint8), 1 / 255))
    joined = net("reference", fn.BatchNorm1d(8, track_running_stats=False))
    with pytest.raises(UsageError, match=r"BatchNorm1d.*has no running statistics.*track_running"):
        joined.jacobian(np.zeros((4, 5)))


LAYERS = {
    "Linear, Tanh": lambda: (fn.Tanh(),),
    "ReLU, LayerNorm": lambda: (fn.ReLU(), fn.LayerNorm(8)),
    "SiLU, RMSNorm": lambda: (fn.SiLU(), fn.RMSNorm(8)),
    "GELU, BatchNorm1d": lambda: (fn.GELU(), fn.BatchNorm1d(8)),
    "Softmax": lambda: (fn.Softmax(),),
}


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # torch's own calls
@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize(("inputs", "outputs"), [(5, 3), (2, 7)])
def test_it_is_pytorchs(layers, inputs, outputs):
    torch = pytest.importorskip("torch")
    model = net("reference", *LAYERS[layers](), inputs=inputs, outputs=outputs).eval()
    module = model.to_torch().eval()
    x = np.random.default_rng(7).normal(size=(6, inputs))
    given = torch.from_numpy(x)
    for of in (torch.func.jacrev, torch.func.jacfwd):
        expected = torch.vmap(of(lambda row: module(row[None])[0]))(given)
        np.testing.assert_allclose(
            model.jacobian(x), expected.detach().numpy(), rtol=1e-10, atol=1e-12
        )
    parameters = dict(module.named_parameters())

    def outputs_at(p, row):
        return torch.func.functional_call(module, p, (row[None],))[0]

    every = torch.vmap(torch.func.jacrev(outputs_at), (None, 0))(parameters, given)
    found = model.jacobian(x, wrt="parameters")
    assert list(found) == list(every)
    for name, expected in every.items():
        np.testing.assert_allclose(
            found[name], expected.detach().numpy(), rtol=1e-10, atol=1e-12, err_msg=name
        )
