"""Initialisers: distributions, and that a model's first values depend on its seed alone."""

from __future__ import annotations

import math

import numpy as np
import pytest

import fastnet as fn
from fastnet import init
from fastnet.errors import HyperparameterError

FAN_IN, FAN_OUT = 800, 1250
SHAPE = (FAN_IN, FAN_OUT)  # 1e6 draws
COUNT = FAN_IN * FAN_OUT

# Bounds of the uniform ones, by the formulas of their papers.
UNIFORM = [
    (init.KaimingUniform(), math.sqrt(6 / FAN_IN)),
    (init.KaimingUniform(a=0.5, mode="fan_out"), math.sqrt(6 / (1.25 * FAN_OUT))),
    (init.KaimingUniform(a=math.sqrt(5)), 1 / math.sqrt(FAN_IN)),  # PyTorch's Linear
    (init.GlorotUniform(), math.sqrt(6 / (FAN_IN + FAN_OUT))),
    (init.GlorotUniform(gain=5 / 3), 5 / 3 * math.sqrt(6 / (FAN_IN + FAN_OUT))),
    (init.GlorotUniform(gain=4.0), 4 * math.sqrt(6 / (FAN_IN + FAN_OUT))),  # for sigmoids
    (init.GlorotUniform(nonlinearity="tanh"), 5 / 3 * math.sqrt(6 / (FAN_IN + FAN_OUT))),
    (init.KaimingUniform(nonlinearity="linear", mode="fan_out"), math.sqrt(3 / FAN_OUT)),
    (init.LecunUniform(), math.sqrt(3 / FAN_IN)),
    (init.FanInUniform(), 1 / math.sqrt(FAN_IN)),
    (init.Uniform(-10, 10), 10.0),
]
# Standard deviations of the normal ones.
NORMAL = [
    (init.KaimingNormal(), math.sqrt(2 / FAN_IN)),
    (init.KaimingNormal(a=2.0, mode="fan_out"), math.sqrt(2 / (5 * FAN_OUT))),
    (init.GlorotNormal(), math.sqrt(2 / (FAN_IN + FAN_OUT))),
    (init.GlorotNormal(gain=0.1), 0.1 * math.sqrt(2 / (FAN_IN + FAN_OUT))),
    (init.KaimingNormal(nonlinearity="selu"), 0.75 / math.sqrt(FAN_IN)),
    (init.LecunNormal(), 1 / math.sqrt(FAN_IN)),
    (init.Normal(std=0.25), 0.25),
]


def drawn(initializer, shape=SHAPE):
    return initializer.sample(shape, FAN_IN, FAN_OUT, init.Draw(seed=1, stream=2, step=3))


@pytest.mark.parametrize(("initializer", "bound"), UNIFORM, ids=repr)
def test_uniform(initializer, bound):
    w = drawn(initializer)
    assert w.shape == SHAPE
    assert w.dtype == np.float64
    assert bound * (1 - 20 / COUNT) < w.max() < bound
    assert -bound < w.min() < -bound * (1 - 20 / COUNT)
    assert abs(w.mean()) < 5 * bound / math.sqrt(3 * COUNT)
    assert abs(w.var() / (bound**2 / 3) - 1) < 5 * math.sqrt(0.8 / COUNT)


@pytest.mark.parametrize(("initializer", "std"), NORMAL, ids=repr)
def test_normal(initializer, std):
    z = drawn(initializer) / std
    assert z.shape == SHAPE
    assert z.dtype == np.float64
    for power, mean, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)]:
        assert abs((z**power).mean() - mean) < 5 * math.sqrt(variance / COUNT)


def test_uniform_and_normal_anywhere():
    """The same draws, moved."""
    np.testing.assert_allclose(drawn(init.Uniform(2, 5)), 3.5 + drawn(init.Uniform(-1.5, 1.5)))
    np.testing.assert_allclose(drawn(init.Normal(-3, 2)), 2 * drawn(init.Normal()) - 3)
    whole = drawn(init.Uniform(-1e308, 1e308))
    assert np.isfinite(whole).all() and whole.max() > 0.99e308


@pytest.mark.parametrize(
    ("initializer", "value"), [(init.Zeros(), 0.0), (init.Ones(), 1.0), (init.Constant(-1.5), -1.5)]
)
def test_constant(initializer, value):
    np.testing.assert_array_equal(drawn(initializer, (2, 3)), np.full((2, 3), value))


def test_a_constant_bias_for_relu(backend):
    model = fn.Sequential(fn.Linear(3, 4, bias_init=init.Constant(0.01)), backend=backend)
    np.testing.assert_array_equal(model.state_dict()["0.bias"], np.full(4, np.float32(0.01)))


@pytest.mark.parametrize("shape", [(7, 7), (30, 8), (8, 30), (1, 5), (5, 1)])
def test_orthogonal(shape):
    w = drawn(init.Orthogonal(gain=3.0), shape) / 3
    assert w.shape == shape
    short = w.T @ w if shape[0] >= shape[1] else w @ w.T
    np.testing.assert_allclose(short, np.eye(min(shape)), atol=1e-14)


def test_the_gain_of_orthogonal_and_its_nonlinearity_multiply():
    plain = drawn(init.Orthogonal(), (4, 6))
    both = drawn(init.Orthogonal(gain=2.0, nonlinearity="tanh"), (4, 6))
    np.testing.assert_allclose(both, 10 / 3 * plain, rtol=1e-14)


def test_orthogonal_is_uniform():
    """Over 4000 rotations of the plane: the angle of each is uniform, and half of them reflect.

    Without the signs of R the first column would keep to a half plane.
    """
    count = 4000
    draws = [init.Draw(seed=1, stream=2, step=step) for step in range(count)]
    q = np.array([init.Orthogonal().sample((2, 2), 2, 2, draw) for draw in draws])
    angle = np.arctan2(q[:, 1, 0], q[:, 0, 0])
    for k in (1, 2, 3):
        assert abs(np.exp(1j * k * angle).mean()) < 4 / math.sqrt(count)
    reflected = np.linalg.det(q) < 0
    assert abs(reflected.mean() - 0.5) < 4 * 0.5 / math.sqrt(count)


@pytest.mark.parametrize(
    ("sparsity", "shape", "zeros"),
    [
        (0.9, (100, 40), 90),
        (0.0, (10, 3), 0),
        (0.29, (100, 7), 29),
        (0.99, (10, 4), 9),
        (1, (3, 3), 3),
    ],
)
def test_sparse(sparsity, shape, zeros):
    """As many incoming weights of each unit are zero, and not the same ones."""
    w = drawn(init.Sparse(sparsity), shape)
    np.testing.assert_array_equal((w == 0).sum(axis=0), np.full(shape[1], zeros))
    if 0 < zeros < shape[0]:
        assert len({tuple(column) for column in (w == 0).T}) > 1


def test_sparse_draws():
    """The others are normal, and zeros fall anywhere: 1e6 draws."""
    w = drawn(init.Sparse(0.75, std=2.0))
    z = w[w != 0] / 2.0
    assert z.size == COUNT // 4
    for power, mean, variance in [(1, 0, 1), (2, 1, 2), (4, 3, 96)]:
        assert abs((z**power).mean() - mean) < 5 * math.sqrt(variance / z.size)
    share = (w == 0).mean(axis=1)  # of each input
    assert np.abs(share - 0.75).max() < 5 * math.sqrt(0.75 * 0.25 / FAN_OUT)


def test_gains():
    assert init.calculate_gain("leaky_relu", 0.5) == math.sqrt(2 / 1.25)
    assert init.calculate_gain("tanh") == 5 / 3
    for make in (init.GlorotNormal, init.GlorotUniform):
        std = make(gain=2.0, nonlinearity="relu").std(3, 5)
        assert std == pytest.approx(2 * math.sqrt(2) * math.sqrt(2 / 8), rel=1e-15)


def test_other_names():
    assert init.XavierNormal is init.GlorotNormal and init.XavierUniform is init.GlorotUniform
    assert init.HeNormal is init.KaimingNormal and init.HeUniform is init.KaimingUniform


def test_the_default_of_linear_is_pytorchs():
    """U(−1/√in, 1/√in) for weights and bias."""
    layer = fn.Linear(100, 1000)
    layer.reset_parameters(seed=0)
    for value in (layer.weight, layer.bias):
        assert 0.0999 * (1 - 10 / value.size) < np.abs(value).max() <= 0.1
        assert abs(value.var() / (0.01 / 3) - 1) < 5 * math.sqrt(0.8 / value.size)


def test_the_fans_are_the_layers():
    layer = fn.Linear(
        400, 25, weight_init=init.GlorotUniform(), bias_init=init.KaimingUniform(mode="fan_out")
    )
    layer.reset_parameters(seed=0)
    assert 0.99 < np.abs(layer.weight).max() / math.sqrt(6 / 425) <= 1
    assert 0.5 < np.abs(layer.bias).max() / math.sqrt(6 / 25) <= 1


def values(seed, dtype="float64", backend="reference"):
    model = fn.Sequential(
        fn.Linear(4, 4),
        fn.Linear(4, 4, weight_init=init.KaimingNormal()),
        fn.Linear(4, 4, weight_init=init.KaimingNormal(), bias_init=init.GlorotUniform()),
        fn.Linear(4, 4),
        fn.BatchNorm1d(4),
        dtype=dtype,
        backend=backend,
        seed=seed,
    )
    return {name: value.copy() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_numbers_are_the_same_on_every_backend_and_dtype(backend, dtype):
    expected = values(7)
    for name, value in values(7, dtype, backend).items():
        np.testing.assert_array_equal(value, expected[name].astype(value.dtype), err_msg=name)


def test_seeds_layers_and_parameters_draw_apart():
    """Weights and biases of equal distributions, in one model and in a model with another seed."""
    draws = [v for seed in (7, 8) for n, v in values(seed).items() if n[0] in "0123"]
    draws = [np.round(v, 12) for v in draws]  # bounds of one meaning differ in the last bit
    firsts = [float(np.abs(v).ravel()[0]) for v in draws]
    assert len(set(firsts)) == len(firsts) == 16
    shared = [np.intersect1d(a, b).size for i, a in enumerate(draws) for b in draws[:i]]
    assert max(shared) == 0


def test_the_first_values_of_batchnorm():
    expected = {
        "weight": 1,
        "bias": 0,
        "running_mean": 0,
        "running_var": 1,
        "num_batches_tracked": 0,
    }
    for name, value in expected.items():
        assert (values(0)[f"4.{name}"] == value).all()


def test_the_first_values_of_layers_of_features_and_rows():
    for layer in (fn.LayerNorm(4), fn.RMSNorm(4), fn.Scale(4), fn.Bias(4)):
        layer.reset_parameters(seed=0)
        for name, value in layer.state_dict().items():
            np.testing.assert_array_equal(value, np.full(4, float(name == "weight")))


def test_the_first_values_of_an_ntk_layer_are_standard_normal():
    """And its outputs for inputs of variance 1 have the variance 2, that of the products and the bias."""
    layer = fn.NTKLinear(300, 400)
    layer.reset_parameters(seed=1)
    assert layer.weight.shape == (400, 300)
    for value in (layer.weight, layer.bias):
        assert abs(value.mean()) < 5 / math.sqrt(value.size)
        assert abs(value.var() - 1) < 5 * math.sqrt(2 / value.size)
    y = layer.forward(np.random.default_rng(0).normal(size=(200, 300)))
    assert abs(y.var() - 2) < 0.3


def test_the_order_is_row_major_in_memory():
    """(in, out): pinned, since saved seeds must keep their meaning."""
    layer = fn.Linear(2, 3, weight_init=init.KaimingUniform(a=0.0))
    layer.reset_parameters(seed=11)
    where = init.Draw(11, fn.random.stream_of(fn.random.INIT, 0), 0)
    flat = where.uniform((6,), math.sqrt(6 / 2)).astype(np.float32)
    np.testing.assert_array_equal(layer.weight, flat.reshape(2, 3).T)


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: init.KaimingUniform(a=math.nan), "a"),
        (lambda: init.KaimingNormal(a="1"), "a"),
        (lambda: init.KaimingNormal(mode="fan_avg"), "mode"),
        (lambda: init.GlorotUniform(gain=0.0), "gain"),
        (lambda: init.GlorotNormal(gain=math.inf), "gain"),
        (lambda: init.KaimingNormal(nonlinearity="gelu"), "nonlinearity"),
        (lambda: init.KaimingUniform(a=0.2, nonlinearity="relu"), "a"),
        (lambda: init.Orthogonal(nonlinearity=None), "nonlinearity"),
        (lambda: init.calculate_gain("spam"), "nonlinearity"),
        (lambda: init.calculate_gain("relu", 0.1), "param"),
        (lambda: init.Uniform(1.0, 1.0), "b"),
        (lambda: init.Constant(math.nan), "value"),
        (lambda: fn.Linear(2, 2, weight_init="kaiming"), "weight_init"),
        (lambda: fn.Linear(2, 2, bias_init=0.0), "bias_init"),
        (lambda: fn.Linear(2, 2, bias_init=init.Orthogonal()), "bias_init"),
        (lambda: fn.Linear(2, 2, bias_init=init.Sparse(0.5)), "bias_init"),
    ],
)
def test_bad_arguments_raise_and_are_named(make, argument):
    with pytest.raises(HyperparameterError, match=f"^{argument} is "):
        make()


def test_initialisers_are_values():
    assert init.GlorotUniform(gain=2.0) == init.GlorotUniform(gain=2.0)
    assert init.GlorotUniform() != init.GlorotNormal()
    assert repr(init.KaimingUniform(a=0.5)) == "init.KaimingUniform(a=0.5)"
    assert repr(init.Sparse(0.5)) == "init.Sparse(0.5)"
    assert repr(init.LecunNormal()) == "init.LecunNormal()"


def test_an_initialiser_of_ones_own_equals_itself_alone():
    class Own(init.Initializer):
        def __init__(self) -> None:
            self.kept = np.zeros(3)  # neither to be hashed nor compared

    own, other = Own(), Own()
    assert [own, other].index(other) == 1 and len({own, other, own}) == 2
