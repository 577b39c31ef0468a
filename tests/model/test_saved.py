"""Models in files: what is saved is made again, and nothing else is."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import fastnet as fn
from fastnet.errors import FileError, HyperparameterError, SaveError, StateDictError, UsageError
from fastnet.files import tensors

RNG = np.random.default_rng(0)
X = RNG.normal(size=(9, 4)).astype("float32")
GOLDEN = Path(__file__).parent / "golden-1.safetensors"


def net(backend="auto", dtype="float32", seed=3):
    inner = fn.Sequential(
        fn.Dropout(0.5), fn.Linear(5, 5, weight_init=fn.init.Orthogonal()), fn.PReLU(5)
    )
    return fn.Sequential(
        fn.Linear(4, 5, bias=False),
        fn.BatchNorm1d(5),
        fn.LeakyReLU(0.25),
        inner,
        fn.Linear(5, 2),
        dtype=dtype,
        backend=backend,
        seed=seed,
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.safetensors"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_model_comes_back(backend, path, dtype):
    model = net(backend, dtype)
    model.forward(X)
    model.save(path)
    found = fn.load(path)
    assert repr(found) == repr(net(dtype=dtype)) and not found.training and found.dtype == dtype
    assert found.seed == model.seed and found._draws == model._draws == 1
    state = model.state_dict()
    assert list(found.state_dict()) == list(state)
    assert all(np.array_equal(value, state[name]) for name, value in found.state_dict().items())
    assert found.to(backend).predict(X).tobytes() == model.predict(X).tobytes()
    assert model.training  # saving changes nothing


def test_a_seed_that_was_drawn_is_kept(path):
    model = fn.Sequential(fn.Linear(4, 2))
    model.save(str(path))
    assert fn.load(str(path)).seed == model.seed


def test_the_golden_file_loads_for_ever():
    """golden-1.safetensors is of the first version of the format; it must never be written again."""
    model = fn.load(GOLDEN)
    assert repr(model) == repr(net())
    expected = json.loads(GOLDEN.with_suffix(".json").read_text())
    np.testing.assert_allclose(model.predict(np.array(expected["x"], "f")), expected["y"], 1e-6)


def test_a_damaged_file_loads_nothing(path):
    net().save(path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    model = net(seed=4)
    before = model.state_dict()
    with pytest.raises(FileError, match="is damaged: its content has another SHA-256"):
        fn.load(path)
    with pytest.raises(FileError, match="is damaged"):
        model.load_weights(path)
    assert all(np.array_equal(v, before[n]) for n, v in model.state_dict().items())


def test_a_file_of_arrays_alone_loads_into_a_model(path):
    model, other = net(seed=1), net(seed=2)
    safetensors.numpy.save_file(model.state_dict(), path)
    with pytest.raises(
        FileError, match=r"has arrays and no model.*write model.load_weights\(path\)"
    ):
        fn.load(path)
    other.load_weights(path)
    assert all(np.array_equal(v, model.state_dict()[n]) for n, v in other.state_dict().items())
    state = model.state_dict()
    del state["0.weight"]
    safetensors.numpy.save_file({**state, "more": np.zeros(1)}, path)
    with pytest.raises(
        StateDictError, match=r"net.safetensors: .*missing \['0.weight'\], unexpected"
    ):
        other.load_weights(path)
    other.load_weights(path, strict=False)


def rewritten(path, change):
    """The file again, with a changed description and a good digest."""
    found = tensors.read(path)
    description = json.loads(json.dumps(found.description))
    arrays = dict(found.tensors)
    change(description, arrays)
    tensors.write(path, description, arrays)


def _layer(i, **changed):
    return lambda d, a: d["model"]["layers"][i].update(changed)


BAD = {
    "a layer nobody knows": _layer(0, type="Conv2d"),
    "a class of another kind": _layer(0, type="Adam"),
    "a private class": _layer(0, type="_Monitor"),
    "a module's name": _layer(0, type="os.system"),
    "a type that is no text": _layer(0, type=["Linear"]),
    "an argument nobody knows": _layer(0, more=1),
    "a wrong type of argument": _layer(0, in_features="4"),
    "a fraction": _layer(0, in_features=4.5),
    "a negative size": _layer(0, in_features=-4),
    "a huge size": _layer(0, in_features=2**60),
    "a size beyond 64 bits": _layer(0, in_features=2**70),
    "a huge layer with its neighbour": lambda d, a: (
        _layer(0, out_features=2**40)(d, a),
        _layer(1, num_features=2**40)(d, a),
        _layer(3, layers=[])(d, a),
    ),
    "null": lambda d, a: d.update(model=None),
    "no model": lambda d, a: d.pop("model"),
    "a text": lambda d, a: d.update(model="Sequential"),
    "a list": lambda d, a: d.update(model=[1]),
    "a layer instead of a model": lambda d, a: d.update(model=d["model"]["layers"][0]),
    "no layers": lambda d, a: d["model"].update(layers=[]),
    "layers that are a number": lambda d, a: d["model"].update(layers=3),
    "a dtype nobody has": lambda d, a: d["model"].update(dtype="float16"),
    "another dtype's numbers": lambda d, a: a.update(
        {"0.weight": a["0.weight"] * np.float64(1e300)}
    ),
    "a backend nobody has": lambda d, a: d["model"].update(backend="tpu"),
    "a seed that is none": lambda d, a: d["model"].update(seed=-1),
    "draws that are none": lambda d, a: d.update(draws=-1),
    "draws as text": lambda d, a: d.update(draws="1"),
    "no draws": lambda d, a: d.pop("draws"),
    "an array too few": lambda d, a: a.pop("4.bias"),
    "an array too many": lambda d, a: a.update(more=np.zeros(1)),
    "an array of another shape": lambda d, a: a.update({"4.bias": np.zeros(3, "f")}),
    "an array of texts' codes": lambda d, a: a.update({"4.bias": np.zeros((), "uint8")}),
    "NaN": lambda d, a: a.update({"4.bias": np.full(2, np.nan, "f")}),
    "infinity": lambda d, a: a.update({"4.bias": np.full(2, -np.inf, "f")}),
    "a negative variance": lambda d, a: a.update({"1.running_var": -np.ones(5, "f")}),
    "a fraction of a count": lambda d, a: a.update({"1.num_batches_tracked": np.array(0.5)}),
    "an initialiser of another kind": _layer(0, weight_init={"type": "ReLU"}),
    "an array that is not there": _layer(0, weight_init={"$array": "nowhere"}),
    "a number that is none": _layer(2, negative_slope={"$float": "nan"}),
    "an infinite number": _layer(2, negative_slope={"$float": "inf"}),
}


@pytest.mark.parametrize("name", BAD)
def test_a_description_that_does_not_fit_is_an_error_of_ours(path, name):
    net().save(path)
    rewritten(path, BAD[name])
    with pytest.raises(FileError) as raised:
        fn.load(path)
    assert "net.safetensors" in str(raised.value) and "array(" not in str(raised.value)


def test_a_model_within_a_model_within_a_model(path):
    net().save(path)

    def deep(description, arrays):
        model = {"type": "Linear", "in_features": 1, "out_features": 1}
        for _ in range(150):
            model = {"type": "Sequential", "layers": [model]}
        description["model"] = model

    rewritten(path, deep)
    with pytest.raises(FileError):
        fn.load(path)


class Twice(fn.Layer):
    """A layer of one's own that nobody has registered."""

    def __init__(self, times=2):
        super().__init__(times=times)

    def emit(self, g, x):
        return x


class Calls(fn.Layer):
    """A layer with a function, which no file keeps."""

    def __init__(self, function):
        super().__init__(function=function)

    def emit(self, g, x):
        return x


def test_layers_of_ones_own_are_given_again(path):
    fn.Sequential(fn.Linear(4, 2), Twice(3)).save(path)
    with pytest.raises(FileError, match="type is 'Twice'; expected one of"):
        fn.load(path)
    found = fn.load(path, layers=[Twice])
    assert isinstance(found[1], Twice) and found[1].times == 3
    with pytest.raises(FileError, match="type is 'Twice'"):
        fn.load(path)  # known for that call alone
    with pytest.raises(
        HyperparameterError, match="layers has the class int; expected classes of layers"
    ):
        fn.load(path, layers=[int])
    with pytest.raises(HyperparameterError, match="layers has 3"):
        fn.load(path, layers=3)


def test_a_layer_with_a_function_cannot_be_saved(path):
    model = fn.Sequential(fn.Linear(4, 2), Calls(print))
    with pytest.raises(
        UsageError, match=r"model/layers/1/function is <built-in function print>, which no"
    ):
        model.save(path)
    assert not path.exists()


def test_a_part_of_a_model_is_not_saved(path):
    model = net()
    with pytest.raises(UsageError, match="part of another model: call its save"):
        model[3].save(path)


def test_a_save_that_fails_names_the_file(path):
    with pytest.raises(SaveError, match="No such file or directory"):
        net().save(path / "nowhere")
    for bad in (3, None, "a\0b"):
        with pytest.raises(HyperparameterError, match="path is"):
            net().save(bad)
        with pytest.raises(HyperparameterError, match="path is"):
            fn.load(bad)
    assert os.listdir(path.parent) == []


def test_weights_that_were_saved_while_training_are_those_of_the_moment(path):
    model = net()
    trainer = fn.Trainer(model, fn.MSELoss(), seed=0)
    trainer.fit(X, np.zeros((9, 2)), epochs=2, verbose=0)
    model.save(path)
    trainer.fit(X, np.zeros((9, 2)), epochs=2, verbose=0)
    assert not np.array_equal(fn.load(path).predict(X), model.predict(X))
