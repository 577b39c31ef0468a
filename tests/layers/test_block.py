"""Blocks: what they compute, outside a model and in one, and what they refuse."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import fastnet as fn
from fastnet.errors import FileError, HyperparameterError, ShapeError, StateDictError, UsageError

X = np.random.default_rng(0).normal(size=(7, 4))


def made(*layers, backend="reference", seed=0):
    return fn.Sequential(*layers, dtype="float64", backend=backend, seed=seed)


def test_what_blocks_compute(backend):
    a, b = fn.Linear(4, 4), fn.Linear(4, 4)
    block = fn.Concat(
        fn.Residual(a, fn.Tanh()),
        fn.Add(fn.Identity(), b, fn.Identity()),
        fn.Multiply(fn.Sigmoid(), fn.Tanh(), fn.Identity()),
    )
    model = made(block, backend=backend)
    y = model.predict(X)
    fa, fb = X @ a.weight.T + a.bias, X @ b.weight.T + b.bias
    want = [X + np.tanh(fa), 2 * X + fb, X * np.tanh(X) / (1 + np.exp(-X))]
    np.testing.assert_allclose(y, np.concatenate(want, axis=1), rtol=1e-12)
    assert model.output_shape((4,)) == (12,) and model.input_shape == (4,)
    assert model.on_host("y", model.forward(X)).shape == (7, 12)


def test_blocks_outside_a_model_work_as_in_one(backend):
    def block():
        shared = fn.Linear(4, 4)
        inner = fn.Sequential(fn.Linear(4, 3), fn.Tanh())
        return fn.Concat(fn.Residual(shared, fn.SiLU(), shared), inner, inner)

    alone = block()
    y = alone.forward(X)
    assert y.shape == (7, 10) and alone.state_dict().keys() == alone.grads.keys()
    dx = alone.backward(np.ones_like(y))
    model = made(block(), backend=backend)
    model.load_state_dict({f"0.{name}": value for name, value in alone.state_dict().items()})
    np.testing.assert_allclose(model.forward(X), y, rtol=1e-12)
    np.testing.assert_allclose(model.backward(np.ones_like(y)), dx, rtol=1e-12)
    for name, grad in alone.grads.items():
        np.testing.assert_allclose(model.grads[f"0.{name}"], grad, rtol=1e-11, err_msg=name)
    alone.zero_grad()
    assert not any(grad.any() for grad in alone.grads.values())


def test_a_block_alone_takes_layers_as_they_are():
    used = fn.Linear(4, 4)
    used.forward(X.astype("f"))
    weight = np.array(used.weight)
    block = fn.Residual(used, fn.Linear(4, 4))
    assert block.forward(X).dtype == np.float32  # the first layer's
    np.testing.assert_array_equal(used.weight, weight)
    other = fn.Linear(4, 4)
    other.forward(X)
    used = copy.deepcopy(used)
    assert fn.Residual(used, other).forward(X).dtype == np.float32
    assert other.weight.dtype == used.weight.dtype == np.float32


def test_two_dropouts_draw_different_masks():
    ones = np.ones((16, 64))
    alone = fn.Concat(fn.Dropout(0.5), fn.Dropout(0.5))
    twice = fn.Dropout(0.5)
    for block in (alone, fn.Concat(twice, twice)):
        a, b = np.split(block.forward(ones), 2, axis=1)
        assert 0.4 < np.mean(a == b) < 0.6
        model = made(block, seed=1)
        a, b = np.split(np.array(model.forward(ones)), 2, axis=1)
        assert 0.4 < np.mean(a == b) < 0.6


def test_modes_of_the_layers_in_a_block():
    drop = fn.Dropout(0.5)
    block = fn.Residual(drop, fn.Tanh())
    ones = np.ones((4, 8))
    assert (block.forward(ones) == 1).any()
    drop.eval()
    assert block.training  # the Tanh
    np.testing.assert_array_equal(block.forward(ones), 1 + np.tanh(ones))
    block.eval()
    assert not (block.training or drop.training or made(block).training)
    block.training = True
    assert drop.training
    with pytest.raises(ShapeError, match="expected at least 2"):
        fn.Residual(fn.BatchNorm1d(8)).forward(ones[:1])


def test_shared_layers_have_one_set_of_parameters():
    layer, encoder = fn.Linear(4, 4), fn.Sequential(fn.Linear(4, 2), fn.Tanh())
    model = made(layer, fn.ReLU(), layer, fn.Concat(encoder, encoder), layer)
    assert list(model.state_dict()) == ["0.weight", "0.bias", "3.0.0.weight", "3.0.0.bias"]
    assert model._aliases() == {"2": "0", "3.1.0": "3.0.0", "3.1.1": "3.0.1", "4": "0"}
    # PyTorch's state dict has all names.
    state = {n: v + 1 for n, v in model.state_dict().items()}
    state |= {f"2.{what}": state[f"0.{what}"] for what in ("weight", "bias")}
    model.load_state_dict(state)
    np.testing.assert_array_equal(layer.bias, state["0.bias"])
    with pytest.raises(StateDictError, match="unexpected"):
        model.load_state_dict({**state, "5.weight": state["0.weight"]})
    table = model.summary().rows
    assert ("2  Linear(4, 4), again", "(n, 4)", "") in table
    assert ("3.1  Sequential", "(n, 2)", "") in table
    assert table[-1][-1] == f"{20 + 10}"


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_share_what_the_original_shares(copied):
    layer, encoder = fn.Linear(4, 4), fn.Sequential(fn.Linear(4, 2), fn.Tanh())
    block = fn.Concat(encoder, fn.Residual(layer, fn.Tanh(), layer), encoder)
    for original in (block, made(block)):
        twin = copied(original)
        want, found = (m._walk() for m in (original, twin))
        assert [path for path, _ in want] == [path for path, _ in found]
        assert not {id(la) for _, la in original._walk()} & {id(la) for _, la in twin._walk()}
        original.eval(), twin.eval()
        np.testing.assert_array_equal(twin.forward(X), original.forward(X))


def test_files_and_configurations_keep_what_is_shared(tmp_path, backend):
    layer, encoder = fn.Linear(4, 4), fn.Sequential(fn.Linear(4, 2), fn.Tanh())
    inner = fn.Residual(layer, fn.Tanh(), layer)
    model = made(
        inner, layer, fn.Concat(encoder, fn.Flatten(), encoder), inner_head(), backend=backend
    )
    twin = fn.from_config({"type": "Sequential", **model.config()})
    assert twin._aliases() == model._aliases() and twin.config() == model.config()
    model.save(tmp_path / "net.safetensors")
    loaded = fn.load(tmp_path / "net.safetensors").to(backend)
    assert loaded._aliases() == model._aliases()
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))


def inner_head():
    return fn.Multiply(fn.Linear(8, 3), fn.Sequential(fn.Linear(8, 3), fn.Sigmoid()))


@pytest.mark.parametrize(
    "layers",
    [
        [{"&": 1}],
        [{"&": 1, "type": "Tanh"}, {"&": 1, "type": "Tanh"}],
        [{"&": "a", "type": "Tanh"}],
        [{"&": True, "type": "Tanh"}],
        [{"&": [], "type": "Tanh"}],
    ],
)
def test_numbers_of_shared_objects_are_checked(layers):
    with pytest.raises(HyperparameterError, match=r"^'&' is .*; expected an integer"):
        fn.from_config({"type": "Sequential", "layers": layers})


def test_frozen_parts_of_blocks(backend):
    trunk, head = fn.Linear(4, 4), fn.Linear(4, 4)
    block = fn.Residual(trunk, fn.Tanh(), head)
    block.freeze()
    assert trunk.frozen and head.frozen and block.frozen
    head.unfreeze()
    model = made(block, fn.Linear(4, 1), backend=backend)
    assert model.frozen == ["0.0.weight", "0.0.bias"]
    before = model.state_dict()
    trainer = fn.Trainer(model, fn.MSELoss(), fn.Adam(0.1), seed=0)
    trainer.fit(X, X[:, :1], epochs=2, verbose=0)
    after = model.state_dict()
    same = {name for name in before if np.array_equal(before[name], after[name])}
    assert same == set(model.frozen)
    block.unfreeze()
    assert not model.frozen
    model.freeze("0.*")
    assert block.frozen and not model[1].frozen


def test_flatten(backend):
    images = np.arange(24.0).reshape(2, 3, 4) / 10
    model = made(fn.Flatten(), fn.Linear(12, 2), fn.Tanh(), backend=backend)
    flat = made(fn.Linear(12, 2), fn.Tanh(), backend=backend)
    flat.load_state_dict({n.replace("1.", "0."): v for n, v in model.state_dict().items()})
    np.testing.assert_array_equal(model.predict(images), flat.predict(images.reshape(2, 12)))
    model.forward(images), flat.forward(images.reshape(2, 12))
    dy = np.ones((2, 2))
    dx = model.backward(dy)
    assert dx.shape == images.shape
    np.testing.assert_array_equal(dx.reshape(2, 12), flat.backward(dy))
    only = made(fn.Flatten(), backend=backend)
    np.testing.assert_array_equal(only.predict(images), images.reshape(2, 12))
    layer = fn.Flatten()
    np.testing.assert_array_equal(layer.forward(images), images.reshape(2, 12))
    assert layer.backward(np.ones((2, 12))).shape == images.shape
    losses = []
    for net, x in ((model, images), (flat, images.reshape(2, 12))):
        trainer = fn.Trainer(net, fn.MSELoss(), fn.SGD(0.1), seed=0)
        history = trainer.fit(x, np.ones((2, 2)), epochs=3, verbose=0, validation_data=(x, dy))
        losses.append(history.history["loss"])
        assert trainer.evaluate(x, dy) == pytest.approx({"loss": history.records[-1]["val_loss"]})
    assert losses[0] == losses[1]
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    assert model.predict(pixels).shape == (2, 2)
    with pytest.raises(ShapeError, match=r"expected in_features = 12"):
        model.predict(images[:, :2])
    with pytest.raises(ShapeError, match=r"x has shape \(12,\), expected \(n, \.\.\.\)"):
        model.predict(images[0].ravel())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fn.Residual(fn.Linear(4, 3)), r"^Residual: the layers give .*\(3,\).*shortcut="),
        (
            lambda: fn.Residual(fn.Linear(4, 3), shortcut=fn.Linear(4, 2)),
            r"^Residual: the layers give rows of shape \(3,\), expected the shortcut's \(2,\)",
        ),
        (
            lambda: fn.Sequential(fn.Linear(2, 4), fn.Residual(fn.Flatten(), fn.Linear(4, 3))),
            r"^layer 1 \(Residual\): the layers give",
        ),
        (
            lambda: fn.Add(fn.Linear(4, 3), fn.Linear(4, 2)),
            r"^Add: branch 1 gives rows of shape \(2,\), expected \(3,\)",
        ),
        (
            lambda: made(fn.Concat(fn.Identity())).predict(X.reshape(7, 2, 2)),
            r"^x has shape \(7, 2, 2\)|^layer 0 \(Concat\): branch 0 gives rows of shape \(2, 2\)",
        ),
        (lambda: fn.Concat(fn.Linear(4, 3), fn.Linear(5, 3)), r"^layer 1 \(Linear\).*\(4,\) came"),
    ],
)
def test_shapes_that_do_not_fit(make, message):
    with pytest.raises(ShapeError, match=message):
        make()


@pytest.mark.parametrize("kind", [fn.Residual, fn.Concat, fn.Add, fn.Multiply])
def test_what_is_no_layer(kind):
    with pytest.raises(HyperparameterError, match=rf"^{kind.__name__}\(\) has no layers"):
        kind()
    for wrong in ([fn.Tanh()], fn.Tanh, None, 3, fn.MSELoss()):
        with pytest.raises(HyperparameterError, match=r"^layer 1 is .*; expected a layer"):
            kind(fn.Tanh(), wrong)
    with pytest.raises(HyperparameterError, match=r"^layer shortcut is 3; expected a layer"):
        fn.Residual(fn.Tanh(), shortcut=3)


def test_a_failed_block_claims_nothing():
    layer = fn.Linear(4, 3)
    for make in (fn.Residual, lambda la: fn.Concat(la, 3), lambda la: fn.Sequential(la, la)):
        with pytest.raises((ShapeError, HyperparameterError)):
            make(layer)
    assert layer._owner is None
    fn.Sequential(layer)


def test_the_parts_of_a_block_in_a_model_are_the_models():
    inner = fn.Sequential(fn.Linear(4, 4), fn.Tanh())
    block = fn.Residual(inner)
    with pytest.raises(UsageError, match="part of another model"):
        inner.predict(X)
    model = made(block)
    for call in (block.reset_parameters, lambda: block.load_state_dict({})):
        with pytest.raises(UsageError, match="belongs to a model"):
            call()
    assert inner.dtype == model.dtype == np.float64 and inner.seed == model.seed
    np.testing.assert_array_equal(block.state_dict()["0.0.bias"], model.state_dict()["0.0.0.bias"])


def test_hostile_files_with_shared_layers(tmp_path):
    layer = fn.Linear(4, 4)
    model = made(layer, layer)
    model.save(tmp_path / "a")
    data = (tmp_path / "a").read_bytes()
    assert data.count(b'\\"&\\": 1') + data.count(b'\\"&\\":1') >= 1
    broken = data.replace(b'\\"&\\":1', b'\\"&\\":2', 1).replace(b'\\"&\\": 1', b'\\"&\\": 2', 1)
    (tmp_path / "b").write_bytes(broken)
    with pytest.raises(FileError):
        fn.load(tmp_path / "b")
