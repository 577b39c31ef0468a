"""Updates: one pass over the flat vectors of parameters, gradients and state."""

from __future__ import annotations

import numpy as np

from fastnet.backends.numba.kernels.registry import kernel
from fastnet.op import Array


@kernel
def sgd_update(w: Array, g: Array, lr: float, weight_decay: float) -> None:
    """w ← w − lr·(g + weight_decay·w)."""
    rate, decay = w.dtype.type(lr), w.dtype.type(weight_decay)
    for i in range(w.size):
        w[i] -= rate * (g[i] + decay * w[i])


@kernel
def sgd_momentum_update(
    w: Array, v: Array, g: Array, lr: float, weight_decay: float, momentum: float, damping: float
) -> None:
    """v ← momentum·v + damping·(g + weight_decay·w); w ← w − lr·v."""
    rate, decay = w.dtype.type(lr), w.dtype.type(weight_decay)
    keep, share = w.dtype.type(momentum), w.dtype.type(damping)
    zero, tiny = w.dtype.type(0), w.dtype.type(np.finfo(w.dtype).tiny)
    for i in range(w.size):
        velocity = keep * v[i] + share * (g[i] + decay * w[i])
        velocity = zero if abs(velocity) < tiny else velocity
        v[i] = velocity
        w[i] -= rate * velocity


@kernel
def sgd_nesterov_update(
    w: Array, v: Array, g: Array, lr: float, weight_decay: float, momentum: float
) -> None:
    """d = g + weight_decay·w; v ← momentum·v + d; w ← w − lr·(d + momentum·v)."""
    rate, decay, keep = w.dtype.type(lr), w.dtype.type(weight_decay), w.dtype.type(momentum)
    zero, tiny = w.dtype.type(0), w.dtype.type(np.finfo(w.dtype).tiny)
    for i in range(w.size):
        d = g[i] + decay * w[i]
        velocity = keep * v[i] + d
        velocity = zero if abs(velocity) < tiny else velocity
        v[i] = velocity
        w[i] -= rate * (d + keep * velocity)


@kernel
def adam_update(
    w: Array,
    m: Array,
    v: Array,
    g: Array,
    step_size: float,
    root_scale: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
) -> None:
    """d = g + weight_decay·w enters the moments; w ← w − step_size·m / (√v·root_scale + eps)."""
    size, root, small = w.dtype.type(step_size), w.dtype.type(root_scale), w.dtype.type(eps)
    zero, tiny = w.dtype.type(0), w.dtype.type(np.finfo(w.dtype).tiny)
    keep1, share1 = w.dtype.type(beta1), w.dtype.type(1.0 - beta1)
    keep2, share2 = w.dtype.type(beta2), w.dtype.type(1.0 - beta2)
    decay = w.dtype.type(weight_decay)
    for i in range(w.size):
        d = g[i] + decay * w[i]
        first = keep1 * m[i] + share1 * d
        second = keep2 * v[i] + share2 * (d * d)
        second = zero if abs(first) < tiny and second < tiny else second
        first = zero if abs(first) < tiny else first
        m[i] = first
        v[i] = second
        w[i] -= size * (first / (np.sqrt(second) * root + small))


@kernel
def adamw_update(
    w: Array,
    m: Array,
    v: Array,
    g: Array,
    step_size: float,
    root_scale: float,
    beta1: float,
    beta2: float,
    eps: float,
    shrink: float,
) -> None:
    """w ← shrink·w − step_size·m / (√v·root_scale + eps); the decay never enters the moments."""
    size, root, small = w.dtype.type(step_size), w.dtype.type(root_scale), w.dtype.type(eps)
    zero, tiny = w.dtype.type(0), w.dtype.type(np.finfo(w.dtype).tiny)
    keep1, share1 = w.dtype.type(beta1), w.dtype.type(1.0 - beta1)
    keep2, share2 = w.dtype.type(beta2), w.dtype.type(1.0 - beta2)
    left = w.dtype.type(shrink)
    for i in range(w.size):
        first = keep1 * m[i] + share1 * g[i]
        second = keep2 * v[i] + share2 * (g[i] * g[i])
        second = zero if abs(first) < tiny and second < tiny else second
        first = zero if abs(first) < tiny else first
        m[i] = first
        v[i] = second
        w[i] = left * w[i] - size * (first / (np.sqrt(second) * root + small))
