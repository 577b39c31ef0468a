"""Hierarchical softmax: log-probabilities of all classes of a tree, and the likelihood of one of them.

A thread walks a row's tree alone. The gradients of weights go to threads by columns, each of which adds the
rows of a minibatch in order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnet.backends.cuda.device import device
from fastnet.backends.cuda.elementary import exp, log1p
from fastnet.backends.cuda.gemm import gemm
from fastnet.backends.cuda.kernels.linear import weight_gradient, write_bias
from fastnet.backends.cuda.kernels.loops import each, rows
from fastnet.backends.cuda.kernels.registry import launcher
from fastnet.backends.cuda.kernels.sums import column_sums
from fastnet.layers.class_tree import (
    ABOVE,
    CHILDREN,
    END_OF_LEAVES,
    FIRST_CHILD,
    FIRST_LEAF,
    FIRST_ROW,
    PLACE,
)


@launcher
def transposed_linear_forward(queue: Any, y: Any, x: Any, w: Any, b: Any) -> None:
    """y = x·wᵀ + b: writes the bias, then adds the product."""
    if b.size:
        write_bias(queue, y, b)
    gemm(queue, y, x, w, trans_b=True, add=bool(b.size))


@launcher
def transposed_linear_vjp(
    queue: Any, dx: Any, dw: Any, db: Any, dy: Any, x: Any, w: Any, accumulate: int
) -> None:
    """dx = dy·w; dw = dyᵀ·x; db = Σ_rows dy."""
    if dx.size:
        gemm(queue, dx, dy, w)
    if dw.size:
        weight_gradient(queue, dw, dy, x, accumulate)
    if db.size:
        column_sums(queue, db, dy, accumulate)


@device
def rows_of(nodes: Any, node: int) -> Any:
    """The rows of weights of a node's decision."""
    return 1 if nodes[node, CHILDREN] == 2 else nodes[node, CHILDREN]


@device
def top_of(z: Any, row: int, first: int, count: int) -> Any:
    """The largest of a decision's logits."""
    top = z[row, first]
    for k in range(first + 1, first + count):
        if z[row, k] > top:
            top = z[row, k]
    return top


@device
def rest_below(z: Any, row: int, first: int, count: int, top: Any) -> Any:
    """Σ e^(z − top) without the 1 of one maximum."""
    ones, low = 0.0, 0.0
    for k in range(first, first + count):
        if z[row, k] < top:
            low += np.float64(exp(z[row, k] - top))
        else:
            ones += np.float64(exp(z[row, k] - top))
    return ones - 1.0 + low


@device
def logistic(a: Any) -> Any:
    """1/(1 + e^−a), in float64."""
    e = exp(-abs(a))
    return (1.0 if a >= 0 else e) / (1.0 + e)


@device
def sum_below(dy: Any, row: int, node: int, spans: Any, leaves: Any) -> Any:
    """The sum of a row of dy over the classes below a node."""
    total = 0.0
    for at in range(spans[node, FIRST_LEAF], spans[node, END_OF_LEAVES]):
        total += np.float64(dy[row, leaves[at]])
    return total


@launcher
@rows("y")
def tree_log_softmax_forward(
    team: Any,
    row: int,
    end: int,
    y: Any,
    z: Any,
    nodes: Any,
    spans: Any,
    children: Any,
    leaves: Any,
) -> None:
    """From the root downwards; a node's sum waits in the column of its first leaf."""
    if team[2] != 0 or end < 0:
        return
    y[row, leaves[0]] = 0
    for node in range(end, nodes.shape[0]):
        first, count = nodes[node, FIRST_ROW], nodes[node, CHILDREN]
        entry, above = spans[node, FIRST_CHILD], y[row, leaves[spans[node, FIRST_LEAF]]]
        at = leaves[spans[children[entry], FIRST_LEAF]]
        if count == 2:
            logit = np.float64(z[row, first])
            shared = log1p(exp(-abs(logit)))
            y[row, at] = above - ((-logit if logit < 0 else 0.0) + shared)
            at = leaves[spans[children[entry + 1], FIRST_LEAF]]
            y[row, at] = above - ((0.0 if logit < 0 else logit) + shared)
        else:
            top = top_of(z, row, first, count)
            total = log1p(rest_below(z, row, first, count, top))
            for k in range(count):
                at = leaves[spans[children[entry + k], FIRST_LEAF]]
                y[row, at] = above + (np.float64(z[row, first + k] - top) - total)


@launcher
@rows("dy")
def tree_log_softmax_vjp(
    team: Any,
    row: int,
    end: int,
    dz: Any,
    dy: Any,
    z: Any,
    nodes: Any,
    spans: Any,
    children: Any,
    leaves: Any,
) -> None:
    """s − p·Σs for each decision, s the sums of dy below its outcomes."""
    if end < 0:
        return
    for node in range(end + team[2], nodes.shape[0], team[3]):
        first, count, entry = (
            nodes[node, FIRST_ROW],
            nodes[node, CHILDREN],
            spans[node, FIRST_CHILD],
        )
        if count == 2:
            one = sum_below(dy, row, children[entry], spans, leaves)
            other = sum_below(dy, row, children[entry + 1], spans, leaves)
            logit = np.float64(z[row, first])
            dz[row, first] = one * logistic(-logit) - other * logistic(logit)
        else:
            top, whole = top_of(z, row, first, count), 0.0
            share = 1.0 / (1.0 + rest_below(z, row, first, count, top))
            for k in range(count):
                whole += sum_below(dy, row, children[entry + k], spans, leaves)
            for k in range(count):
                p = np.float64(exp(z[row, first + k] - top)) * share
                part = sum_below(dy, row, children[entry + k], spans, leaves)
                dz[row, first + k] = part - p * whole


@launcher
@rows("d")
def hierarchical_nll_forward(
    team: Any,
    row: int,
    end: int,
    row_loss: Any,
    count: Any,
    d: Any,
    x: Any,
    w: Any,
    b: Any,
    t: Any,
    nodes: Any,
    ignored: float,
) -> None:
    """The logits of the decisions that lead to the label, their loss, and in their place its slopes."""
    if end < 0 or team[2] != 0:
        return
    used, loss, node = 0, 0.0, 0
    kept = t[row] != ignored
    count[row] = 1 if kept else 0
    node = t[row] if kept else 0
    while kept and nodes[node, ABOVE] >= 0:
        place, node = nodes[node, PLACE], nodes[node, ABOVE]
        many, first = rows_of(nodes, node), nodes[node, FIRST_ROW]
        for k in range(many):
            total = 0.0
            for j in range(x.shape[1]):
                total += np.float64(x[row, j]) * np.float64(w[first + k, j])
            d[row, used + k] = total + (np.float64(b[first + k]) if b.size > 0 else 0.0)
        if many == 1:
            against = np.float64(d[row, used]) if place else -np.float64(d[row, used])
            d[row, used] = logistic(against) if place else -logistic(against)
            loss += (0.0 if against < 0 else against) + log1p(exp(-abs(against)))
        else:
            top = top_of(d, row, used, many)
            rest = rest_below(d, row, used, many, top)
            below, share, others = np.float64(d[row, used + place] - top), 1.0 / (1.0 + rest), 0.0
            for k in range(used, used + many):
                p = np.float64(exp(d[row, k] - top)) * share
                d[row, k] = p
                others += p if k != used + place else 0.0
            d[row, used + place] = -others
            loss += log1p(rest) - below
        used += many
    row_loss[row] = loss
    for k in range(used, end):
        d[row, k] = 0


@rows("x")
def _inputs(
    team: Any,
    row: int,
    end: int,
    dx: Any,
    drow_loss: Any,
    d: Any,
    x: Any,
    w: Any,
    t: Any,
    nodes: Any,
    ignored: float,
) -> None:
    """dx = Σ drow_loss·d·w over a row's logits."""
    for j in range(team[2], end, team[3]):
        used, total = 0, 0.0
        kept = t[row] != ignored
        node = t[row] if kept else 0
        while kept and nodes[node, ABOVE] >= 0:
            node = nodes[node, ABOVE]
            first = nodes[node, FIRST_ROW]
            for k in range(rows_of(nodes, node)):
                total += drow_loss[row] * np.float64(d[row, used + k]) * np.float64(w[first + k, j])
            used += rows_of(nodes, node)
        dx[row, j] = total


@each("into")
def _nothing(i: int, into: Any) -> None:
    into[i] = 0


@rows("dw")
def _weights(
    team: Any,
    row: int,
    end: int,
    dw: Any,
    drow_loss: Any,
    d: Any,
    x: Any,
    t: Any,
    nodes: Any,
    ignored: float,
) -> None:
    """Add Σ drow_loss·d·x to dw; one team has all, as the rows of a minibatch share rows of dw."""
    if row != 0:
        return
    for j in range(team[2], end, team[3]):
        for i in range(t.size):
            used = 0
            kept = t[i] != ignored
            node = t[i] if kept else 0
            while kept and nodes[node, ABOVE] >= 0:
                node = nodes[node, ABOVE]
                first = nodes[node, FIRST_ROW]
                for k in range(rows_of(nodes, node)):
                    value = drow_loss[i] * np.float64(d[i, used + k])
                    dw[first + k, j] += value * np.float64(x[i, j])
                used += rows_of(nodes, node)


@rows("d")
def _biases(
    team: Any,
    row: int,
    end: int,
    db: Any,
    drow_loss: Any,
    d: Any,
    t: Any,
    nodes: Any,
    ignored: float,
) -> None:
    """Add Σ drow_loss·d to db, by one thread."""
    if row != 0 or team[2] != 0:
        return
    for i in range(t.size):
        used = 0
        kept = t[i] != ignored
        node = t[i] if kept else 0
        while kept and nodes[node, ABOVE] >= 0:
            node = nodes[node, ABOVE]
            first = nodes[node, FIRST_ROW]
            for k in range(rows_of(nodes, node)):
                db[first + k] += drow_loss[i] * np.float64(d[i, used + k])
            used += rows_of(nodes, node)


@launcher
def hierarchical_nll_vjp(
    queue: Any,
    dx: Any,
    dw: Any,
    db: Any,
    drow_loss: Any,
    d: Any,
    x: Any,
    w: Any,
    t: Any,
    nodes: Any,
    ignored: float,
    accumulate: int,
) -> None:
    """dx, dw and db by the slopes of each row's logits."""
    if dx.size:
        _inputs(queue, dx, drow_loss, d, x, w, t, nodes, ignored)
    for into in () if accumulate else (dw, db):
        _nothing(queue, into)
    if dw.size:
        _weights(queue, dw, drow_loss, d, x, t, nodes, ignored)
    if db.size:
        _biases(queue, db, drow_loss, d, t, nodes, ignored)
