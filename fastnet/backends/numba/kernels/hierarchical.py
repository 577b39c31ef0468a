"""Hierarchical softmax: log-probabilities of all classes of a tree, and the likelihood of one of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from fastnet.backends.numba.elementary import exp
from fastnet.backends.numba.kernels.linear import product, sum_rows, weight_gradient
from fastnet.backends.numba.kernels.registry import kernel
from fastnet.layers.class_tree import (
    ABOVE,
    CHILDREN,
    END_OF_LEAVES,
    FIRST_CHILD,
    FIRST_LEAF,
    FIRST_ROW,
    PLACE,
)
from fastnet.op import Array


@kernel
def transposed_linear_forward(y: Array, x: Array, w: Array, b: Array) -> None:
    """y = x·wᵀ + b: writes the bias, then adds the product."""
    rows, columns = y.shape
    zero, one = y.dtype.type(0), y.dtype.type(1)
    for i in range(rows):
        for j in range(columns):
            y[i, j] = b[j] if b.size > 0 else zero
    if rows > 0:
        product(y, x, w, False, True, one)


@kernel
def transposed_linear_vjp(
    dx: Array, dw: Array, db: Array, dy: Array, x: Array, w: Array, accumulate: int
) -> None:
    """dx = dy·w; dw = dyᵀ·x; db = Σ_rows dy."""
    if dx.size > 0:
        product(dx, dy, w, False, False, dy.dtype.type(0))
    if dw.size > 0:
        weight_gradient(dw, dy, x, accumulate)
    if db.size > 0:
        sum_rows(db, dy, accumulate)


@njit(error_model="numpy")
def _rows_of(nodes: Any, node: int) -> int:
    """The rows of weights of a node's decision."""
    return 1 if nodes[node, CHILDREN] == 2 else nodes[node, CHILDREN]


@njit(error_model="numpy")
def _log1p_exp(a: float) -> float:
    """log(1 + e^a) for a ≤ 0."""
    return math.log1p(math.exp(a))


@njit(error_model="numpy")
def _top(z: Any, i: int, first: int, count: int) -> Any:
    """The largest of a decision's logits."""
    top = z[i, first]
    for k in range(first + 1, first + count):
        if z[i, k] > top:
            top = z[i, k]
    return top


@njit(error_model="numpy")
def _below_top(z: Any, i: int, first: int, count: int, top: Any) -> float:
    """Σ e^(z − top) without the 1 of one maximum."""
    ones, low = 0.0, 0.0
    for k in range(first, first + count):
        if z[i, k] < top:
            low += np.float64(exp(z[i, k] - top))
        else:
            ones += np.float64(exp(z[i, k] - top))
    return ones - 1.0 + low


@kernel
def tree_log_softmax_forward(
    y: Array, z: Array, nodes: Array, spans: Array, children: Array, leaves: Array
) -> None:
    """From the root downwards; a node's sum waits in the column of its first leaf."""
    rows, classes = y.shape
    for i in range(rows):
        y[i, leaves[0]] = 0
        for node in range(classes, nodes.shape[0]):
            first, count, entry = (
                nodes[node, FIRST_ROW],
                nodes[node, CHILDREN],
                spans[node, FIRST_CHILD],
            )
            above = y[i, leaves[spans[node, FIRST_LEAF]]]
            if count == 2:
                logit = np.float64(z[i, first])
                shared = _log1p_exp(-abs(logit))
                one, other = (
                    leaves[spans[children[entry], FIRST_LEAF]],
                    leaves[spans[children[entry + 1], FIRST_LEAF]],
                )
                y[i, one] = above - ((-logit if logit < 0 else 0.0) + shared)
                y[i, other] = above - ((0.0 if logit < 0 else logit) + shared)
                continue
            top = _top(z, i, first, count)
            total = math.log1p(_below_top(z, i, first, count, top))
            for k in range(count):
                at = leaves[spans[children[entry + k], FIRST_LEAF]]
                y[i, at] = above + (np.float64(z[i, first + k] - top) - total)


@njit(error_model="numpy")
def _sum_below(dy: Any, i: int, node: int, spans: Any, leaves: Any) -> float:
    """The sum of a row of dy over the classes below a node."""
    total = 0.0
    for at in range(spans[node, FIRST_LEAF], spans[node, END_OF_LEAVES]):
        total += np.float64(dy[i, leaves[at]])
    return total


@kernel
def tree_log_softmax_vjp(
    dz: Array, dy: Array, z: Array, nodes: Array, spans: Array, children: Array, leaves: Array
) -> None:
    """s − p·Σs for each decision, s the sums of dy below its outcomes."""
    rows, classes = dy.shape
    for i in range(rows):
        for node in range(classes, nodes.shape[0]):
            first, count, entry = (
                nodes[node, FIRST_ROW],
                nodes[node, CHILDREN],
                spans[node, FIRST_CHILD],
            )
            if count == 2:
                one = _sum_below(dy, i, children[entry], spans, leaves)
                other = _sum_below(dy, i, children[entry + 1], spans, leaves)
                logit = np.float64(z[i, first])
                dz[i, first] = one * _sigmoid(-logit) - other * _sigmoid(logit)
                continue
            top, whole = _top(z, i, first, count), 0.0
            share = 1.0 / (1.0 + _below_top(z, i, first, count, top))
            for k in range(count):
                whole += _sum_below(dy, i, children[entry + k], spans, leaves)
            for k in range(count):
                p = np.float64(exp(z[i, first + k] - top)) * share
                dz[i, first + k] = _sum_below(dy, i, children[entry + k], spans, leaves) - p * whole


@njit(error_model="numpy")
def _sigmoid(a: float) -> float:
    e = math.exp(-abs(a))
    return (1.0 if a >= 0 else e) / (1.0 + e)


@kernel
def hierarchical_nll_forward(
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
    """The logits of the decisions that lead to the label, their loss, and in their place its slopes."""
    for i in range(t.size):
        used, loss = 0, 0.0
        kept = t[i] != ignored
        count[i] = 1 if kept else 0
        node = t[i] if kept else 0
        while kept and nodes[node, ABOVE] >= 0:
            place, node = nodes[node, PLACE], nodes[node, ABOVE]
            rows, first = _rows_of(nodes, node), nodes[node, FIRST_ROW]
            for k in range(rows):
                total = 0.0
                for j in range(x.shape[1]):
                    total += np.float64(x[i, j]) * np.float64(w[first + k, j])
                d[i, used + k] = total + (np.float64(b[first + k]) if b.size > 0 else 0.0)
            loss += _decide(d, i, used, rows, place)
            used += rows
        row_loss[i] = loss
        for k in range(used, d.shape[1]):
            d[i, k] = 0


@njit(error_model="numpy")
def _decide(d: Any, i: int, first: int, rows: int, place: int) -> float:
    """−log p of a decision; its logits become slopes."""
    if rows == 1:
        against = np.float64(d[i, first] if place else -d[i, first])
        d[i, first] = _sigmoid(against) if place else -_sigmoid(against)
        return (0.0 if against < 0 else against) + _log1p_exp(-abs(against))
    top = _top(d, i, first, rows)
    rest, below = _below_top(d, i, first, rows, top), np.float64(d[i, first + place] - top)
    share, others = 1.0 / (1.0 + rest), 0.0
    for k in range(first, first + rows):
        p = np.float64(exp(d[i, k] - top)) * share
        d[i, k] = p
        if k != first + place:
            others += p
    d[i, first + place] = -others
    return math.log1p(rest) - below


@kernel
def hierarchical_nll_vjp(
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
    """Adds row by row."""
    if accumulate == 0:
        for r in range(dw.shape[0] if dw.size > 0 else 0):
            for j in range(dw.shape[1]):
                dw[r, j] = 0
        for r in range(db.size):
            db[r] = 0
    for i in range(t.size):
        for j in range(dx.shape[1] if dx.size > 0 else 0):
            dx[i, j] = 0
        used = 0
        kept = t[i] != ignored
        node = t[i] if kept else 0
        while kept and nodes[node, ABOVE] >= 0:
            node = nodes[node, ABOVE]
            first = nodes[node, FIRST_ROW]
            for r in range(first, first + _rows_of(nodes, node)):
                value = d.dtype.type(drow_loss[i] * np.float64(d[i, used]))
                used += 1
                for j in range(dx.shape[1] if dx.size > 0 else 0):
                    dx[i, j] += value * w[r, j]
                for j in range(dw.shape[1] if dw.size > 0 else 0):
                    dw[r, j] += value * x[i, j]
                if db.size > 0:
                    db[r] += value
