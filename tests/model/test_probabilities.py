"""predict_proba and predict_classes: by the link of the loss with which a trainer trains the model."""

from __future__ import annotations

import copy
import pickle
import threading

import numpy as np
import pytest
from refusals import refused

import fastnet as fn
from fastnet.errors import HyperparameterError, UsageError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 3)).astype("f")
CODES = RNG.integers(0, 3, 30)
TRUTHS = (CODES == 1)[:, None].astype("f")


def model(width=3, final=(), backend="reference", dtype="float64"):
    return fn.Sequential(fn.Linear(3, width), *final, backend=backend, dtype=dtype, seed=1)


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


CASES = {  # loss, width, last layers, the probabilities of outputs
    "softmax": (fn.CrossEntropyLoss(), 3, [], softmax),
    "exp": (fn.NLLLoss(), 3, [fn.LogSoftmax()], np.exp),
    "exp of KLDivLoss": (fn.KLDivLoss(), 3, [fn.LogSoftmax()], np.exp),
    "sigmoid": (fn.BCEWithLogitsLoss(), 1, [], lambda z: np.hstack([sigmoid(-z), sigmoid(z)])),
    "several logits": (fn.BCEWithLogitsLoss(), 4, [], sigmoid),
    "one probability": (fn.BCELoss(), 1, [fn.Sigmoid()], lambda p: np.hstack([1 - p, p])),
    "probabilities": (fn.BCELoss(), 4, [fn.Sigmoid()], lambda p: p),
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("case", CASES)
def test_probabilities_and_classes(case, dtype, backend):
    loss, width, final, expected = CASES[case]
    made = model(width, final, backend, dtype)
    fn.Trainer(made, loss)
    output, found = made.predict(X), made.predict_proba(X)
    tolerance = 1e-14 if dtype == "float64" else 1e-6
    np.testing.assert_allclose(found, expected(output.astype("d")), tolerance, tolerance)
    assert found.dtype == made.dtype
    several = width == 4
    if not several:
        np.testing.assert_allclose(found.sum(axis=1), 1, 1e-6)
    classes = made.predict_classes(X)
    wanted = (found >= 0.5).astype(int) if several else found.argmax(axis=1)
    assert classes.tolist() == wanted.tolist() and classes.dtype == np.int64
    assert made.predict_proba(X, 7).tobytes() == found.tobytes()
    assert made.predict_classes(X, batch_size=7).tolist() == classes.tolist()
    assert made.predict_proba(X[:0]).shape == (0, *found.shape[1:]) and not len(
        made.predict_classes(X[:0])
    )


def test_small_probabilities_keep_their_digits():
    made = fn.Sequential(fn.Identity(), dtype="float64")
    fn.Trainer(made, fn.BCEWithLogitsLoss())
    z = np.array([[-700.0], [-40.0], [0.0], [40.0], [700.0]])
    found = made.predict_proba(z)
    np.testing.assert_allclose(found[:, 1], np.exp(-np.logaddexp(0, -z[:, 0])), 1e-14)
    np.testing.assert_allclose(found[::-1, 0], found[:, 1], 1e-14)
    assert made.predict_classes(z).tolist() == [0, 0, 1, 1, 1]  # at ½ the second one
    made = fn.Sequential(fn.Identity(), dtype="float64")
    fn.Trainer(made, fn.CrossEntropyLoss())
    assert made.predict_proba([[1e300, -1e300, 1e300]]).tolist() == [[0.5, 0, 0.5]]
    assert made.predict_classes([[1.0, 2.0, 2.0]]).tolist() == [1]  # the first of equals


REFUSED = {
    "no trainer": None,
    "a loss of reals": fn.MSELoss(),
    "logarithms of rates": fn.PoissonNLLLoss(),
    "means and variances": fn.GaussianNLLLoss(),
    "a function": lambda y, t: (0.0, y),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_losses_have_neither(case):
    made = model()
    if REFUSED[case] is not None:
        fn.Trainer(made, REFUSED[case])
    for call, what in (made.predict_proba, "probabilities"), (made.predict_classes, "classes"):
        message = f"^{call.__name__}: no trainer with a loss of {what} has trained this model; train it by"
        refused(lambda call=call: call(X), UsageError, message)


@pytest.mark.parametrize("loss", [fn.MultiMarginLoss(), fn.OneVsRestHingeLoss()])
def test_margins_have_classes_and_no_probabilities(loss):
    made = model()
    fn.Trainer(made, loss).fit(X, np.array(["a", "b", "c"])[CODES], verbose=0)
    refused(lambda: made.predict_proba(X), UsageError, "a loss of probabilities")
    names = np.array(["a", "b", "c"])[made.predict(X).argmax(axis=1)]
    assert made.predict_classes(X).tolist() == names.tolist()


def test_the_last_training_tells():
    made = model(1)
    of_classes, of_reals = fn.Trainer(made, fn.BCEWithLogitsLoss()), fn.Trainer(made, fn.MSELoss())
    assert made.predict_proba(X).shape == (30, 2)  # a trainer alone overrides nothing
    of_reals.fit(X, TRUTHS, verbose=0)
    refused(
        lambda: made.predict_proba(X), UsageError, "predict_proba: no trainer with a loss of prob"
    )
    for train in (
        lambda t: t.train_on_batch(X, TRUTHS),
        lambda t: t.fit(X, TRUTHS, verbose=0),
        lambda t: fn.fit_many([t], X, TRUTHS),
        lambda t: t.fit_full_batch(X, TRUTHS, "gradient-descent", max_iter=1),
    ):
        train(of_classes)
        made.predict_proba(X)
        train(of_reals)
        refused(lambda: made.predict_classes(X), UsageError, "predict_classes: no trainer")
        of_classes.evaluate(X, TRUTHS)
        of_classes.find_lr(X, TRUTHS, steps=2)
        refused(lambda: made.predict_classes(X), UsageError, "predict_classes: no trainer")
    of_reals.reset()
    of_classes.reset()
    made.predict_proba(X)


def test_a_loss_of_ones_own_may_have_a_link():
    class Own(fn.MSELoss):
        link = "sigmoid"

    made = model(1)
    fn.Trainer(made, Own())
    np.testing.assert_allclose(made.predict_proba(X)[:, 1:], sigmoid(made.predict(X)), 1e-14)

    class Wrong(fn.MSELoss):
        link = "probit"

    message = "^Wrong.link is 'probit'; expected None, 'softmax', "
    refused(lambda: fn.Trainer(model(1), Wrong()), HyperparameterError, message)


COPIES = {
    "copy": lambda m, path: copy.copy(m),
    "pickle": lambda m, path: pickle.loads(pickle.dumps(m)),
    "file": lambda m, path: (m.save(path), fn.load(path))[1].to("reference"),
}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("case", CASES)
def test_copies_and_files_keep_the_link(how, case, tmp_path):
    loss, width, final, _ = CASES[case]
    made = model(width, final)
    fn.Trainer(made, loss)
    found = COPIES[how](made, tmp_path / "net.safetensors")
    assert found.predict_proba(X).tobytes() == made.predict_proba(X).tobytes()
    assert found.predict_classes(X).tobytes() == made.predict_classes(X).tobytes()


def test_a_pickle_from_before_there_were_terms_is_good():
    made = model()
    state = copy.deepcopy(made.__getstate__())
    del state["_terms"]
    old = fn.Sequential.__new__(fn.Sequential)
    old.__setstate__(state)
    assert old.classes_ is None and old.predict(X).shape == (30, 3)


def test_predicting_holds_no_lock(backend):
    made = model(backend=backend)
    fn.Trainer(made, fn.CrossEntropyLoss())
    expected, found = made.predict_proba(X), []
    with made.training_lock():
        thread = threading.Thread(target=lambda: found.append(made.predict_proba(X)))
        thread.start()
        thread.join(60)
    assert found[0].tobytes() == expected.tobytes()
