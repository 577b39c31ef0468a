"""Models of scikit-learn's multi-layer perceptrons, and back."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import fastnet as fn

neural = pytest.importorskip("sklearn.neural_network")
RANDOM = np.random.default_rng(3)
X = RANDOM.normal(size=(80, 4))
THIRDS = np.arange(80) % 3

CLASSIFIERS = {
    "strings": ("relu", (5, 4), np.array(["ä", "b", "c"])[THIRDS]),
    "integers": ("tanh", (5,), np.array([7, -3, 9])[THIRDS]),
    "two": ("logistic", (5, 6), np.array(["no", "yes"])[THIRDS // 2]),
    "booleans": ("identity", (5,), THIRDS > 0),
    "several truths": ("relu", (5,), (X[:, :3] > 0).astype(int)),
    "no hidden layer": ("identity", (), THIRDS),
}
REGRESSORS = {
    "one": ("relu", (5, 4), X[:, 0], {}),
    "several": ("logistic", (5,), X[:, :2], {}),
    "counts": ("tanh", (5,), np.abs(X[:, 0]), {"loss": "poisson"}),
}


def fitted(kind, activation, sizes, X, y, **more):
    net = kind(hidden_layer_sizes=sizes, activation=activation, max_iter=5, random_state=0, **more)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return net.fit(X, y)


def same_weights(a, b):
    for one, other in zip((*a.coefs_, *a.intercepts_), (*b.coefs_, *b.intercepts_), strict=True):
        np.testing.assert_array_equal(one, other, strict=True)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_a_classifier_and_back(kind, dtype):
    activation, sizes, y = CLASSIFIERS[kind]
    x = X.astype(dtype)
    net = fitted(neural.MLPClassifier, activation, sizes, x, y)
    model = fn.from_sklearn(net)
    back = model.to_sklearn()
    assert model.dtype == dtype and type(back) is neural.MLPClassifier
    tolerance = {"rtol": 0, "atol": 1e-6 if dtype == "float32" else 1e-14}
    np.testing.assert_allclose(model.predict_proba(x), net.predict_proba(x), **tolerance)
    np.testing.assert_array_equal(model.predict_classes(x), net.predict(x))
    np.testing.assert_array_equal(back.predict_proba(x), net.predict_proba(x))
    np.testing.assert_array_equal(back.predict(x), net.predict(x), strict=True)
    np.testing.assert_array_equal(back.classes_, net.classes_)
    same_weights(back, net)
    for name in ("n_layers_", "n_outputs_", "n_features_in_", "out_activation_", "activation"):
        assert getattr(back, name) == getattr(net, name)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", REGRESSORS)
def test_a_regressor_and_back(kind, dtype):
    activation, sizes, y, more = REGRESSORS[kind]
    x = X.astype(dtype)
    net = fitted(neural.MLPRegressor, activation, sizes, x, y.astype(dtype), **more)
    model = fn.from_sklearn(net)
    back = model.to_sklearn()
    assert type(back) is neural.MLPRegressor and back.loss == net.loss
    found = np.exp(model.predict(x)) if more else model.predict(x)
    wanted = net.predict(x).reshape(found.shape)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 if dtype == "float32" else 1e-13)
    np.testing.assert_array_equal(back.predict(x), net.predict(x), strict=True)
    same_weights(back, net)


def test_names_of_columns():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("abcd"))
    net = fitted(neural.MLPClassifier, "relu", (5,), frame, THIRDS)
    model = fn.from_sklearn(net)
    assert model.feature_names_in_.tolist() == list("abcd")
    back = model.to_sklearn()
    np.testing.assert_array_equal(back.predict(frame), net.predict(frame))
    with pytest.raises(ValueError, match="feature names"):
        back.predict(frame.rename(columns={"a": "z"}))


def test_training_goes_on():
    """On both sides."""
    net = fitted(neural.MLPClassifier, "relu", (5,), X, THIRDS)
    model = fn.from_sklearn(net)
    before = fn.Trainer(model, fn.CrossEntropyLoss()).evaluate(X, THIRDS)["loss"]
    fn.Trainer(model, fn.CrossEntropyLoss(), fn.Adam(1e-2), seed=0).fit(X, THIRDS, epochs=20)
    assert fn.Trainer(model, fn.CrossEntropyLoss()).evaluate(X, THIRDS)["loss"] < before - 0.05
    back = model.to_sklearn()
    first = back.predict_proba(X)
    for _ in range(3):
        back.partial_fit(X, THIRDS)
    assert back.t_ == 240 and len(back.loss_curve_) == 3
    assert (back.predict_proba(X) != first).any()


MODELS = {
    "batchnorm and dropout": (
        (*(fn.Linear(4, 6), fn.BatchNorm1d(6), fn.ReLU(), fn.Dropout(0.3), fn.Linear(6, 3)),),
        fn.CrossEntropyLoss(),
    ),
    "nested": ((fn.Sequential(fn.Linear(4, 5), fn.Tanh()), fn.Linear(5, 3)), fn.CrossEntropyLoss()),
    "log-probabilities": (
        (fn.Linear(4, 5), fn.Sigmoid(), fn.Linear(5, 3, bias=False), fn.LogSoftmax()),
        fn.NLLLoss(),
    ),
    "linear": ((fn.Linear(4, 3),), fn.CrossEntropyLoss()),
    "a probability": ((fn.Linear(4, 5), fn.ReLU(), fn.Linear(5, 1), fn.Sigmoid()), fn.BCELoss()),
}


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_of_ours(kind):
    layers, loss = MODELS[kind]
    model = fn.Sequential(*layers, dtype="float64", seed=0)
    y = THIRDS // 2 if kind == "a probability" else np.array(["u", "v", "w"])[THIRDS]
    fn.Trainer(model, loss, fn.Adam(1e-2), seed=0).fit(X, y, epochs=2)
    net = model.to_sklearn()
    np.testing.assert_allclose(net.predict_proba(X), model.predict_proba(X), rtol=0, atol=1e-14)
    np.testing.assert_array_equal(net.predict(X), model.predict_classes(X))


def test_an_untrained_model_is_a_regressor():
    model = fn.Sequential(fn.Linear(4, 5), fn.ReLU(), fn.Linear(5, 2), dtype="float64", seed=0)
    net = model.to_sklearn()
    assert type(net) is neural.MLPRegressor
    np.testing.assert_allclose(net.predict(X), model.predict(X), rtol=0, atol=1e-14)


UNFIT = {
    r"layer 1 \(GELU\) is none": lambda: (fn.Linear(4, 5), fn.GELU(), fn.Linear(5, 2)),
    r"layer 0 \(ReLU\) is none": lambda: (fn.ReLU(), fn.Linear(4, 2)),
    r"layer 2 \(Tanh\) is none": lambda: (fn.Linear(4, 2), fn.ReLU(), fn.Tanh(), fn.Linear(2, 2)),
    "needs a linear layer at the end": lambda: (fn.Linear(4, 2), fn.ReLU()),
    "has relu, tanh": lambda: (
        *(fn.Linear(4, 2), fn.ReLU(), fn.Linear(2, 2), fn.Tanh(), fn.Linear(2, 2)),
    ),
    "has identity, relu": lambda: (
        *(fn.Linear(4, 2), fn.Linear(2, 2), fn.ReLU(), fn.Linear(2, 2)),
    ),
    r"layer 0 \(Residual\)": lambda: (fn.Residual(fn.Linear(4, 4)), fn.Linear(4, 2)),
}


@pytest.mark.parametrize("message", UNFIT)
def test_other_models_are_refused(message):
    with pytest.raises(fn.errors.UsageError, match=message):
        fn.Sequential(*UNFIT[message]()).to_sklearn()


REGRESSIONS = {
    "Sigmoid": (fn.Sigmoid, fn.MSELoss()),
    "Softmax": (fn.Softmax, fn.MSELoss()),
    "LogSoftmax": (fn.LogSoftmax, fn.L1Loss()),
    "truths": (fn.Softmax, fn.BCELoss()),
    "no loss": (fn.Sigmoid, None),
}


@pytest.mark.parametrize("kind", REGRESSIONS)
def test_no_regression_becomes_a_classifier(kind):
    """scikit-learn's regressors end with a linear layer."""
    ending, loss = REGRESSIONS[kind]
    model = fn.Sequential(fn.Linear(4, 5), fn.ReLU(), fn.Linear(5, 3), ending(), seed=0)
    if loss is not None:
        fn.Trainer(model, loss, seed=0).fit(X, np.eye(3)[THIRDS], epochs=1)
    with pytest.raises(fn.errors.UsageError, match=f"ends with {ending.__name__}.*; leave it out"):
        model.to_sklearn()


def test_margins_are_refused():
    model = fn.Sequential(fn.Linear(4, 3), seed=0)
    fn.Trainer(model, fn.MultiMarginLoss()).fit(X, THIRDS, epochs=1)
    with pytest.raises(fn.errors.UsageError, match='of the kind "margins"'):
        model.to_sklearn()


def test_other_estimators_are_refused():
    linear = pytest.importorskip("sklearn.linear_model")
    for wrong in (3, neural.MLPClassifier(), linear.LogisticRegression().fit(X, THIRDS)):
        with pytest.raises(fn.errors.UsageError, match="expected a fitted MLPClassifier"):
            fn.from_sklearn(wrong)
    net = fitted(neural.MLPClassifier, "relu", (5,), X, THIRDS.astype(float))
    with pytest.raises(fn.errors.UsageError, match="labels that are strings, booleans or integers"):
        fn.from_sklearn(net)
    net = fitted(neural.MLPClassifier, "relu", (5,), X, THIRDS)
    net.coefs_[0] = net.coefs_[0] * np.nan
    with pytest.raises(fn.errors.UsageError, match="NaN"):
        fn.from_sklearn(net)
    net.coefs_ = net.coefs_[:1]
    with pytest.raises(fn.errors.UsageError):
        fn.from_sklearn(net)


def test_estimators_of_ours():
    from fastnet.sklearn import MLPClassifier

    net = fitted(MLPClassifier, "relu", [5], X, THIRDS)
    model = fn.from_sklearn(net)
    np.testing.assert_allclose(model.predict_proba(X), net.predict_proba(X), rtol=0, atol=1e-13)
    others = (
        fitted(MLPClassifier, "relu", [5], X, THIRDS, batch_norm=True),
        fitted(MLPClassifier, "GELU", [5], X, THIRDS),
    )
    for other, message in zip(others, ("batch_norm=True", "activation 'GELU'"), strict=True):
        with pytest.raises(fn.errors.UsageError, match=message):
            fn.from_sklearn(other)
