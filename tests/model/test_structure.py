"""What a model is made of: layers and nested models, names, text, modes."""

from __future__ import annotations

import copy
import gc
import pickle
import re
import sys

import numpy as np
import pytest

import fastnet as fn

BOX = "\N{BOX DRAWINGS LIGHT HORIZONTAL}"
X = np.random.default_rng(0).normal(size=(6, 3)).astype("f")


def parts():
    return fn.Linear(3, 4), fn.BatchNorm1d(4), fn.Tanh(), fn.Dropout(0.2), fn.Linear(4, 2)


def nested(**options):
    a, b, c, d, e = parts()
    return fn.Sequential(fn.Sequential(a, fn.Sequential(b, c)), fn.Sequential(d), e, **options)


def test_a_layer_belongs_to_one_model():
    layer = fn.Linear(3, 3)
    with pytest.raises(fn.errors.ShapeError):
        fn.Sequential(layer, fn.Linear(4, 2))
    model = fn.Sequential(layer)  # the refusal has not claimed it
    assert layer._owner is model
    outer = fn.Sequential(model)
    outer.summary()
    for taken in (layer, model):
        for make in (fn.Sequential, fn.Residual, fn.Concat):
            with pytest.raises(
                fn.errors.UsageError, match=r"^layer 1 \(\w+\) is part of a model already"
            ):
                make(fn.ReLU(), taken, fn.Sequential(fn.Tanh()))
    assert outer[0] is model and layer._owner is model


def test_two_models_of_one_layer_are_refused_where_they_are_used():
    """Until then each may become a part of one model."""
    layer = fn.Linear(3, 3)
    one, other = fn.Sequential(layer, fn.Tanh()), fn.Sequential(fn.Residual(layer), fn.ReLU())
    for use in (one.summary, other.state_dict, other.parameters):
        with pytest.raises(fn.errors.UsageError, match=r"^layer 0(.0)? \(\w+\) is part of another"):
            use()
    both = fn.Sequential(one, other, seed=0)
    assert list(both.state_dict()) == ["0.0.weight", "0.0.bias"]
    assert both.predict(X).shape == (6, 3)
    del both, one, use
    gc.collect()
    assert other.predict(X).shape == (6, 3)  # alone again


@pytest.mark.parametrize("layers", [(), (fn.Linear,), (None,), ([fn.ReLU()],), (fn.MSELoss(),)])
def test_what_is_not_a_layer_is_refused(layers):
    with pytest.raises(fn.errors.HyperparameterError, match="expected"):
        fn.Sequential(*layers)


MISFITS = {  # layers, and what is said of the one that does not fit
    "linear": (lambda: [fn.Linear(3, 4), fn.Linear(5, 2)], r"^layer 1 \(Linear\): .*\(4,\) came"),
    "batchnorm": (
        lambda: [fn.Linear(3, 4), fn.ReLU(), fn.BatchNorm1d(3)],
        r"^layer 2 \(BatchNorm1d\): rows of shape \(4,\) came, expected num_features = 3$",
    ),
    "no width before": (
        lambda: [fn.ReLU(), fn.Linear(3, 4), fn.PReLU(5)],
        r"^layer 2 \(PReLU\): .*\(n, 4\); expected \(n, 5\)",
    ),
    "nested": (
        lambda: [fn.Linear(3, 4), fn.Sequential(fn.Tanh(), fn.Linear(3, 3))],
        r"^layer 1.1 \(Linear\): .*\(4,\) came, expected in_features = 3$",
    ),
}


@pytest.mark.parametrize("kind", MISFITS)
def test_widths_that_do_not_fit_are_refused_at_once(kind):
    make, message = MISFITS[kind]
    layers = make()
    with pytest.raises(fn.errors.ShapeError, match=message):
        fn.Sequential(*layers)
    if kind == "nested":  # the layers are as they were
        with pytest.raises(fn.errors.ShapeError, match=r"^layer 1 \(Linear\)"):
            layers[1][1].forward(np.ones((2, 2)))
    last = layers[-1]
    assert fn.Sequential(last)[0] is last


def test_a_nested_model_is_the_flat_one_by_other_names(backend):
    flat, deep = fn.Sequential(*parts(), backend=backend, seed=1), nested(backend=backend, seed=1)
    names = {"0": "0.0", "1": "0.1.0", "4": "2"}

    def renamed():
        parted = [(name.partition("."), value) for name, value in flat.state_dict().items()]
        return {f"{names[layer]}.{name}": value for (layer, _, name), value in parted}

    assert list(deep.state_dict()) == list(renamed())
    for model in (flat, deep):
        fn.Trainer(model, fn.MSELoss(), seed=2).fit(X, X[:, :2], batch_size=3, epochs=2, verbose=0)
        model.forward(X)  # draws dropout with the layer's index
        model.backward(X[:, :2])
    assert [name for name, _ in deep.layers] == ["0.0", "0.1.0", "0.1.1", "1.0", "2"]
    for name, value in deep.state_dict().items():
        np.testing.assert_array_equal(value, renamed()[name])
    for a, b in zip(flat.grads.values(), deep.grads.values(), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(flat.predict(X), deep.predict(X))


CALLS = {
    "forward": lambda m: m.forward(X),
    "backward": lambda m: m.backward(X),
    "predict": lambda m: m.predict(X),
    "value_and_grad": lambda m: m.value_and_grad(fn.MSELoss(), X, X),
    "optimizer.step": lambda m: fn.SGD().step(m),
    "load_state_dict": lambda m: m.load_state_dict(m.state_dict()),
    "edit": lambda m: m.edit().__enter__(),
    "zero_grad": lambda m: m.zero_grad(),
    "reset_parameters": lambda m: m.reset_parameters(),
    "fit": lambda m: fn.Trainer(m, fn.MSELoss()).fit(X, X[:, [0] * 4], verbose=0),
}


@pytest.mark.parametrize("call", CALLS)
def test_calls_on_an_inner_model_are_refused(call):
    model = nested(seed=1)
    before = {name: value.tobytes() for name, value in model.state_dict().items()}
    with pytest.raises(fn.errors.UsageError, match=f"part of another model: call its {call}"):
        CALLS[call](model[0])
    assert {name: value.tobytes() for name, value in model.state_dict().items()} == before


def test_an_inner_model_shows_its_own_values():
    model = nested(seed=1)
    inner = model[0][1]
    assert list(inner.state_dict()) == [
        f"0.{name}"
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    ]
    with model.edit() as p:
        p["0.1.0.weight"][:] = 3
    np.testing.assert_array_equal(inner.named_parameters()["0.weight"], [3, 3, 3, 3])


def test_a_model_used_before_it_is_nested_keeps_its_values(backend):
    inner = fn.Sequential(*parts()[:3], backend=backend)
    inner.forward(X)
    expected = np.tanh(2 * inner.predict(X))
    double = fn.Linear(4, 4, bias=False)
    double.load_state_dict({"weight": 2 * np.eye(4)})
    outer = fn.Sequential(inner, double, fn.Tanh(), backend=backend)
    np.testing.assert_allclose(outer.predict(X), expected, rtol=1e-5)


def test_layers_by_position():
    layers = parts()
    model = fn.Sequential(*layers)
    assert len(model) == 5 and list(model) == list(layers)
    assert model[0] is layers[0] and model[-1] is layers[4] and model[1:3] == layers[1:3]
    with pytest.raises(IndexError):
        model[5]
    deep = nested()
    assert len(deep) == 3 and len(deep[0]) == 2
    assert deep[0][1][0] is dict(deep.layers)["0.1.0"]


MODELS = [
    fn.Sequential(*parts()),
    fn.Sequential(fn.Linear(3, 2, bias=False), fn.LeakyReLU(0.3), fn.LeakyReLU(), fn.Sigmoid()),
    fn.Sequential(fn.BatchNorm1d(3, 1e-3, 0.5, affine=False), fn.BatchNorm1d(3, momentum=0.2)),
    fn.Sequential(fn.ReLU(), dtype=np.float64, backend="reference", seed=2**64 - 1),
    fn.Sequential(fn.Linear(1, 2, weight_init=fn.init.Zeros(), bias_init=fn.init.Constant(0.25))),
    nested(seed=0),
]


@pytest.mark.parametrize("model", MODELS)
def test_repr_is_the_code_that_makes_it(model):
    again = eval(repr(model), dict(vars(fn)))
    assert repr(again) == repr(model)
    assert again.dtype == model.dtype
    assert again.state_dict().keys() == model.state_dict().keys()
    for (_, a), (_, b) in zip(again.layers, model.layers, strict=True):
        assert type(a) is type(b) and a._config == b._config


def test_repr_of_a_model():
    inner = "    Sequential(\n        Tanh(),\n    ),\n"
    expected = f"Sequential(\n    Linear(3, 2),\n{inner}    seed=4,\n)"
    assert repr(fn.Sequential(fn.Linear(3, 2), fn.Sequential(fn.Tanh()), seed=4)) == expected


def test_summary(backend):
    model = nested(backend=backend)
    text = str(model.summary(batch_size=16))
    assert repr(model.summary(batch_size=16)) == text
    rows = re.findall(r"^(\S+)  (\w+)\(.*\) +\(n, (\d)\) +(\d+)$", text, re.MULTILINE)
    assert rows == [
        ("0.0", "Linear", "4", "16"),
        ("0.1.0", "BatchNorm1d", "4", "8"),
        ("0.1.1", "Tanh", "4", "0"),
        ("1.0", "Dropout", "4", "0"),
        ("2", "Linear", "2", "10"),
    ]
    assert re.search(r"^total +34$", text, re.MULTILINE)
    assert sum(p.size for p in model.parameters()) == 34
    assert "and 9 numbers in buffers" in text
    # 64 bytes hold 16 numbers: each of the six parameters and three buffers fits into as many.
    sizes = re.search(r"bytes: params 384, grads 384, buffers 192, workspace ([\d,]+)$", text)
    small, large = int(sizes[1].replace(",", "")), str(model.summary(batch_size=1600))
    assert small >= 16 * 4 * 4 * 2  # batchnorm's input and tanh's output live on until the backward
    assert int(large.rpartition(" ")[2].replace(",", "")) > 50 * small


def test_summary_for_a_batch_size_of_a_narrow_integer_type():
    """A workspace of the size that 200·20 has in an uint8 would be too small for the next forward."""
    model = nested()
    assert str(model.summary(batch_size=np.uint8(200))) == str(model.summary(batch_size=200))


def test_summary_where_no_layer_fixes_the_width():
    text = str(fn.Sequential(fn.ReLU(), fn.Dropout(0.3)).summary())
    assert re.findall(r"^(\d)  \S+ +\(n, \.\.\.\) +0$", text, re.MULTILINE) == ["0", "1"]
    assert text.endswith("bytes: params 0, grads 0, buffers 0")


def test_modes_of_models_and_layers(backend):
    model = nested(backend=backend, seed=1)
    assert model.training and model.eval() is model and not model.training
    model[1].train()
    assert [layer.training for _, layer in model.layers] == [False, False, False, True, False]
    assert model.training and not model[0].training
    assert model.train(False).train() is model
    assert all(layer.training for _, layer in model.layers)


def test_freezing_one_batchnorm(backend):
    layers = fn.BatchNorm1d(3), fn.Linear(3, 3), fn.BatchNorm1d(3)
    model = fn.Sequential(*layers, dtype="float64", backend=backend, seed=1)
    model[0].eval()
    before = {name: value.copy() for name, value in model.state_dict().items()}
    given = model.forward(X + 5)
    moved = {n for n, value in model.state_dict().items() if not np.array_equal(value, before[n])}
    assert moved == {"2.running_mean", "2.running_var", "2.num_batches_tracked"}
    np.testing.assert_allclose(given.mean(axis=0), 0, atol=1e-12)  # by its own statistics
    np.testing.assert_allclose(model[2].running_mean, 0.1 * linear(model, X + 5).mean(axis=0))


def linear(model, x):
    """The output of the layers 0 and 1 of the model above, the first in evaluation mode."""
    return x / np.sqrt(1 + 1e-5) @ model[1].weight.T + model[1].bias


def test_a_summary_allocates_nothing():
    text = str(fn.Sequential(fn.Linear(3, 2), seed=0).summary(batch_size=2**40))
    assert int(re.search(r"workspace ([\d,]+)", text)[1].replace(",", "")) >= 2**40 * 8


class Odd(fn.Layer):
    """A layer whose name in a summary is no plain text."""

    def emit(self, g, x):
        return x

    def __repr__(self):
        return "<Odd & \N{GREEK SMALL LETTER MU}>"


def test_a_notebook_shows_a_summary_as_a_table():
    summary = fn.Sequential(fn.Linear(3, 4), Odd(), fn.BatchNorm1d(4)).summary()
    html = summary._repr_html_()
    rows = re.findall(r"<tr>(.*?)</tr>", html)
    cells = [re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row) for row in rows]
    assert cells == [
        ["layer", "output shape", "parameters"],
        ["0  Linear(3, 4)", "(n, 4)", "16"],
        ["1  &lt;Odd &amp; \N{GREEK SMALL LETTER MU}&gt;", "(n, 4)", "0"],
        ["2  BatchNorm1d(4)", "(n, 4)", "8"],
        ["total", "", "24"],
    ]
    notes = re.findall(r"<div>(.*?)</div>", html)
    assert notes == str(summary).splitlines()[-2:]
    opened, closed = re.findall(r"<(\w+)", html), re.findall(r"</(\w+)", html)
    assert sorted(opened) == sorted(closed)


def test_a_summary_of_what_the_output_cannot_show(monkeypatch):
    class Narrow:
        encoding = "ascii"

    model = fn.Sequential(fn.Linear(3, 4), Odd())
    rule = str(model.summary()).splitlines()[1]
    with monkeypatch.context() as narrow:
        narrow.setattr(sys, "stdout", Narrow())
        text = str(model.summary())
        narrow.setattr(sys, "stdout", None)
        assert str(model.summary()).splitlines()[1] == BOX * len(rule)
    assert text.isascii() and r"<Odd & \u03bc>" in text
    assert text.splitlines()[1] == "-" * len(rule)


def test_copies_and_pickles_of_a_summary_are_equal():
    summary = fn.Sequential(fn.Linear(3, 4)).summary()
    for other in (copy.deepcopy(summary), pickle.loads(pickle.dumps(summary))):
        assert other == summary and other._repr_html_() == summary._repr_html_()
