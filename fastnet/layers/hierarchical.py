"""Log-probabilities of many classes by a tree of decisions: the hierarchical softmax."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from fastnet.builder import Builder
from fastnet.data import arrays
from fastnet.errors import (
    DataError,
    HyperparameterError,
    ShapeError,
    check_choice,
    check_flag,
    check_int,
    shown,
)
from fastnet.init import FanInUniform, Initializer, KaimingUniform, check_init
from fastnet.layers.base import Layer, Shape
from fastnet.layers.class_tree import (
    CHILDREN,
    END_OF_LEAVES,
    FIRST_CHILD,
    FIRST_LEAF,
    FIRST_ROW,
    ClassTree,
    huffman,
    two_levels,
)
from fastnet.op import Array, Op, put, row_products, row_sums
from fastnet.parameter import Derived

LONG = 32  # numbers that a repr shows of an argument


class transposed_linear(Op):
    """y = x·wᵀ + b; dx = dy·w, dw = dyᵀ·x, db = Σ_rows dy.

    The rows of w lie one after the other in memory, so that a loss can read and change some of them alone.
    """

    outputs: ClassVar = {"y": "B O"}
    inputs: ClassVar = {"x": "B I", "w": "O I", "b": "O"}
    optional = ("b",)
    dims = ("I", "O")

    @staticmethod
    def forward(y: Array, x: Array, w: Array, b: Array) -> None:
        """y (B, O) = x (B, I) · wᵀ (I, O) + b (O)."""
        np.matmul(x, w.T, out=y)
        if b.size:
            np.add(y, b, out=y)

    @staticmethod
    def vjp(
        dx: Array, dw: Array, db: Array, dy: Array, x: Array, w: Array, accumulate: int
    ) -> None:
        """Gradients of the input (B, I), the weights (O, I) and the bias (O) for dy (B, O)."""
        if dx.size:
            np.matmul(dy, w, out=dx)
        if dw.size:
            put(dw, row_products(dy, x), accumulate)
        if db.size:
            put(db, row_sums(dy), accumulate)


def log_decisions(z: Array) -> Array:
    """The logarithms of the probabilities of a decision's outcomes (B, m) from its logits z, one for each.

    Between two outcomes z has the logit of the first alone.
    """
    if z.shape[1] == 1:
        shared = np.log1p(np.exp(-np.abs(z)))
        return np.concatenate([-(np.maximum(-z, 0) + shared), -(np.maximum(z, 0) + shared)], axis=1)
    shifted = z - z.max(axis=1, keepdims=True)
    powers = np.exp(shifted)
    powers[np.arange(len(z)), z.argmax(axis=1)] = 0
    log_p: Array = shifted - np.log1p(powers.sum(axis=1, keepdims=True))
    return log_p


class tree_log_softmax(Op):
    """y_c = Σ log p(decision) over the decisions from the root to class c, for logits z of all of them.

    dz of a decision is s − p·Σs, where s_k is the sum of dy over the classes below child k. nodes, spans,
    children and leaves: see ClassTree.
    """

    outputs: ClassVar = {"y": "B C"}
    inputs: ClassVar = {
        "z": "B R",
        "nodes": "int64 N 4",
        "spans": "int64 N 3",
        "children": "int64 N",
        "leaves": "int64 C",
    }
    dims = ("C", "R", "N")

    @staticmethod
    def forward(
        y: Array, z: Array, nodes: Array, spans: Array, children: Array, leaves: Array
    ) -> None:
        """Goes from the root downwards; a node's sum waits in the column of its first leaf."""
        y[:, leaves[0]] = 0
        for node in range(y.shape[1], len(nodes)):
            first, count = nodes[node, [FIRST_ROW, CHILDREN]]
            log_p = log_decisions(z[:, first : first + (1 if count == 2 else count)])
            entry = spans[node, FIRST_CHILD]
            at = leaves[spans[children[entry : entry + count], FIRST_LEAF]]
            y[:, at] = y[:, at[:1]] + log_p

    @staticmethod
    def vjp(
        dz: Array,
        dy: Array,
        z: Array,
        nodes: Array,
        spans: Array,
        children: Array,
        leaves: Array,
    ) -> None:
        """s − p·Σs for each decision."""
        for node in range(dy.shape[1], len(nodes)):
            first, count = nodes[node, [FIRST_ROW, CHILDREN]]
            entry = spans[node, FIRST_CHILD]
            begins, ends = spans[children[entry : entry + count]][:, [FIRST_LEAF, END_OF_LEAVES]].T
            parts = [dy[:, leaves[b:e]].sum(axis=1) for b, e in zip(begins, ends, strict=True)]
            s = np.stack(parts, axis=1)
            rows = 1 if count == 2 else count
            p = np.exp(log_decisions(z[:, first : first + rows]))
            if count == 2:
                dz[:, first] = s[:, 0] * p[:, 1] - s[:, 1] * p[:, 0]
            else:
                dz[:, first : first + rows] = s - p * s.sum(axis=1, keepdims=True)

    @classmethod
    def work(cls, sizes: Mapping[str, int], rows: int) -> int:
        """An exponential for each logit, and a few additions for each class."""
        return 16 * sizes["N"]


class Nodes(Derived):
    """The nodes of a tree as an op's argument, which knows the tree."""

    def __init__(self, tree: ClassTree) -> None:
        super().__init__(tree.nodes.shape, lambda: tree.nodes, "int64", constant=True)
        self.tree = tree


@dataclass(frozen=True, eq=False, repr=False)
class Head:
    """What a HierarchicalSoftmax at the end of a graph reads."""

    x: Any
    weight: Any
    bias: Any
    nodes: Nodes

    @classmethod
    def of(cls, g: Builder, output: Any) -> Self | None:
        """That of the layer whose output this is; None: it is another's."""
        last = g.source(output)
        if last is None or last.op is not tree_log_softmax:
            return None
        before = g.source(last.arguments["z"])
        if before is None or before.op is not transposed_linear:
            return None
        x, weight, bias = (before.arguments[name] for name in ("x", "w", "b"))
        return cls(x, weight, bias, last.arguments["nodes"])


class HierarchicalSoftmax(Layer):
    """y_c = Σ_j log p(j), over the decisions j from the root of a tree to class c: log-probabilities.

    A decision between m > 2 children is a softmax of m logits, one between two children a sigmoid of the
    first one's logit; a logit is w·x + b. So Σ_c e^y_c = 1, and one class needs the rows of its decisions
    alone: about 2√C of them with the default tree, log₂ C with a balanced binary one. It is the last layer
    of a model, which trains with HierarchicalSoftmaxLoss at that cost.

    in_features: integer ≥ 1.
    n_classes: integer in [2, 2³¹), C.
    frequencies: vector (C,) of finite numbers ≥ 0, or None (default). How often each class comes, such as
        np.bincount(y, minlength=C). The default tree then has √C groups of √C classes of similar frequency,
        so that the rows of a minibatch need few groups; without it, of neighbouring numbers.
    tree: None (default: two levels), "huffman" (a binary tree in which frequent classes have short ways;
        needs frequencies), or the parents of a tree: integers, first those of the classes 0 … C − 1, then
        those of the inner nodes C, C + 1, …, and −1 for the root. A node may have any number of children.
    bias: bool (default True). False: no b.
    weight_init, bias_init: initialisers from fastnet.init (default those of Linear).

    x (rows, in_features) → y (rows, C). `weight` (R, in_features) and `bias` (R,) have a row for each
    logit: for each inner node from the root on, level by level, of its children in order. `logits` is R.
    The whole y costs as much as a full softmax; `model.predict_proba(x, classes=[…])` and
    `model.predict_classes(x)` compute what they need. Raises HyperparameterError where a tree is none, or
    more than 10,000 decisions lead to one class.
    Source: F. Morin, Y. Bengio, "Hierarchical probabilistic neural network language model", AISTATS 2005;
    J. Goodman, "Classes for fast maximum entropy training", ICASSP 2001, for two levels; T. Mikolov et al.,
    "Distributed representations of words and phrases and their compositionality", NIPS 2013, for Huffman's
    tree.
    """

    def __init__(
        self,
        in_features: int,
        n_classes: int,
        frequencies: Any = None,
        tree: Any = None,
        bias: bool = True,
        weight_init: Initializer | None = None,
        bias_init: Initializer | None = None,
    ) -> None:
        n_classes = int(check_int("n_classes", n_classes, low=2, high=2**31 - 1))
        super().__init__(
            in_features=check_int("in_features", in_features, low=1),
            n_classes=n_classes,
            frequencies=_check_frequencies(frequencies, n_classes),
            tree=_check_tree(tree, frequencies),
            bias=check_flag("bias", bias),
            weight_init=check_init("weight_init", weight_init),
            bias_init=check_init("bias_init", bias_init, vector=True),
        )
        self._class_tree = _tree_of(n_classes, self.frequencies, self.tree)
        rows = self._class_tree.rows
        fans = {"fan_in": self.in_features, "fan_out": rows}
        weight = weight_init or KaimingUniform(a=math.sqrt(5.0))
        self._declare("weight", (rows, self.in_features), init=weight, **fans)
        if bias:
            self._declare("bias", (rows,), init=bias_init or FanInUniform(), **fans)
        else:
            self.__dict__["bias"] = None  # the configuration has False

    @property
    def in_width(self) -> int:
        """in_features."""
        return int(self.in_features)

    @property
    def logits(self) -> int:
        """The logits of all decisions, R."""
        return self._class_tree.rows

    def output_shape(self, shape: Shape) -> Shape:
        """(in_features,) → (n_classes,)."""
        if shape != (self.in_features,):
            raise ShapeError(
                f"{self.label}: rows of shape {shape} came, expected in_features = {self.in_features}"
            )
        return (self.n_classes,)

    def emit(self, g: Builder, x: Any) -> Any:
        """Apply `transposed_linear` and `tree_log_softmax`."""
        w, b = self._parameters["weight"], self._parameters.get("bias")
        tree = self._class_tree
        z = g.apply(transposed_linear, x=x, w=w, b=b)
        return g.apply(
            tree_log_softmax,
            z=z,
            nodes=Nodes(tree),
            spans=_constant(tree.spans),
            children=_constant(tree.children),
            leaves=_constant(tree.leaves),
        )

    def _argument_words(self) -> list[str]:
        long = {n for n in ("frequencies", "tree") if np.size(getattr(self, n)) > LONG}
        kept = [w for w in super()._argument_words() if w.partition("=")[0] not in long]
        return [
            *kept,
            *(f"{name}={shown(np.asarray(getattr(self, name)))}" for name in sorted(long)),
        ]


def _constant(array: Array) -> Derived:
    return Derived(array.shape, lambda: array, "int64", constant=True)


def _tree_of(classes: int, frequencies: Array | None, tree: Any) -> ClassTree:
    if tree is None:
        return ClassTree(two_levels(classes, frequencies), classes)
    if not isinstance(tree, str):
        return ClassTree(tree, classes)
    assert frequencies is not None
    return ClassTree(huffman(frequencies), classes)


def _check_frequencies(value: Any, classes: int) -> Array | None:
    """A float64 vector of finite numbers ≥ 0, one for each class, or None."""
    if value is None:
        return None
    try:
        array = arrays.as_array("frequencies", value)
    except DataError:  # a ragged list
        array = np.empty(0)
    good = array.shape == (classes,) and array.dtype.kind in "fiu"
    if not (good and np.isfinite(array).all() and array.min() >= 0):
        raise HyperparameterError(
            f"frequencies is {shown(value)}; expected a vector of {classes} finite numbers of at least 0, "
            "one for each class, such as np.bincount(y, minlength=C)"
        )
    made = array.astype(np.float64)
    made.flags.writeable = False
    return made


def _check_tree(value: Any, frequencies: Any) -> Any:
    """None, "huffman" or an int64 vector; whether it has the parents of a tree is checked later."""
    if value is None:
        return None
    if isinstance(value, str):
        check_choice("tree", value, ("huffman",))
        if frequencies is None:
            raise HyperparameterError(
                "tree is 'huffman' and frequencies is None; expected frequencies, by which Huffman's tree "
                "is made"
            )
        return value
    if frequencies is not None:
        raise HyperparameterError(
            "frequencies and the parents of a tree are given; expected frequencies only for a tree that is "
            "None or 'huffman'"
        )
    try:
        array = arrays.as_array("tree", value)
    except DataError:
        array = np.empty(0)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise HyperparameterError(
            f"tree is {shown(value)}; expected None, 'huffman', or a vector of integers, the parents of "
            "the tree's nodes"
        )
    made = array.astype(np.int64)
    made.flags.writeable = False
    return made
