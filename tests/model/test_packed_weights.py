"""Predictions in bfloat16 read weights that were rounded and packed once for a version of the model."""

from __future__ import annotations

import copy
import pickle
import re
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onecall import Call

import fastnet as fn
from fastnet import parallel
from fastnet.backends import registry
from fastnet.backends.c.backend import CBackend
from fastnet.backends.executor import Executor
from fastnet.layers.bfloat16_linear import (
    bfloat16_pairs,
    pairs_of,
    round_to_bfloat16,
    weights_of,
)
from fastnet.model.runtime import Runtime
from fastnet.op import KERNELS, Array
from fastnet.parameter import Derived
from fastnet.plan.instructions import kernels_of

pytestmark = pytest.mark.skipif(not fn.backends()["c"].available, reason="no C backend")
RANDOM = np.random.default_rng(11)
X = RANDOM.normal(size=(60, 9)).astype("f4")
Y = RANDOM.integers(0, 4, 60)


def net(backend: str = "c", *layers: Any) -> fn.Sequential:
    layers = layers or (fn.Linear(9, 40), fn.Tanh(), fn.Linear(40, 4))
    return fn.Sequential(*layers, backend=backend, seed=3, precision="bfloat16")


def unpacked(model: fn.Sequential, x: Array = X) -> Array:
    """The prediction from the parameters that are there now, which kernels round while they multiply."""
    backend = registry.get("c")
    assert isinstance(backend, CBackend)
    backend.packs_weights = False  # type: ignore[misc]
    try:
        executor = Runtime(model, model.bind(), backend).predictor(x.shape[1:], len(x))
    finally:
        del backend.packs_weights
    names = [kernel.name for _, kernel in kernels_of(executor.plan.forward)]
    assert "bfloat16_linear_forward" in names and not len(executor.plan.derivation)
    found = executor.fast_path()(x, None)
    assert found is not None
    return found


def derived_of(executor: Executor) -> list[tuple[Derived, int]]:
    """The derived tensors of an executor, with their offsets."""
    return [(executor._derived_values[number], at) for number, at in executor.plan.derived]


def packed_numbers(model: fn.Sequential, x: Array = X) -> int:
    """The words of 64 bits that a prediction reads packed."""
    executor = model._runtime.predictor(x.shape[1:], len(x))
    return sum(int(i["size"][2]) for i, _ in kernels_of(executor.plan.derivation))


def test_the_layout_is_pairs_in_panels():
    w = RANDOM.normal(size=(5, 37)).astype("f4")
    rounded = round_to_bfloat16(w).view(np.uint32) >> 16
    words = pairs_of(w).view(np.uint32).reshape(2, 3, 32)
    for u, j in ((0, 0), (1, 31), (1, 32), (2, 36), (2, 5)):
        low, high = rounded[2 * u, j], rounded[2 * u + 1, j] if 2 * u + 1 < 5 else 0
        assert words[j // 32, u, j % 32] == low | high << 16
    assert not words[1, :, 5:].any()
    np.testing.assert_array_equal(weights_of(pairs_of(w), 5, 37), round_to_bfloat16(w))


def test_nan_and_infinity_are_packed_as_such(engine):
    """A NaN whose upper half alone would be infinity, numbers that round to infinity, denormal ones."""
    words = [0x7F800001, 0xFFC00001, 0x7F7F8000, 0x7F800000, 0x00000001, 0x807FFFFF, 0x3F818000]
    w = np.array(words, np.uint32).view("f4").reshape(1, 7)
    sizes = bfloat16_pairs.fitted({"I": 1, "O": 7})
    call = Call(KERNELS["bfloat16_pairs_forward"], "float32", 1, sizes, {"w": w})
    if not engine.packs_weights and engine.name != "reference":
        pytest.skip("it packs no weights")
    found = weights_of(call.run(engine)["p"], 1, 7)
    np.testing.assert_array_equal(found, round_to_bfloat16(w))
    np.testing.assert_array_equal(np.signbit(found[0, 2:]), np.signbit(w[0, 2:]))


# Odd numbers along k, panels with one and with several columns, several blocks of k and of rows.
SIZES = [(1, 1), (2, 33), (33, 1), (301, 83), (67, 32), (64, 64), (40, 700), (1025, 97), (2051, 33)]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("inputs", "outputs"), SIZES)
def test_the_bits_are_those_of_weights_that_are_not_packed(engine, inputs, outputs, threads):
    if not engine.packs_weights:
        pytest.skip("it packs no weights")
    random, sizes = np.random.default_rng(2), bfloat16_pairs.fitted({"I": inputs, "O": outputs})
    w, b = random.normal(size=(inputs, outputs)).astype("f4"), np.ones(outputs, "f4")
    make = Call(KERNELS["bfloat16_pairs_forward"], "float32", 1, sizes, {"w": w}, threads=threads)
    p = make.run(engine)["p"]
    np.testing.assert_array_equal(p, pairs_of(w))
    for rows in (1, 2, 3, 4, 5, 7, 8, 9, 14, 33, 430):
        x = random.normal(size=(rows, inputs)).astype("f4")
        for absent in ((), ("b",)):
            given = {"x": x, "w": w, "b": b, "p": p}
            found = [
                Call(
                    KERNELS[f"{name}_forward"], "float32", rows, sizes, given,
                    absent=absent, threads=threads,
                ).run(engine)["y"]
                for name in ("bfloat16_linear", "bfloat16_pairs_linear")
            ]  # fmt: skip
            assert found[0].tobytes() == found[1].tobytes(), rows


def test_a_nan_in_a_column_beside_stays_there():
    model = net("c", fn.Linear(3, 5))
    with model.edit() as p:
        p["0.weight"][4, 1] = 3.4e38
    y = model.predict(np.ones((2, 3), "f4"))
    assert np.isinf(y[:, 4]).all() and np.isfinite(y[:, :4]).all()


LAYERS = {
    "batchnorm, folded": lambda: (
        fn.Linear(9, 33),
        fn.BatchNorm1d(33),
        fn.ReLU(),
        fn.Linear(33, 4),
    ),
    "one layer": lambda: (fn.Linear(9, 4),),
    "no bias": lambda: (fn.Linear(9, 50, bias=False), fn.GELU(), fn.Linear(50, 4, bias=False)),
    "residual": lambda: (fn.Residual(fn.Linear(9, 9), fn.ReLU()), fn.Linear(9, 4)),
}


@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
def test_kernels_pack_what_numpy_packs(layers):
    model = net("c", *layers())
    executor = model._runtime.predictor((9,), 60)
    model.predict(X)
    packed = [(d, at) for d, at in derived_of(executor) if d.node is not None]
    assert packed
    for derived, at in packed:
        np.testing.assert_array_equal(
            executor.at(("derived", at), derived.shape, "i8"), derived.compute()
        )


@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
def test_nets_predict_from_packed_weights(layers):
    model = net("c", *layers())
    fn.Trainer(model, fn.CrossEntropyLoss(), fn.Adam(1e-2)).fit(X, Y, epochs=2, verbose=0)
    assert packed_numbers(model) > 0
    found = model.predict(X)
    assert found.tobytes() == unpacked(model).tobytes()
    assert model.predict(X[:1]).tobytes() == found[:1].tobytes()
    assert model.predict(X, batch_size=7).tobytes() == found.tobytes()


def test_a_layer_in_two_places_is_packed_once():
    shared = fn.Linear(9, 9)
    model = net("c", shared, fn.ReLU(), shared)
    assert packed_numbers(model) == len(pairs_of(np.zeros((9, 9))))
    assert model.predict(X).tobytes() == unpacked(model).tobytes()


def stepped(model: fn.Sequential) -> None:
    model.value_and_grad(fn.CrossEntropyLoss(), X, Y)
    fn.SGD(0.5).step(model)


def trained_on_batches(model: fn.Sequential) -> None:
    trainer = fn.Trainer(model, fn.CrossEntropyLoss(), fn.SGD(0.5))
    for _ in range(3):  # the first goes the long way
        trainer.train_on_batch(X, Y)


def fitted(model: fn.Sequential) -> None:
    trainer = fn.Trainer(model, fn.CrossEntropyLoss(), fn.SGD(0.5))
    trainer.fit(X, Y, epochs=2, validation_data=(X, Y), verbose=0)


def loaded(model: fn.Sequential) -> None:
    model.load_state_dict({n: v + 0.25 for n, v in model.state_dict().items()})


def edited(model: fn.Sequential) -> None:
    with model.edit() as p:
        p["0.weight"][...] += 0.25


def drawn_anew(model: fn.Sequential) -> None:
    model.reset_parameters(77)


def by_hand(model: fn.Sequential) -> None:
    """A loop of one's own, with forward and backward."""
    loss, optimizer = fn.CrossEntropyLoss(), fn.SGD(0.5)
    for _ in range(3):
        model.zero_grad()
        loss.forward(model.train().forward(X), Y)
        model.backward(loss.backward())
        optimizer.step(model)


CHANGES: list[Callable[[fn.Sequential], None]] = [
    stepped, trained_on_batches, fitted, loaded, edited, drawn_anew, by_hand,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_no_change_of_parameters_leaves_a_stale_copy(change):
    """On the thread of the change, and on another one that has predicted before."""
    model = net()
    before = model.predict(X)
    found: list[Array] = []
    changed, seen = threading.Event(), threading.Event()

    def predict() -> None:
        model.predict(X)
        seen.set()
        changed.wait()
        found.append(model.predict(X))

    other = threading.Thread(target=predict)
    other.start()
    seen.wait()
    change(model)
    changed.set()
    other.join()
    expected = unpacked(model)
    assert not np.array_equal(expected, before)
    assert model.predict(X).tobytes() == found[0].tobytes() == expected.tobytes()
    assert model.predict(X[:1]).tobytes() == expected[:1].tobytes()


def test_within_an_edit_predictions_follow_the_copies():
    model = net()
    with model.edit() as p:
        for _ in range(2):
            p["0.weight"][...] *= 0.5
            found = model.predict(X)
            assert found.tobytes() == unpacked(model).tobytes()


def test_no_array_of_a_parameter_can_be_written_to():
    """So nothing changes a weight past the version that packed copies compare."""
    model = net()
    before = model.predict(X)
    for array in (model.named_parameters()["0.weight"], model[0].weight):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True
    model.state_dict()["0.weight"][...] = 0  # a copy
    assert model.predict(X).tobytes() == unpacked(model).tobytes() == before.tobytes()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_pack_for_themselves(copied):
    model = net()
    model.predict(X)
    found = copied(model)
    stepped(found)
    assert found.predict(X).tobytes() == unpacked(found).tobytes()
    assert model.predict(X).tobytes() == unpacked(model).tobytes() != found.predict(X).tobytes()


def test_alike_models_on_several_backends_have_each_their_own_way():
    for backend in ("reference", "c", "reference"):
        model = net(backend)
        assert (packed_numbers(model) > 0) == (backend == "c")
        np.testing.assert_allclose(model.predict(X), net("c").predict(X), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_and_levels_change_no_bit(threads):
    backend, random = registry.get("c"), np.random.default_rng(4)
    x = random.normal(size=(700, 301)).astype("f4")
    found, kept = set(), parallel.get_num_threads()
    top = backend.level()
    try:
        fn.set_num_threads(threads)
        for level in range(1, top + 1):  # level 0 has no fused multiply-adds
            backend.set_level(level)
            model = net("c", fn.Linear(301, 200), fn.ReLU(), fn.Linear(200, 33))
            y = model.predict(x, batch_size=700)
            assert y.tobytes() == unpacked(model, x).tobytes()
            found.add(y.tobytes())
    finally:
        backend.set_level(top)
        fn.set_num_threads(kept)
    assert len(found) == 1


def test_the_summary_has_the_bytes():
    """Two bytes a weight, and what fills up pairs and panels of 32 columns."""
    words = sum(len(pairs_of(np.zeros(shape))) for shape in ((9, 40), (40, 4)))
    (shown,) = re.findall(r"packed weights of a predicting thread ([\d,]+)", net().summary())
    assert int(shown.replace(",", "")) == 8 * words == 8 * packed_numbers(net())
    assert "packed" not in net("reference").summary()
    exact = fn.Sequential(fn.Linear(9, 4), backend="c", seed=1)
    assert "packed" not in exact.summary()


def test_validation_within_a_fit_reads_weights_that_change():
    """It has no packed copy, so a chunk of several epochs may evaluate each of them."""
    model = net()
    data = model.data(fn.CrossEntropyLoss(), X, Y, "x", "y")
    executor = model.evaluator(data, 60, fn.CrossEntropyLoss(), outputs=False, within=True)
    assert not executor.derives
