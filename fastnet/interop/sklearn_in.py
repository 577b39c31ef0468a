"""Models of scikit-learn's multi-layer perceptrons."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnet import layers as fl
from fastnet.data.terms import Terms
from fastnet.errors import FastnetError, HyperparameterError, UsageError, shown
from fastnet.interop.values import layer_of
from fastnet.losses import links
from fastnet.model import Sequential
from fastnet.model.saved import terms_of

ACTIVATIONS = {"relu": fl.ReLU, "tanh": fl.Tanh, "logistic": fl.Sigmoid, "identity": None}
LINKS = {"softmax": links.SOFTMAX, "logistic": links.SIGMOID, "exp": links.LOG, "identity": None}
NEEDED = ("coefs_", "intercepts_", "activation", "out_activation_")


def from_sklearn(estimator: Any) -> Sequential:
    """The model of a fitted MLPClassifier or MLPRegressor of scikit-learn, with copies of its weights.

    It ends with the last linear layer, so that training may go on with CrossEntropyLoss (of two classes or
    several truths BCEWithLogitsLoss; of a regressor MSELoss): `predict` gives logits. `predict_proba` and
    `predict_classes` give what the estimator's predict_proba and predict do, with its classes_ and
    feature_names_in_. Of loss="poisson" the outputs are logarithms, as PoissonNLLLoss takes them. The dtype
    is that of the weights. The model is in evaluation mode, and weights keep their bits.

    estimator: also fastnet.sklearn's of these names, with plain activations. Raises UsageError for one that
    is not fitted or has what the other lacks.
    """
    missing = [name for name in NEEDED if not hasattr(estimator, name)]
    if missing:
        raise UsageError(
            f"estimator is {shown(estimator)}, without {', '.join(missing)}; expected a fitted "
            "MLPClassifier or MLPRegressor of scikit-learn"
        )
    activation, ending = estimator.activation, estimator.out_activation_
    if not isinstance(activation, str) or activation not in ACTIVATIONS or ending not in LINKS:
        raise UsageError(
            f"estimator has activation {shown(activation)} and out_activation_ {shown(ending)}; expected "
            f"one of {', '.join(ACTIVATIONS)}, and of {', '.join(LINKS)}"
        )
    if getattr(estimator, "batch_norm", False):
        raise UsageError("estimator has batch_norm=True, which coefs_ do not tell; take its model_")
    coefs, intercepts = estimator.coefs_, estimator.intercepts_
    dtype = np.result_type(*coefs)
    dtype = np.dtype("float32" if dtype == np.float32 else "float64")
    kind, layers = ACTIVATIONS[activation], list[Any]()
    try:
        for weight, bias in zip(coefs, intercepts, strict=True):
            if layers and kind is not None:
                layers.append(kind())
            values = {"weight": np.asarray(weight).T, "bias": bias}
            layers.append(layer_of(fl.Linear, *np.shape(weight), values=values, dtype=dtype))
        model = Sequential(*layers, dtype=dtype.name)
        model._terms = _terms(model, estimator, LINKS[ending])
        model.bind()
    except FastnetError as error:
        raise UsageError(f"estimator cannot be a model: {error}") from None
    return model.eval()


def _terms(model: Sequential, estimator: Any, link: str | None) -> Terms:
    """What the estimator calls columns and classes."""
    names = getattr(estimator, "feature_names_in_", None)
    classes = getattr(estimator, "classes_", None)
    width = model.output_shape(model.input_shape or ())[0]
    if link == links.SIGMOID and width > 1:
        classes = None  # several truths have no labels
    if classes is not None and np.asarray(classes).dtype.kind not in "OUSbiu":
        raise HyperparameterError(
            f"classes_ is {shown(classes)}; expected labels that are strings, booleans or integers"
        )
    told = {
        "columns": None if names is None else list(map(str, names)),
        "classes": None if classes is None else np.asarray(classes).tolist(),
        "link": link,
    }
    return terms_of(model, told)
