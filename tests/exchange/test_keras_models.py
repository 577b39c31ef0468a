"""Models of Keras's dense models."""

from __future__ import annotations

import os
import warnings

import numpy as np
import onnx_runs
import pytest

import fastnet as fn
from fastnet.interop.keras_in import ACTIVATIONS, TABLE

pytest.importorskip("torch")
os.environ.setdefault("KERAS_BACKEND", "torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    keras = pytest.importorskip("keras")
layers = keras.layers
RANDOM = np.random.default_rng(4)
X = RANDOM.normal(size=(7, 5)).astype("f") * 2


def drawn(model):
    """Weights of their own, positive where they are variances."""
    for weight in model.weights:
        if "seed" not in weight.path:
            value = RANDOM.normal(size=weight.shape) * 0.5 + 0.1
            weight.assign(np.abs(value) + 0.2 if "variance" in weight.path else value)
    return model


def agree(model, x=X):
    """Assert equal outputs; returns the model of fastnet."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = np.asarray(model.predict(x, verbose=0))
    found = fn.from_keras(model)
    onnx_runs.assert_close(found.predict(x), wanted, found.dtype.name)
    assert not found.training
    return found


def sequential(*parts, width=5):
    return drawn(keras.Sequential([keras.Input((width,)), *parts]))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name):
    """As an argument of Dense, by name."""
    agree(sequential(layers.Dense(4, activation=getattr(keras.activations, name))))


def _normalization():
    part = layers.Normalization()
    part.adapt(X)
    return part


PARTS = {
    "Activation": lambda: layers.Activation("tanh"),
    "ActivityRegularization": lambda: layers.ActivityRegularization(0.1),
    "AlphaDropout": lambda: layers.AlphaDropout(0.2),
    "BatchNormalization": lambda: layers.BatchNormalization(momentum=0.9),
    "batchnorm without weights": lambda: layers.BatchNormalization(center=False, scale=False),
    "Dense": lambda: layers.Dense(3, use_bias=False),
    "Dropout": lambda: layers.Dropout(0.4),
    "ELU": lambda: layers.ELU(0.5),
    "Flatten": lambda: layers.Flatten(),
    "GaussianNoise": lambda: layers.GaussianNoise(0.3),
    "Identity": lambda: layers.Identity(),
    "LayerNormalization": lambda: layers.LayerNormalization(epsilon=0.01),
    "layernorm without weights": lambda: layers.LayerNormalization(center=False, scale=False),
    "layernorm without scale": lambda: layers.LayerNormalization(scale=False),
    "LeakyReLU": lambda: layers.LeakyReLU(0.2),
    "Normalization": _normalization,
    "PReLU": lambda: layers.PReLU(),
    "ReLU": lambda: layers.ReLU(),
    "a bound": lambda: layers.ReLU(max_value=2.0),
    "six": lambda: layers.ReLU(max_value=6.0),
    "a slope": lambda: layers.ReLU(negative_slope=0.2),
    "Rescaling": lambda: layers.Rescaling(0.5, offset=-1.0),
    "Softmax": lambda: layers.Softmax(),
}


def test_every_layer_is_tried():
    assert {*TABLE} - {*PARTS} == {"InputLayer"}


@pytest.mark.parametrize("name", PARTS)
def test_layers(name):
    part = PARTS[name]()
    model = keras.Sequential([keras.Input((5,)), layers.Dense(5), part])
    if name != "Normalization":  # whose statistics are of data
        drawn(model)
    agree(model)


def test_a_normalization_first():
    found = agree(keras.Sequential([keras.Input((5,)), _normalization(), layers.Dense(2)]))
    assert found.frozen == ["0.bias", "1.weight"]


def functional():
    start = keras.Input((5,))
    shared = layers.Dense(5, activation="tanh")
    h = layers.Add()([layers.Dense(5, activation="gelu")(start), start])
    inner = keras.Sequential([keras.Input((5,)), layers.Dense(4, activation="relu")])(h)
    both = shared(shared(h))
    gate = layers.Multiply()([both, layers.Activation("sigmoid")(h)])
    difference = layers.Subtract()([gate, both])
    joined = layers.Concatenate()([difference, h, inner])
    return drawn(keras.Model(start, layers.Dense(2)(layers.BatchNormalization()(joined))))


def test_a_functional_model():
    found = agree(functional())
    kinds = [type(layer).__name__ for layer in found]
    assert kinds == ["Residual", "Concat", "BatchNorm1d", "Linear"]


def test_weights_keep_their_bits():
    model = sequential(layers.Dense(4, activation="relu"), layers.BatchNormalization(momentum=0.9))
    found = fn.from_keras(model)
    kernel, bias, gamma, beta, mean, variance = (
        weight.value.detach().numpy() for weight in model.weights
    )
    state = found.state_dict()
    for name, wanted in {
        "0.weight": kernel.T,
        "0.bias": bias,
        "2.weight": gamma,
        "2.bias": beta,
        "2.running_mean": mean,
        "2.running_var": variance,
    }.items():
        np.testing.assert_array_equal(state[name], wanted, strict=True)
    assert found[2].momentum == 0.1 and found[2].eps == 1e-3
    found.reset_parameters()
    assert (found.state_dict()["0.weight"] != kernel.T).any()


def test_a_file(tmp_path):
    model = functional()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(tmp_path / "net.keras")
    found = fn.from_keras(tmp_path / "net.keras")
    np.testing.assert_array_equal(found.predict(X), fn.from_keras(model).predict(X))
    assert fn.from_keras(str(tmp_path / "net.keras")).predict(X).shape == (7, 2)


def test_files_that_are_wrong(tmp_path):
    with pytest.raises(FileNotFoundError):
        fn.from_keras(tmp_path / "none.keras")
    (tmp_path / "a.keras").write_bytes(b"hello")
    with pytest.raises(fn.errors.FileError, match="cannot be read by Keras"):
        fn.from_keras(tmp_path / "a.keras")


def test_code_of_a_file_is_not_run(tmp_path):
    """Keras refuses the bytecode of a Lambda."""
    model = keras.Sequential([keras.Input((5,)), layers.Lambda(lambda x: x * 2)])
    model.save(tmp_path / "a.keras")
    with pytest.raises(fn.errors.FileError, match=r"(?i)lambda|unsafe"):
        fn.from_keras(tmp_path / "a.keras")


def test_what_does_not_train_is_frozen():
    model = sequential(layers.Dense(4, trainable=False), layers.Dense(2))
    assert fn.from_keras(model).frozen == ["0.weight", "0.bias"]


def test_float64():
    """Keras on PyTorch multiplies in float32 even then, so NumPy says what is right."""
    first = layers.Dense(4, activation="tanh", dtype="float64")
    model = sequential(first, layers.Dense(2, dtype="float64"))
    found = fn.from_keras(model)
    w, b, v, c = (weight.value.detach().numpy() for weight in model.weights)
    x = X.astype("d")
    onnx_runs.assert_close(found.predict(x), np.tanh(x @ w + b) @ v + c, "float64")


def test_all_that_is_missing_is_listed():
    start = keras.Input((5,))
    h = layers.Dense(5, activation="exponential", name="a")(start)
    h = layers.UnitNormalization(name="b")(h)
    h = layers.ReLU(threshold=1.0, name="c")(layers.Maximum(name="d")([h, start]))
    inner = keras.Sequential([keras.Input((5,)), layers.Reshape((5, 1), name="e")], name="f")
    with pytest.raises(fn.errors.UsageError) as caught:
        fn.from_keras(keras.Model(start, layers.Flatten()(inner(h))))
    told = str(caught.value)
    for part in (
        *("a (Dense: its activation is exponential)", "b (UnitNormalization)", "c (ReLU: it has a"),
        *("d (Maximum: it joins several values)", "f/e (Reshape)"),
    ):
        assert part in told


CONSTANTS = {
    "a factor": (lambda x: x * 2.0, "Multiply"),
    "a summand": (lambda x: x + 1.0, "Add"),
    "what is taken off": (lambda x: x - 1.0, "Subtract"),
    "what rows are taken off": (lambda x: 1.0 - x, "Subtract"),
    "an array": (lambda x: x + np.arange(5, dtype="f"), "Add"),
    "one of three": (lambda x: layers.Add()([x, x, np.ones((1, 5), "f")]), "Add"),
    "a mask": (lambda x: layers.Softmax()(x, mask=np.arange(5)[None] > 1), "Softmax"),
}


@pytest.mark.parametrize("kind", CONSTANTS)
def test_constants_of_a_call_are_refused(kind):
    """They change what Keras computes, and no layer of its model holds them."""
    made, name = CONSTANTS[kind]
    start = keras.Input((5,))
    with pytest.raises(fn.errors.UsageError, match=rf"\({name}: it is called with a constant"):
        fn.from_keras(keras.Model(start, made(start)))


IN_TRAINING = {
    "batchnorm": lambda: layers.BatchNormalization(name="a"),
    "dropout": lambda: layers.Dropout(0.5, name="a"),
    "a model": lambda: keras.Sequential([keras.Input((5,)), layers.Dropout(0.5)], name="a"),
}


@pytest.mark.parametrize("kind", IN_TRAINING)
def test_layers_that_always_train_are_refused(kind):
    """A model that is called obeys training=True; with training=False at a layer it is read."""
    start = keras.Input((5,))
    part = IN_TRAINING[kind]()
    agree(keras.Model(start, part(start, training=False)))
    trained = keras.Model(start, part(start, training=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        always, still = (keras.ops.convert_to_numpy(trained(X, **m)) for m in ({}, {"training": 0}))
    assert (always != still).any()
    with pytest.raises(fn.errors.UsageError, match=r"a \(\w+: it is called with training=True"):
        fn.from_keras(trained)


def test_operators_of_one_value_are_refused():
    start = keras.Input((5,))
    for operator in (keras.ops.softmax, keras.ops.relu, keras.ops.log_softmax):
        with pytest.raises(fn.errors.UsageError, match="it is an operator, no layer"):
            fn.from_keras(keras.Model(start, operator(start)))


def test_operators_of_two_values():
    start = keras.Input((5,))
    h = layers.Dense(5, activation="tanh")(start)
    joined = keras.ops.concatenate([h + start, h * h, keras.ops.subtract(x1=start, x2=h)], axis=-1)
    agree(drawn(keras.Model(start, layers.Dense(2)(inputs=joined))))


def test_other_models_are_refused():
    class Own(keras.Model):
        def call(self, x):
            return x

    start = keras.Input((5,))
    two = keras.Model([start, keras.Input((2,))], start)
    for model, message in (
        *((Own(), "code of its own"), (two, "2 inputs and 1 outputs")),
        (keras.Sequential([layers.Dense(3)]), "is not built"),
    ):
        with pytest.raises(fn.errors.UsageError, match=message):
            fn.from_keras(model)
    for wrong in (3, None, layers.Dense(3)):
        with pytest.raises(fn.errors.HyperparameterError, match=r"expected a keras\.Model"):
            fn.from_keras(wrong)
    half = keras.Sequential([keras.Input((5,)), layers.Dense(3, dtype="float16")])
    with pytest.raises(fn.errors.UsageError, match="float16"):
        fn.from_keras(half)
