"""The negative log-likelihood of a hierarchical softmax, by the decisions that lead to the labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from fastnet.builder import Builder
from fastnet.errors import check_int
from fastnet.layers.class_tree import ABOVE, CHILDREN, FIRST_ROW, PLACE
from fastnet.layers.hierarchical import Head
from fastnet.losses import links
from fastnet.losses.base import Loss
from fastnet.losses.cross_entropy import NO_LABEL, nll
from fastnet.losses.labels import LabelLoss
from fastnet.losses.metrics import Metric
from fastnet.losses.softmax_nll import below_top
from fastnet.op import Array, Op, put, row_products, row_sums
from fastnet.parameter import Derived


class hierarchical_nll(Op):
    """row_loss = −Σ log p(decision) over the decisions from class t upwards; their logits are w·x + b.

    d has the slopes of a row's logits one after the other, and then 0. count = 1. Rows of the label
    `ignored` have loss, count and slopes 0. nodes: see ClassTree. A row has M logits at most. dx = s·d·w,
    dw = Σ_rows s·d·x, db = Σ_rows s·d with s = drow_loss; rows of w whose logits no row has get 0.
    """

    outputs: ClassVar = {"row_loss": "float64 B", "count": "B", "d": "B M"}
    inputs: ClassVar = {
        "x": "B I",
        "w": "R I",
        "b": "R",
        "t": "int64 B",
        "nodes": "int64 N 4",
        "room": "M",
    }
    optional = ("b",)
    dims = ("I", "R", "M", "N")
    scalars = ("ignored",)
    touches_rows = True

    @staticmethod
    def forward(
        row_loss: Array,
        count: Array,
        d: Array,
        x: Array,
        w: Array,
        b: Array,
        t: Array,
        nodes: Array,
        ignored: float,
    ) -> None:
        """Goes upwards from the labels, for all rows with the same decision at once."""
        row_loss[...] = d[...] = 0
        count[...] = t != ignored
        for rows, child, node, first in _decisions(t, nodes, ignored):
            begin, children = nodes[node, [FIRST_ROW, CHILDREN]]
            these = slice(begin, begin + (1 if children == 2 else children))
            z = x[rows] @ w[these].T + (b[these] if b.size else 0)
            losses, slopes = _nll(z, nodes[child, PLACE])
            row_loss[rows] += losses
            d[rows[:, None], first[:, None] + np.arange(z.shape[1])] = slopes

    @staticmethod
    def vjp(
        dx: Array,
        dw: Array,
        db: Array,
        drow_loss: Array,
        d: Array,
        x: Array,
        w: Array,
        t: Array,
        nodes: Array,
        ignored: float,
        accumulate: int,
    ) -> None:
        """The products with the slopes of all logits, most of which are 0."""
        slopes = np.zeros((len(x), len(w) if len(w) else len(dw)), x.dtype)
        scaled = drow_loss[:, None] * d
        for rows, _, node, first in _decisions(t, nodes, ignored):
            begin, children = nodes[node, [FIRST_ROW, CHILDREN]]
            at = np.arange(1 if children == 2 else children)
            slopes[rows[:, None], begin + at] = scaled[rows[:, None], first[:, None] + at]
        if dx.size:
            np.matmul(slopes, w, out=dx)
        if dw.size:
            put(dw, row_products(slopes, x), accumulate)
        if db.size:
            put(db, row_sums(slopes), accumulate)

    @classmethod
    def work(cls, sizes: Mapping[str, int], rows: int) -> int:
        """The multiplications by the rows of w that a row of x needs at most."""
        return sizes["I"] * sizes["M"]


def _decisions(t: Array, nodes: Array, ignored: float) -> Any:
    """Yields rows, the children they choose, the node where, and where its logits are in the rows of d."""
    rows, first = np.flatnonzero(t != ignored), np.zeros(len(t), np.int64)
    at = np.where(t != ignored, t, 0)
    while len(rows := rows[nodes[at[rows], ABOVE] >= 0]):
        above = nodes[at[rows], ABOVE]
        for node in np.unique(above):
            these = rows[above == node]
            yield these, at[these], node, first[these]
            first[these] += 1 if nodes[node, CHILDREN] == 2 else nodes[node, CHILDREN]
        at[rows] = above


def _nll(z: Array, place: Array) -> tuple[Array, Array]:
    """−log p of the outcome at each row's place, and its slopes, for the logits z of one decision."""
    rows = np.arange(len(z))
    if z.shape[1] == 1:  # the first outcome's logit; the second one's is −z
        sign = np.where(place == 0, -1, 1).astype(z.dtype)
        against = sign * z[:, 0]
        e = np.exp(-np.abs(against))
        p = np.where(against >= 0, 1, e) / (1 + e)
        return np.maximum(against, 0) + np.log1p(e), (sign * p)[:, None]
    shifted, powers, rest = below_top(z)
    p = powers / (1 + rest)
    p[rows, place] = 0
    p[rows, place] = -p.sum(axis=1)
    return np.log1p(rest[:, 0]) - shifted[rows, place], p


class HierarchicalSoftmaxLoss(LabelLoss):
    """L = −(1/n)·Σ_rows y_t for the log-probabilities y (n, C) of a HierarchicalSoftmax.

    Takes integer labels t (n,) in [0, C). At the end of a model whose last layer is HierarchicalSoftmax it
    computes the decisions that lead to the labels alone: y_t = Σ log p(decision), whose slopes are
    p − onehot. So a step reads about 2√C rows of the layer's weight for each sample (by the default tree)
    and computes no other class. On the C backend plain SGD changes only these rows. Adam and others change
    all rows in every step, as moments move those without a gradient, too.
    ignore_index: integer (default −100). Rows with this label add nothing.
    reduction: "mean" (default), "sum" (not divided) or "none" (−y_t for each row).

    For other log-probabilities it is NLLLoss. Training reports no accuracy, which needs all classes: ask
    for it by Trainer(metrics=["accuracy"]). The gradient outside a model is −1/n at the label, 0 elsewhere.
    Accuracy (see Loss): 1e-6.
    Source: F. Morin, Y. Bengio, "Hierarchical probabilistic neural network language model", AISTATS 2005;
    J. Goodman, "Classes for fast maximum entropy training", ICASSP 2001.
    """

    link = links.EXP
    weight = None  # classes have no weights of their own

    def __init__(self, ignore_index: int = NO_LABEL, reduction: str = "mean") -> None:
        ignored = check_int("ignore_index", ignore_index, low=-(2**53), high=2**53)
        Loss.__init__(self, reduction, ignore_index=ignored)

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """None by default."""
        return {}

    def rows(self, g: Builder, output: Any, target: Any) -> tuple[Any, Any]:
        """Apply `hierarchical_nll` to what the last layer reads, or `nll` to other outputs."""
        ignored = float(self.ignore_index or 0)
        head = Head.of(g, output)
        if head is None:
            losses = g.apply(nll, y=output, t=target, v=None, ignored=ignored)
            return losses, g.output("count")
        longest = head.nodes.tree.longest
        losses = g.apply(
            hierarchical_nll,
            x=head.x,
            w=head.weight,
            b=head.bias,
            t=target,
            nodes=head.nodes,
            room=Derived((longest,), lambda: np.zeros(longest), constant=True),
            ignored=ignored,
        )
        return losses, g.output("count")
