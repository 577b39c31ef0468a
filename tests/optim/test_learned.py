"""The learned optimizer: its steps against a transcription, its weights, and what goes on from where."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from prescribed import draw, set_gradients
from refusals import refused
from safetensors.numpy import save_file

import fastnet as fn
from fastnet.errors import FileError, HyperparameterError, StateDictError
from fastnet.files import tensors
from fastnet.optim.learned import KIND, SHIPPED


def weights_of(units, layers, seed=0, size=0.7):
    """As PyTorch names and draws them, though larger."""
    random = np.random.default_rng(seed)
    found = {}
    for layer in range(layers):
        inputs = units if layer else 2
        shapes = {"weight_ih": (4 * units, inputs), "weight_hh": (4 * units, units)}
        shapes |= {"bias_ih": (4 * units,), "bias_hh": (4 * units,)}
        for name, shape in shapes.items():
            found[f"lstm.{name}_l{layer}"] = size * random.normal(size=shape)
    found["output.weight"] = random.normal(size=(1, units))
    return {**found, "output.bias": random.normal(size=1)}


def net(backend="c", dtype="float64", seed=3):
    layers = fn.Linear(3, 4), fn.BatchNorm1d(4), fn.Linear(4, 2)
    return fn.Sequential(*layers, dtype=dtype, backend=backend, seed=seed)


def moved(model, optimizer, gradients):
    """The parameters after each step."""
    found = []
    for given in gradients:
        set_gradients(model, given)
        optimizer.step(model)
        found.append({name: np.array(p) for name, p in model.named_parameters().items()})
    return found


def gradients(model, steps, seed=0):
    """Of all sizes: beside normal ones huge and tiny ones, some below e^−10, and zeros."""
    random, drawn = np.random.default_rng(seed + 1), draw(model, steps, seed)
    for given in drawn:
        for g in given.values():
            g *= 10.0 ** random.integers(-8, 3, g.shape)
    return drawn


def transcription(weights, layers, w, lr=0.1, weight_decay=0.0, decoupled=False):
    """Andrychowicz et al. 2016, section 2.1 and appendix A, for one number w at a time."""

    def sigma(z):
        return 1 / (1 + np.exp(-z))

    h = [np.zeros(weights["lstm.weight_hh_l0"].shape[1]) for _ in range(layers)]
    c = [np.zeros_like(one) for one in h]
    while True:
        g = yield w
        if not decoupled:
            g = g + weight_decay * w
        large = abs(g) >= np.exp(-10)
        x = np.array([np.log(abs(g)) / 10, np.sign(g)] if large else [-1.0, np.exp(10) * g])
        for k in range(layers):
            z = weights[f"lstm.weight_ih_l{k}"] @ x + weights[f"lstm.weight_hh_l{k}"] @ h[k]
            z = z + weights[f"lstm.bias_ih_l{k}"] + weights[f"lstm.bias_hh_l{k}"]
            i, f, new, o = np.split(z, 4)
            c[k] = sigma(f) * c[k] + sigma(i) * np.tanh(new)
            h[k] = x = sigma(o) * np.tanh(c[k])
        if decoupled:
            w = w * (1 - lr * weight_decay)
        w = w + lr * (weights["output.weight"][0] @ x + weights["output.bias"][0])


@pytest.mark.parametrize(
    ("dtype", "tol"), [("float64", 1e-11), ("float32", 2e-4)], ids=["float64", "float32"]
)
@pytest.mark.parametrize(("units", "layers"), [(1, 1), (3, 2), (20, 2), (5, 3), (64, 1)])
def test_steps_are_those_of_plain_arithmetic(backend, units, layers, dtype, tol):
    weights, model = weights_of(units, layers, size=0.4), net(backend, dtype)
    optimizer = fn.LearnedOptimizer(weights)
    given = gradients(model, 6)
    for g in given:
        for name in g:
            g[name] = g[name].astype(dtype).astype("d")
    start = {name: np.array(p, "d") for name, p in model.named_parameters().items()}
    got = moved(model, optimizer, given)
    for name, values in start.items():
        for at in list(np.ndindex(values.shape))[:5]:
            peer = transcription(weights, layers, values[at])
            next(peer)
            want = [peer.send(g[name][at]) for g in given]
            np.testing.assert_allclose([one[name][at] for one in got], want, rtol=tol, atol=tol)


@pytest.mark.parametrize("decoupled", [False, True])
def test_weight_decay(backend, decoupled):
    weights, model = weights_of(4, 2), net(backend)
    more = {"lr": 0.3, "weight_decay": 0.2}
    optimizer = fn.LearnedOptimizer(weights, **more, decoupled_weight_decay=decoupled)
    start, given = np.array(model.parameters()[0]), draw(model, 5)
    got = moved(model, optimizer, given)
    for at in np.ndindex(start.shape):
        peer = transcription(weights, 2, start[at], **more, decoupled=decoupled)
        next(peer)
        want = [peer.send(g["0.weight"][at]) for g in given]
        np.testing.assert_allclose([one["0.weight"][at] for one in got], want, rtol=1e-11)


def test_each_number_moves_by_itself(backend):
    """Whatever stands beside it, and in whichever block: to the bit."""
    random, wide = np.random.default_rng(0), 150

    def steps(width):
        layers = [fn.Linear(width, 1, bias=False)]
        model = fn.Sequential(*layers, dtype="float32", backend=backend, seed=0)
        with model.edit() as p:
            p["0.weight"][...] = start[:width]
        optimizer = fn.LearnedOptimizer(weights_of(5, 2))
        return moved(model, optimizer, [{"0.weight": g[None, :width]} for g in given])[-1]

    start, given = random.normal(size=wide), random.normal(size=(4, wide))
    whole = steps(wide)["0.weight"]
    for width in (1, 15, 16, 17, 33, 64, 65, 149):
        got = steps(width)["0.weight"]
        if backend == "c":
            np.testing.assert_array_equal(got, whole[:, :width])
        else:
            np.testing.assert_allclose(got, whole[:, :width], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_not_finite_is_not_hidden(backend, bad):
    model = net(backend)
    (given,) = draw(model, 1)
    given["0.weight"][1, 2] = bad
    moved(model, fn.LearnedOptimizer(), [given])
    values = np.array(model.parameters()[0])
    assert np.isfinite(np.delete(values.ravel(), 5)).all()
    assert np.isfinite(values[1, 2]) == bool(np.isinf(bad)) or np.isnan(values[1, 2])
    if np.isnan(bad):
        assert np.isnan(values[1, 2])


def test_the_state_dict_goes_on_to_the_bit(backend):
    given = draw(net(backend), 8)
    model, optimizer = net(backend), fn.LearnedOptimizer(weights_of(3, 2))
    moved(model, optimizer, given[:4])
    state, values = optimizer.state_dict(model), model.state_dict()
    assert state["h/0.weight"].shape == state["c/0.weight"].shape == (6, 4, 3)
    assert state["h/0.bias"].shape == (6, 4) and "weights/0.bias" not in state
    other, again = net(backend, seed=9), fn.LearnedOptimizer(weights_of(3, 2))
    other.load_state_dict(values)
    again.load_state_dict(other, state)
    for name, value in again.state_dict(other).items():
        np.testing.assert_array_equal(value, state[name])
    want, got = moved(model, optimizer, given[4:]), moved(other, again, given[4:])
    for name in want[-1]:
        np.testing.assert_array_equal(got[-1][name], want[-1][name])


def test_the_state_is_that_of_its_parameter(backend):
    """Transposed as the parameter is: a zero gradient leaves another state than others."""
    model, optimizer = net(backend), fn.LearnedOptimizer(weights_of(3, 1))
    given = {name: np.ones(p.shape) for name, p in model.named_parameters().items()}
    given["0.weight"][2, 1] = 0.0
    moved(model, optimizer, [given])
    h = optimizer.state_dict(model)["h/0.weight"]
    odd = (h != h[:, :1, :1]).all(axis=0)
    assert odd[2, 1] and odd.sum() == 1


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
def test_copies_go_their_own_ways(backend, twin):
    x, y = np.random.default_rng(0).normal(size=(8, 3)), np.zeros((8, 2))
    one = fn.Trainer(net(backend), fn.MSELoss(), fn.LearnedOptimizer(weights_of(3, 2)), seed=0)
    one.fit(x, y, 2, 4, verbose=0)
    two = twin(one)
    for trainer in (one, two):
        trainer.fit(x, y, 2, 4, verbose=0)
    np.testing.assert_array_equal(*(t.model.parameters()[0] for t in (one, two)))


def test_other_weights_start_afresh(backend):
    """At any time; equal ones go on."""
    given, first, second = draw(net(backend), 6), weights_of(3, 2), weights_of(5, 1, seed=1)
    model, optimizer = net(backend), fn.LearnedOptimizer(first)
    moved(model, optimizer, given[:2])
    twin = copy.deepcopy(model)
    optimizer.weights = second
    want = moved(twin, fn.LearnedOptimizer(second), given[2:4])
    got = moved(model, optimizer, given[2:4])
    np.testing.assert_array_equal(got[-1]["0.weight"], want[-1]["0.weight"])
    assert optimizer.state(model).steps == 4
    kept = {n: v.copy() for n, v in optimizer.state(model).vectors.items()}
    optimizer.weights = copy.deepcopy(second)
    optimizer.lr = 0.2
    for name, value in model.optimizer_state(optimizer).vectors.items():
        np.testing.assert_array_equal(value, kept[name])


def test_groups_and_frozen_parameters(backend):
    model, plain = net(backend), net(backend)
    given = draw(model, 3)
    groups = [{"params": "2.*", "lr": 0.5}, {"params": "0.bias", "lr": 0.0}]
    optimizer = fn.LearnedOptimizer(weights_of(4, 2), groups=groups)
    model.layers[1][1].freeze()
    got = moved(model, optimizer, given)[-1]
    start = {name: np.array(p) for name, p in plain.named_parameters().items()}
    with_rate = {
        lr: moved(net(backend), fn.LearnedOptimizer(weights_of(4, 2), lr), given)[-1]
        for lr in (0.1, 0.5)
    }
    np.testing.assert_array_equal(got["0.weight"], with_rate[0.1]["0.weight"])
    np.testing.assert_array_equal(got["2.weight"], with_rate[0.5]["2.weight"])
    for name in ("0.bias", "1.weight", "1.bias"):
        np.testing.assert_array_equal(got[name], start[name])
    message = r"groups\[0\] has 'weights'; expected 'params' and any of lr, weight_decay"
    groups = [{"params": "*", "weights": weights_of(4, 2)}]
    refused(lambda: fn.LearnedOptimizer(groups=groups), HyperparameterError, message)


def test_a_fit_of_the_backend_is_that_of_the_reference(backend):
    x, y = np.random.default_rng(0).normal(size=(24, 3)), np.arange(24) % 2
    found = []
    for name in (backend, "reference"):
        trainer = fn.Trainer(net(name), fn.CrossEntropyLoss(), fn.LearnedOptimizer(), seed=1)
        trainer.fit(x, y, 3, 8, verbose=0)
        found.append([np.array(p) for p in trainer.model.parameters()])
    for got, want in zip(*found, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-11)


# Weights: where they come from, and what is refused.


def test_the_shipped_weights_are_the_default():
    shipped = tensors.read(SHIPPED)
    assert shipped.described(KIND)["options"]["seed"] >= 0
    a, b = fn.LearnedOptimizer(), fn.LearnedOptimizer(SHIPPED)
    assert a.weights is None and a.sizes() == b.sizes()
    np.testing.assert_array_equal(a.constants()["weights"], b.constants()["weights"])
    assert repr(a) == "LearnedOptimizer()"


@pytest.mark.parametrize("as_path", [str, lambda path: path], ids=["str", "path"])
def test_weights_come_from_a_file_of_pytorch_or_a_mapping(tmp_path, as_path):
    weights = {name: w.astype("f") for name, w in weights_of(3, 2).items()}
    save_file(weights, tmp_path / "w.safetensors")
    optimizer = fn.LearnedOptimizer(as_path(tmp_path / "w.safetensors"))
    other = fn.LearnedOptimizer(weights)
    (tmp_path / "w.safetensors").unlink()
    twin = fn.LearnedOptimizer.from_config(optimizer.config())
    assert optimizer.weights == other.weights == twin.weights
    for one in (other, twin):
        np.testing.assert_array_equal(one.constants()["weights"], optimizer.constants()["weights"])


def test_one_bias_is_enough():
    weights = weights_of(3, 2)
    both = fn.LearnedOptimizer(weights).constants()["weights"]
    for layer in range(2):
        weights[f"lstm.bias_ih_l{layer}"] += weights.pop(f"lstm.bias_hh_l{layer}")
    np.testing.assert_array_equal(fn.LearnedOptimizer(weights).constants()["weights"], both)


def without(name):
    return {n: w for n, w in weights_of(3, 2).items() if n != name}


BAD = {
    "a number": (3, "weights is 3; expected None, the path of a safetensors file or a mapping"),
    "nothing": ({}, r"weights has no 'lstm.weight_hh_l0'; it has \[\]"),
    "no output": (without("output.bias"), r"weights has no 'output.bias', of shape \(1,\)"),
    "no layer": (without("lstm.bias_ih_l1"), "weights has no 'lstm.bias_ih_l1'"),
    "a gap": (without("lstm.weight_hh_l1"), "weights has 'lstm.weight_ih_l1'; expected lstm"),
    "another name": (
        weights_of(3, 1) | {"lr": 1.0},
        "weights has 'lr'; expected lstm.weight_ih_l0",
    ),
    "another shape": (
        weights_of(3, 1) | {"lstm.weight_ih_l0": np.zeros((12, 3))},
        r"weights: 'lstm.weight_ih_l0' has shape \(12, 3\); expected \(12, 2\), as "
        r"'lstm.weight_hh_l0' has shape \(12, 3\)",
    ),
    "a vector": (
        weights_of(3, 1) | {"output.weight": np.zeros(3)},
        r"weights: 'output.weight' has shape \(3,\); expected \(1, 3\)",
    ),
    "a scalar": (
        weights_of(3, 1) | {"lstm.weight_hh_l0": 1.0},
        "weights is an LSTM of 1 layers, whose 'lstm.weight_hh_l0' has shape",
    ),
    "too wide": (weights_of(65, 1), "expected at most 8 layers of 1 to 64 units"),
    "too deep": (weights_of(1, 9), "weights is an LSTM of 9 layers"),
    "text": (
        weights_of(3, 1) | {"output.bias": ["a"]},
        "weights: 'output.bias' has dtype .*numbers",
    ),
    **{
        str(bad): (
            weights_of(3, 1) | {"output.bias": [bad]},
            "weights: 'output.bias' holds NaN, infinity or a number that float32 has not",
        )
        for bad in (np.nan, np.inf, 1e39)
    },
}


@pytest.mark.parametrize("case", BAD)
def test_bad_weights_are_refused(case):
    bad, message = BAD[case]
    refused(lambda: fn.LearnedOptimizer(bad), HyperparameterError, message)
    optimizer = fn.LearnedOptimizer(weights_of(2, 1))
    before = optimizer.config(), optimizer.constants()["weights"].copy()
    refused(lambda: setattr(optimizer, "weights", bad), HyperparameterError, message)
    assert optimizer.config() == before[0]
    np.testing.assert_array_equal(optimizer.constants()["weights"], before[1])


def test_bad_files_are_refused(tmp_path):
    path, other = tmp_path / "w.safetensors", tmp_path / "net.safetensors"
    with pytest.raises(FileNotFoundError):
        fn.LearnedOptimizer(path)
    data = SHIPPED.read_bytes()
    path.write_bytes(data[:-5] + bytes([data[-5] ^ 1]) + data[-4:])
    refused(lambda: fn.LearnedOptimizer(path), FileError, "is damaged")
    path.write_bytes(data[: len(data) // 2])
    refused(lambda: fn.LearnedOptimizer(path), FileError, "is no safetensors file")
    path.write_text("spam")
    refused(lambda: fn.LearnedOptimizer(path), FileError, "is no safetensors file")
    net().save(other)
    refused(lambda: fn.LearnedOptimizer(other), FileError, f"expected a {KIND}")
    save_file({name: w.astype("f") for name, w in without("output.bias").items()}, path)
    refused(
        lambda: fn.LearnedOptimizer(path), HyperparameterError, "w.safetensors has no 'output.b"
    )


def test_states_of_other_weights_are_refused():
    model, optimizer = net(), fn.LearnedOptimizer(weights_of(3, 2))
    moved(model, optimizer, draw(model, 1))
    state = optimizer.state_dict(model)
    other = fn.LearnedOptimizer(weights_of(4, 2))
    with pytest.raises(StateDictError, match=r"has shape \(6, 4, 3\), expected \(8, 4, 3\)"):
        other.load_state_dict(model, state)
