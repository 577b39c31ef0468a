"""Every op's vector-Jacobian product, and whole models', against finite differences in float64."""

from __future__ import annotations

from itertools import count

import gradcheck
import numpy as np
import pytest

import fastnet as fn
from fastnet.op import KERNELS, Kernel
from fastnet.tangents import curves

VJPS = [kernel.op for kernel in KERNELS.values() if kernel.phase == "vjp"]
SIZES = [(4, (3, 5)), (3, (1, 1)), (2, (4, 2))]  # rows, dims


def by_name(op):
    return op.name


# Ops that round, whose differences are steps: tests/layers/test_bfloat16.py.
STEPS = {"bfloat16_linear"}


def cases():
    for op in (op for op in VJPS if op.name not in STEPS):
        for rows, dims in SIZES:
            sizes = gradcheck.named(op, dims, rows)
            for absent in dict.fromkeys([(), op.optional]):
                yield pytest.param(op, rows, sizes, absent, id=f"{op.name}-{rows}x{dims}-{absent}")


@pytest.mark.parametrize(("op", "rows", "sizes", "absent"), list(cases()))
def test_vjp_equals_finite_differences(op, rows, sizes, absent):
    gradcheck.check_vjp(op, rows, sizes, absent)


def test_every_op_that_a_model_applies_is_checked():
    updates = {kernel.op for kernel in KERNELS.values() if kernel.phase == "update"}
    # Tests of graphs are of those whose gradients are other ops: tests/model/test_random_graphs.py.
    names = ["add_to", "decision", "add", "multiply", "spread", "sum_members", "spread_labels"]
    names += ["gaussian_slope", "gaussian_curve"]  # of second derivatives: tests/tangents
    names += ["bfloat16_pairs", "bfloat16_pairs_linear"]  # of predictions alone
    without = {KERNELS[f"{name}_forward"].op for name in names} | set(curves.every())
    assert set(VJPS) | updates == set(gradcheck.ops()) - without


@pytest.mark.parametrize("op", VJPS, ids=by_name)
def test_gradients_of_parameters_accumulate(op):
    kernel = op.kernels["vjp"]
    tensors = gradcheck.vjp_operands(op, 5, gradcheck.named(op, (3, 2), 5))
    alone = gradcheck.evaluate(kernel, tensors)
    start = {
        name: np.full(grad.shape, 10.0 * i) for i, (name, grad) in zip(count(1), alone.items())
    }
    added = gradcheck.evaluate(kernel, tensors, into=start)
    for name, grad in alone.items():
        expected = grad + start[name] if gradcheck.accumulates(kernel, name) else grad
        np.testing.assert_allclose(added[name], expected, rtol=1e-15)


@pytest.mark.parametrize("op", VJPS, ids=by_name)
def test_unwanted_gradients_change_nothing(op):
    kernel = op.kernels["vjp"]
    tensors = gradcheck.vjp_operands(op, 5, gradcheck.named(op, (3, 2), 5))
    together = gradcheck.evaluate(kernel, tensors)
    for name in together:
        alone = gradcheck.evaluate(kernel, tensors, absent=set(together) - {name})
        assert list(alone) == [name]
        np.testing.assert_array_equal(alone[name], together[name])


@pytest.mark.parametrize("wrong", [lambda g: g * (1 + 1e-6), np.zeros_like, lambda g: g[::-1]])
def test_the_check_finds_a_wrong_gradient(monkeypatch, wrong):
    kernel = KERNELS["linear_vjp"]

    def broken(dx, dw, db, dy, x, w, accumulate):
        kernel.function(dx, dw, db, dy, x, w, accumulate)
        dw[...] = wrong(dw.copy())

    changed = Kernel(**{**vars(kernel), "function": broken})
    monkeypatch.setitem(kernel.op.kernels, "vjp", changed)
    with pytest.raises(AssertionError, match="dw is off"):
        gradcheck.check_vjp(kernel.op, 4, {"I": 3, "O": 2})


MODELS = {
    "mlp": lambda: [fn.Linear(5, 7), fn.Tanh(), fn.Linear(7, 3)],
    "activations": lambda: [
        fn.Linear(5, 8, bias=False),
        fn.ReLU(),
        fn.Linear(8, 6),
        fn.LeakyReLU(-0.3),
        fn.Linear(6, 6),
        fn.Sigmoid(),
    ],
    "batchnorm": lambda: [
        fn.Linear(5, 6),
        fn.BatchNorm1d(6, eps=0.01),
        fn.ReLU(),
        fn.Dropout(0.3),
        fn.Linear(6, 4),
        fn.BatchNorm1d(4, affine=False, eps=0.01),
        fn.Dropout(0.5),
    ],
    "rows": lambda: [
        fn.Scale(5),
        fn.NTKLinear(5, 6),
        fn.LayerNorm(6, eps=0.01),
        fn.AlphaDropout(0.3),
        fn.RMSNorm(6, eps=0.01),
        fn.GaussianNoise(0.5),
        fn.Bias(6),
        fn.Tanh(),
        fn.NTKLinear(6, 4, bias=False),
        fn.LayerNorm(4, eps=0.01, bias=False),
        fn.RMSNorm(4, eps=0.01, elementwise_affine=False),
    ],
    "statistics of each minibatch": lambda: [
        fn.Linear(5, 6),
        fn.BatchNorm1d(6, eps=0.01, track_running_stats=False),
        fn.Tanh(),
    ],
    "radial": lambda: [fn.Linear(5, 3), fn.RBF(3, 4), fn.RBF(5, 6, False), fn.Linear(6, 2)],
    "gated": lambda: [fn.Linear(5, 8), fn.GLU(), fn.Linear(4, 6), fn.SwiGLU(), fn.Linear(3, 2)],
    "periodic": lambda: [
        fn.Periodic(5, 3, 0.1),
        fn.Linear(30, 2),
        fn.Periodic(2, 3, 0.2, phases=True),
        fn.Linear(6, 2),
    ],
    "tabular": lambda: [
        fn.PBLD(3, 4, 3, 0.2, others=2),
        fn.Linear(11, 4),
        fn.ParametricActivation("mish", 4),
        fn.PBLD(4, 2, 2, 0.2),
        fn.ParametricActivation(fn.ELU(0.7), 8),
        fn.Linear(8, 2),
    ],
    "piecewise": lambda: [
        fn.Linear(5, 2),
        fn.PiecewiseLinear([[-1, 0.1, 1], [-2, 2]], 3),
        fn.PiecewiseLinear([[-1, 1]] * 6),
        fn.PiecewiseLinear([[-1, 0.1, 1], *[[-1, 1]] * 5], 2, "B"),
        fn.Linear(12, 2),
    ],
    "ensemble": lambda: [
        fn.Linear(5, 3),
        fn.EnsembleView(4),
        fn.LinearBatchEnsemble(3, 6, 4, r_init=fn.init.Normal(), s_init=fn.init.Normal(1, 0.2)),
        fn.Tanh(),
        fn.Dropout(0.3),
        fn.LinearBatchEnsemble(6, 5, 4, bias=False),
        fn.LinearEnsemble(5, 3, 4),
        fn.EnsembleMean(4, "probabilities"),
    ],
    "ensemble of values": lambda: [
        fn.EnsembleView(3),
        fn.LinearEnsemble(5, 2, 3, bias=False),
        fn.Residual(fn.LinearBatchEnsemble(2, 2, 3)),
        fn.EnsembleMean(3),
        fn.Concat(fn.EnsembleView(2), fn.Sequential(fn.EnsembleView(2), fn.Tanh())),
    ],
    "columns": lambda: [
        fn.Linear(5, 6),
        fn.Concat(fn.Sequential(fn.Columns([4, 0, 4]), fn.Tanh()), fn.Columns([2, 3])),
    ],
    "no parameters": lambda: [fn.Tanh(), fn.Dropout(0.4), fn.Sigmoid()],
    "one column": lambda: [fn.Linear(5, 1), fn.Tanh(), fn.Linear(1, 1)],
}


@pytest.fixture(params=MODELS)
def model(request, backend):
    return fn.Sequential(*MODELS[request.param](), dtype="float64", backend=backend, seed=3)


def test_model(model):
    x = gradcheck.normal(np.random.default_rng(0), (6, 5))
    gradcheck.check_model(model, x)
    gradcheck.check_model(model.eval(), x)


def test_model_in_mixed_modes(backend):
    layers = MODELS["batchnorm"]()
    model = fn.Sequential(*layers, dtype="float64", backend=backend, seed=3)
    layers[1].eval()
    layers[6].eval()
    gradcheck.check_model(model, gradcheck.normal(np.random.default_rng(0), (6, 5)))


@pytest.mark.parametrize("name", ["mlp", "activations", "batchnorm"])
def test_loss_of_a_model(name, backend):
    random = np.random.default_rng(4)
    model = fn.Sequential(*MODELS[name](), dtype="float64", backend=backend, seed=3)
    x = gradcheck.normal(random, (6, 5))
    width = model.output_shape((5,))[0]
    gradcheck.check_loss_gradient(model, fn.MSELoss(), x, gradcheck.normal(random, (6, width)))
    labels = random.integers(0, width, 6)
    gradcheck.check_loss_gradient(model.eval(), fn.CrossEntropyLoss(), x, labels)
