"""Models as scikit-learn's multi-layer perceptrons."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnet.errors import MissingExtra, UsageError
from fastnet.layers.activations import sigmoid, tanh
from fastnet.layers.linear import linear
from fastnet.layers.rectifiers import relu
from fastnet.layers.softmax import log_softmax, softmax
from fastnet.losses import links
from fastnet.onnx.writing import value_of
from fastnet.op import Array
from fastnet.plan.graph import Graph, Node

# scikit-learn's names of activations, by the ops of fastnet's.
ACTIVATIONS = {"relu": relu, "tanh": tanh, "logistic": sigmoid}
# Ops that may end a model: what they are called, and the links that they fit.
ENDINGS: dict[Any, tuple[str, tuple[str, ...]]] = {
    softmax: ("Softmax", ()),  # no loss takes it as the probabilities of one class
    log_softmax: ("LogSoftmax", (links.EXP, links.SOFTMAX)),
    sigmoid: ("Sigmoid", (links.PROBABILITY,)),
}
OUT = {links.SOFTMAX: "softmax", links.SIGMOID: "logistic", links.LOG: "exp", None: "identity"}


def estimator(model: Any, graph: Graph) -> Any:
    """The fitted estimator of a model, whose graph for prediction is a chain.

    model: its terms tell whether it is a classifier, and its dtype is that of the weights.
    """
    try:
        from sklearn import neural_network
    except ImportError as error:
        raise MissingExtra(
            f'to_sklearn needs scikit-learn ({error}): pip install "fastnet-engine[sklearn]"'
        ) from None
    weights, biases, activation, ending = _chain(graph, model.dtype)
    terms = model._terms
    link = _link(terms.link, ending)
    kind = neural_network.MLPRegressor
    if link in (links.SOFTMAX, links.SIGMOID):
        kind = neural_network.MLPClassifier
    given = {"loss": "poisson"} if link == links.LOG else {}
    sizes = [len(b) for b in biases]
    found = kind(hidden_layer_sizes=tuple(sizes[:-1]), activation=activation, **given)
    found.coefs_, found.intercepts_ = weights, biases
    found.n_layers_, found.n_outputs_ = len(weights) + 1, sizes[-1]
    found.n_features_in_, found.out_activation_ = len(weights[0]), OUT[link]
    if terms.columns:
        found.feature_names_in_ = np.array(terms.columns, object)
    if kind is neural_network.MLPClassifier:
        _give_classes(found, model.classes_, link, sizes[-1])
    # What a fit has counted, from where partial_fit goes on.
    found.n_iter_ = found.t_ = found._no_improvement_count = 0
    found.loss_, found.best_loss_, found.loss_curve_ = float("nan"), np.inf, []
    found.validation_scores_, found.best_validation_score_ = None, None
    return found


def _chain(graph: Graph, dtype: Any) -> tuple[list[Array], list[Array], str, Any]:
    """Weights (in, out) and biases of the linear ops, the activation between, and the op at the end."""
    weights, biases, between = list[Array](), list[Array](), list[str]()
    nodes = list(graph.nodes)
    ending = nodes.pop().op if nodes and nodes[-1].op in ENDINGS else None
    for place, node in enumerate(nodes):
        if node.op is linear and node.times == 1:
            if place and nodes[place - 1].op is linear:
                between.append("identity")
            w, b = (value_of(node.arguments[name]) for name in "wb")
            assert w is not None
            weights.append(np.array(w, dtype))
            biases.append(np.zeros(w.shape[1], dtype) if b is None else np.array(b, dtype))
            continue
        name = next((n for n, op in ACTIVATIONS.items() if node.op is op), None)
        if name is None or not place or nodes[place - 1].op is not linear:
            raise _unfit(node)
        between.append(name)
    if not weights or nodes[-1].op is not linear:
        raise UsageError(
            "to_sklearn needs a linear layer at the end, or before a LogSoftmax or Sigmoid there"
        )
    if len({*between}) > 1:
        raise UsageError(
            f"to_sklearn needs the same activation between all linear layers; the model has "
            f"{', '.join(dict.fromkeys(between))}"
        )
    return weights, biases, between[0] if between else "identity", ending


def _unfit(node: Node) -> UsageError:
    return UsageError(
        f"to_sklearn: {node.label} is none of the layers of scikit-learn's nets; expected linear layers, "
        "and between them ReLU, Tanh or Sigmoid"
    )


def _link(told: str | None, ending: Any) -> str | None:
    """How the outputs of the last linear op become those of the estimator."""
    if ending is None:
        if told in (links.EXP, links.PROBABILITY, links.MARGINS):
            raise UsageError(
                f'to_sklearn: the outputs are of the kind "{told}", which scikit-learn\'s nets do not have '
                "after a linear layer; train with CrossEntropyLoss or BCEWithLogitsLoss"
            )
        return told
    name, fitting = ENDINGS[ending]
    if told not in fitting:
        kind = "no probabilities to its loss" if told is None else f'of the kind "{told}"'
        raise UsageError(
            f"to_sklearn: the model ends with {name}, and its outputs are {kind}; expected a linear layer "
            f"at the end, as scikit-learn's regressors have, LogSoftmax after NLLLoss, or Sigmoid after "
            f"BCELoss; leave it out, and train a classifier with CrossEntropyLoss or BCEWithLogitsLoss"
        )
    return links.SIGMOID if ending is sigmoid else links.SOFTMAX


def _give_classes(found: Any, classes: Array | None, link: str | None, outputs: int) -> None:
    """The classes of a classifier, and how it makes them of probabilities."""
    from sklearn.preprocessing import LabelBinarizer

    if link == links.SIGMOID and outputs > 1:  # several truths
        found._label_binarizer = LabelBinarizer().fit(np.eye(outputs, dtype=np.int64))
    else:
        count = max(2, outputs)
        labels = np.arange(count) if classes is None else classes
        found._label_binarizer = LabelBinarizer().fit(labels)
    found.classes_ = found._label_binarizer.classes_
