"""A pinned training curve on real digits, which every backend follows, and dropout's masks."""

from __future__ import annotations

from itertools import chain, islice

import numpy as np
import pytest

import fastnet as fn
from fastnet import random
from fastnet.backends.steps import Steps, Update
from fastnet.data.dataset import Dataset
from fastnet.data.minibatches import batch_offsets, epoch_order

STEPS, BATCH, SEED = 50, 32, 0

# The losses of the reference in float64, step by step. They change only where what fastnet computes
# changes: initialisation, shuffling, dropout, an op, the optimizer.
CURVE = [
    2.529470471001643,
    2.25281612449733,
    2.179423926431655,
    2.3243175424052724,
    2.1586079451010596,
    2.0690894737979386,
    2.014198825599122,
    2.098183299189553,
    1.9336626676128583,
    1.8201781778669708,
    1.869471780003756,
    1.8236793085110086,
    1.6374175565798823,
    1.6758466458693575,
    1.657440908905548,
    1.6097787912869286,
    1.757671403024598,
    1.552566611753676,
    1.6909366426000074,
    1.619698521082047,
    1.520146409439656,
    1.3445812914215438,
    1.4241570515807174,
    1.3054473512966198,
    1.4909725111965968,
    1.3626296175990793,
    1.3372914897492785,
    1.309075169065998,
    1.307515725517367,
    1.3505822611269125,
    1.3201008722962548,
    1.255042176513798,
    1.3537942997390775,
    1.2639512933893036,
    1.123070299834374,
    1.2484178766719585,
    1.1146033703224054,
    1.1722358274374007,
    0.9525899992004916,
    1.0193668548509462,
    1.0648167100990147,
    1.0271137654351072,
    1.0329995885965317,
    1.0970374520017858,
    0.8540909192708948,
    1.1305301099607172,
    1.0753073171503824,
    0.8535056806778744,
    0.8449819689794567,
    0.8638175108404562,
]


def model_of(backend, dtype):
    """Without the bias that batchnorm takes away again: its gradient would be rounding, which Adam
    makes steps of."""
    return fn.Sequential(
        fn.Linear(64, 32, bias=False),
        fn.BatchNorm1d(32),
        fn.ReLU(),
        fn.Dropout(0.2),
        fn.Linear(32, 10),
        dtype=dtype,
        backend=backend,
        seed=SEED,
    )


def index_of(count):
    """The rows of the first STEPS minibatches, and where each begins; the last of an epoch is smaller."""
    ends = [np.diff(batch_offsets(count, BATCH)).tolist()] * 2
    sizes = list(islice(chain(*ends), STEPS))
    order = np.concatenate([epoch_order(count, SEED, epoch) for epoch in range(2)])
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    return order[: offsets[-1]], offsets


def train(model, X, y):
    """All steps in one call of the backend; returns the losses and the outputs."""
    data = Dataset(X, y, classes=10)
    executor = model.training_executor(data, BATCH, fn.CrossEntropyLoss())
    optimizer = fn.Adam(lr=3e-3)
    state = model.optimizer_state(optimizer)
    index, offsets = index_of(len(X))
    outputs = np.empty((len(index), 10), model.dtype)
    steps = Steps(index, offsets, SEED, 0, outputs=outputs)
    update = Update(state.rule.program, state.rule.segment, optimizer.hyper(0, STEPS))
    losses = executor.train(data, steps, update)
    model.touch()
    return losses, outputs


@pytest.fixture(scope="module")
def digits():
    return fn.datasets.digits()[0]


@pytest.fixture(scope="module")
def reference(digits):
    model = model_of("reference", "float64")
    losses, outputs = train(model, *digits)
    return losses, outputs, {name: v.copy() for name, v in model.state_dict().items()}


def test_the_reference_follows_the_pinned_curve(reference):
    np.testing.assert_allclose(reference[0], CURVE, rtol=1e-12)
    assert CURVE[-1] < CURVE[0] / 2


@pytest.mark.parametrize(("dtype", "tol"), [("float64", 1e-14), ("float32", 1e-6)])
def test_every_backend_follows_the_reference(backend, digits, reference, dtype, tol):
    """Losses, outputs, and in the end all parameters and buffers."""
    model = model_of(backend, dtype)
    losses, outputs = train(model, *digits)
    np.testing.assert_allclose(losses, reference[0], rtol=tol)
    np.testing.assert_allclose(outputs, reference[1], rtol=0, atol=5 * tol)
    for name, value in model.state_dict().items():
        np.testing.assert_allclose(value, reference[2][name], rtol=0, atol=5 * tol, err_msg=name)


def test_a_loop_of_ones_own_follows_it_too(backend, digits):
    """batches, forward, loss, backward and step; and value_and_grad, which is all but the step."""
    for in_one_call in (True, False):
        model, loss = model_of(backend, "float64"), fn.CrossEntropyLoss()
        optimizer, losses = fn.Adam(lr=3e-3), []
        epochs = (fn.batches(*digits, batch_size=BATCH, seed=SEED, epoch=e) for e in range(2))
        for xb, yb in islice(chain(*epochs), STEPS):
            if in_one_call:
                losses.append(model.value_and_grad(loss, xb, yb))
            else:
                losses.append(loss.forward(model.forward(xb), yb))
                model.zero_grad()
                model.backward(loss.backward())
            optimizer.step(model)
        np.testing.assert_allclose(losses, CURVE, rtol=1e-12)


def test_fit_follows_it_too(backend, digits):
    model = model_of(backend, "float64")
    trainer = fn.Trainer(model, fn.CrossEntropyLoss(), fn.Adam(lr=3e-3), seed=SEED)
    history = trainer.fit(*digits, epochs=1, batch_size=BATCH, verbose=0)
    offsets = batch_offsets(len(digits[0]), BATCH)
    mean = np.average(CURVE[: len(offsets) - 1], weights=np.diff(offsets))
    assert history.records[0]["loss"] == pytest.approx(mean, rel=1e-12)


# Dropout: which elements are kept, everywhere the same.

PROBABILITIES = [0.0, 1e-12, 1e-9, 2.0**-32, 0.2, 0.5, 0.999, 1 - 2.0**-33, 1.0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("p", PROBABILITIES)
def test_dropout_masks_are_those_of_the_words(backend, dtype, p):
    """An element is kept where its word is at least round(p·2³²); so in the VJP."""
    threshold = round(p * 2**32)
    scale = np.array(1 / (1 - p) if p < 1 else 0, dtype)
    for rows, columns in [(1, 1), (3, 33), (2, 64), (17, 67)]:
        layers = fn.Dropout(0.0), fn.Dropout(p)
        model = fn.Sequential(*layers, dtype=dtype, backend=backend, seed=2**64 - 3)
        for step in range(2):
            stream = random.stream_of(random.DROPOUT, 1)
            words = random.words(rows * columns, model.seed, stream, step).reshape(rows, columns)
            expected = np.where(words >= threshold, scale, 0)
            ones = np.ones((rows, columns))
            np.testing.assert_array_equal(model.forward(ones), expected)
            np.testing.assert_array_equal(model.backward(ones), expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_word_equal_to_the_threshold_is_kept(backend, dtype):
    words = random.words(67, 5, random.stream_of(random.DROPOUT, 0))
    for word in words[:: len(words) // 6].tolist():
        model = fn.Sequential(fn.Dropout(word / 2**32), dtype=dtype, backend=backend, seed=5)
        np.testing.assert_array_equal(model.forward(np.ones((1, 67)))[0] > 0, words >= word)


@pytest.mark.parametrize("p", [0.2, 0.5, 0.999])
def test_dropout_drops_its_share_and_keeps_the_mean(p):
    count = 400_000
    y = fn.Sequential(fn.Dropout(p), backend="reference", seed=0).forward(
        np.ones((100, count // 100))
    )
    assert abs((y == 0).mean() - p) < 5 * np.sqrt(p * (1 - p) / count)
    assert abs(y.mean() - 1) < 5 * np.sqrt(p / (1 - p) / count)


def test_masks_differ_between_layers_steps_and_seeds():
    """Each layer's own mask is seen where the other keeps everything."""
    seen = set()
    for seed, place in [(0, 0), (0, 1), (1, 0), (1, 1)]:
        layers = [fn.Dropout(0.0), fn.Dropout(0.0)]
        layers[place] = fn.Dropout(0.5)
        model = fn.Sequential(*layers, backend="reference", seed=seed)
        seen |= {tuple(model.forward(np.ones((8, 16))).ravel()) for _ in range(2)}
    assert len(seen) == 8
