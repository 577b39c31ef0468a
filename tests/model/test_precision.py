"""`precision="bfloat16"`: what it changes, what stays float32, and what goes with the model."""

from __future__ import annotations

import copy
import gc
import pickle

import numpy as np
import pytest

import fastnet as fn
from fastnet.backends import registry
from fastnet.errors import HyperparameterError
from fastnet.op import Array
from fastnet.plan.instructions import kernels_of

RANDOM = np.random.default_rng(7)
X = RANDOM.normal(size=(60, 9)).astype("f4")
Y = RANDOM.integers(0, 4, 60)


def net(
    precision: str | None = "bfloat16", backend: str = "auto", dtype: str = "float32"
) -> fn.Sequential:
    """A smooth net."""
    layers = fn.Linear(9, 20), fn.Tanh(), fn.Linear(20, 20), fn.Sigmoid(), fn.Linear(20, 4)
    return fn.Sequential(*layers, dtype=dtype, backend=backend, seed=3, precision=precision)


def losses(model: fn.Sequential, steps: int = 50) -> Array:
    optimizer, found = fn.Adam(1e-2), []
    for _ in range(steps):
        found.append(model.value_and_grad(fn.CrossEntropyLoss(), X, Y))
        optimizer.step(model)
    return np.array(found)


@pytest.mark.parametrize("bad", ["float32", "float16", "bf16", 16, True, np.float32, ["bfloat16"]])
def test_other_precisions_are_refused(bad):
    with pytest.raises(
        HyperparameterError, match=r"^precision is .*; expected 'bfloat16', or None"
    ):
        net(bad)


def test_float64_has_no_products_in_bfloat16():
    with pytest.raises(HyperparameterError, match=r"expected dtype='float32'.*or precision=None"):
        net(dtype="float64")


def test_it_is_fixed():
    model = net()
    assert model.precision == "bfloat16" and net(None).precision is None
    with pytest.raises(AttributeError, match="precision="):
        model.precision = None


def test_the_first_losses_are_those_of_float32_within_one_percent(backend):
    found, expected = losses(net(backend=backend)), losses(net(None, backend=backend))
    assert not np.array_equal(found, expected)
    np.testing.assert_allclose(found, expected, rtol=0.01)


def test_backends_agree(backend):
    found, expected = losses(net(backend=backend), 5), losses(net(backend="reference"), 5)
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    assert losses(net(None, backend=backend), 1) != found[:1]


def test_fit_evaluate_and_predict_round_alike(backend):
    model = net(backend=backend)
    trainer = fn.Trainer(model, fn.CrossEntropyLoss(), fn.Adam(1e-2), seed=1)
    trainer.fit(X, Y, epochs=3, batch_size=16, verbose=0)
    output = model.eval().forward(X)
    np.testing.assert_allclose(model.predict(X), output, rtol=1e-5, atol=1e-6)
    value = fn.CrossEntropyLoss().forward(output, Y)
    assert trainer.evaluate(X, Y)["loss"] == pytest.approx(value, rel=1e-5)
    exact = net(None, backend=backend)
    exact.load_state_dict(model.state_dict())
    assert np.abs(exact.predict(X) - output).max() > 1e-4


def test_every_linear_layer_multiplies_in_bfloat16():
    model = net(backend="reference")
    data = model.data(fn.CrossEntropyLoss(), X, Y, "x", "y")
    step = model.training_executor(data, 16, fn.CrossEntropyLoss()).plan.step
    names = [kernel.name for _, kernel in kernels_of(step)]
    assert names.count("bfloat16_linear_forward") == names.count("bfloat16_linear_vjp") == 3
    assert "linear_forward" not in names and "linear_vjp" not in names


def test_parameters_gradients_and_outputs_stay_float32(backend):
    model = net(backend=backend)
    model.value_and_grad(fn.CrossEntropyLoss(), X, Y)
    for values in (model.state_dict(), model.grads):
        assert {array.dtype for array in dict(values).values()} == {np.dtype("f4")}
    assert model.predict(X).dtype == np.float32
    assert any(np.ravel(v).view(np.uint32).astype(bool).any() for v in model.state_dict().values())
    lower = np.concatenate([np.ravel(v).view(np.uint32) & 0xFFFF for v in model.grads.values()])
    assert (lower != 0).mean() > 0.9  # not rounded


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_keep_it(copied):
    model = net()
    found = copied(model)
    assert found.precision == "bfloat16"
    assert found.predict(X).tobytes() == model.predict(X).tobytes()


def test_a_configuration_and_a_file_keep_it(tmp_path):
    model = net()
    assert "precision='bfloat16'" in repr(model) and "precision" not in repr(net(None))
    assert fn.Sequential.from_config(model.config()).precision == "bfloat16"
    old = {name: value for name, value in net(None).config().items() if name != "precision"}
    assert fn.Sequential.from_config(old).precision is None
    model.save(tmp_path / "net.safetensors")
    found = fn.load(tmp_path / "net.safetensors")
    assert found.precision == "bfloat16"
    assert found.predict(X).tobytes() == model.predict(X).tobytes()


def test_the_outermost_model_decides():
    inner = fn.Sequential(fn.Linear(9, 4), precision="bfloat16", seed=1)
    plain = fn.Sequential(fn.Linear(9, 4), seed=1)
    assert plain.predict(X).tobytes() != inner.predict(X).tobytes()
    expected = plain.predict(X)
    outer = fn.Sequential(inner, fn.Identity())
    assert outer.predict(X).tobytes() == expected.tobytes()
    assert outer.precision is None and inner.precision is None


def test_a_part_that_outlives_a_model_of_float64_does_not_round():
    part = fn.Sequential(fn.Linear(9, 4), precision="bfloat16", seed=1)
    outer = fn.Sequential(part, fn.Identity(), dtype="float64", seed=1)
    expected = outer.predict(X)
    del outer
    gc.collect()
    assert part.dtype == np.float64 and part.precision is None
    np.testing.assert_array_equal(part.predict(X), expected)


def test_the_summary_tells():
    assert "products of linear layers in bfloat16" in net().summary()
    assert "bfloat16" not in net(None).summary()


def test_to_another_backend_keeps_it():
    model = net(backend="reference")
    assert model.to("auto").precision == "bfloat16"


def test_derivatives_along_directions_are_of_float32():
    rounds, exact = net(), net(None)
    dx = np.ones_like(X)
    for found, expected in zip(rounds.jvp(X, dx), exact.jvp(X, dx), strict=True):
        assert found.tobytes() == expected.tobytes()
    assert rounds.predict(X).tobytes() != exact.predict(X).tobytes()


@pytest.mark.parametrize("density", [0.03, 0.5])
def test_a_layer_that_reads_elements_of_sparse_rows_stays_float32(backend, density):
    """Which it does where they are few, on a backend that reads such rows; dense ones round."""
    sparse = pytest.importorskip("scipy.sparse")
    x = np.random.default_rng(1).normal(size=(60, 64)).astype("f4")
    x[np.random.default_rng(2).random(x.shape) >= density] = 0
    values = []
    for precision in (None, "bfloat16"):
        model = fn.Sequential(fn.Linear(64, 4), seed=2, backend=backend, precision=precision)
        trainer = fn.Trainer(model, fn.CrossEntropyLoss(), fn.SGD(0.1), seed=1)
        trainer.fit(sparse.csr_array(x), Y, epochs=1, batch_size=10, verbose=0)
        values.append(model.state_dict()["0.weight"])
    same = values[0].tobytes() == values[1].tobytes()
    assert same == (density < 1 / 16 and registry.get(backend).reads_rows)
    np.testing.assert_allclose(values[1], values[0], rtol=0.05, atol=0.01)


def test_exported_c_computes_in_float32(tmp_path):
    models = {"net": net(), "exact": net(None)}
    texts = []
    for model in models.values():
        made = model.export_c(tmp_path / f"net{len(texts)}.c", "net")
        texts.append(made[0].read_text().replace(f"net{len(texts)}", ""))
    assert texts[0] == texts[1]
    assert models["net"].precision == "bfloat16"
