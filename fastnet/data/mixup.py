"""Mixup: minibatches of convex combinations of rows and their targets."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from fastnet import random
from fastnet.data import arrays, labels
from fastnet.data.minibatches import batch_offsets, epoch_order
from fastnet.errors import (
    Attributed,
    DataError,
    HyperparameterError,
    check_int,
    check_real,
    check_seed,
)
from fastnet.op import Array

PARTNERS, SHARES = 6, 7  # users of shuffling streams
TRIES = 64  # of a rejection that accepts more than nine of ten


class MixUp(Attributed):
    """Minibatches (λ·x + (1 − λ)·x′, λ·y + (1 − λ)·y′) with λ ~ Beta(α, α), for `trainer.fit`.

    Write `trainer.fit(fn.MixUp(X, y), epochs=9)`. (x′, y′) are the rows of the minibatch in another order.
    λ is one number for a minibatch. The order of the rows is that of a fit on arrays; orders and λ are
    functions of the seed, the epoch and the minibatch's number.

    X: inputs (n, features), numbers.
    y: targets (n, k), numbers, or labels (n,): integers in [0, classes), which become rows of zeros and a
        one. The loss must take such targets, as CrossEntropyLoss, KLDivLoss and MSELoss do.
    alpha: number in [0.01, 1000] (default 0.2). Small ones mix little.
    batch_size: integer ≥ 1 (default 32).
    classes: integer ≥ 2: how many there are, or None (default): the greatest label + 1.
    seed: integer in [0, 2⁶⁴) (default None: a random one).

    NumPy mixes, one minibatch for each step; the step itself is native. Metrics of the training see mixed
    targets. Source: H. Zhang, M. Cisse, Y. N. Dauphin, D. Lopez-Paz, "mixup: beyond empirical risk
    minimization", ICLR 2018, with a permutation of the minibatch as in its code.
    """

    def __init__(
        self,
        X: Any,
        y: Any,
        alpha: float = 0.2,
        batch_size: int = 32,
        classes: int | None = None,
        seed: int | None = None,
    ) -> None:
        x = arrays.numbers("X", X)
        arrays.check_rows("X", x.shape, None)
        known = check_seed("seed", seed)
        count = None if classes is None else check_int("classes", classes, low=2, high=1 << 16)
        targets = _targets(y, count)
        arrays.check_lengths("X", x, "y", targets)
        self._x, self._y = x, targets
        self._alpha = check_real("alpha", alpha, low=0.01, high=1000.0)
        self._batch_size = check_int("batch_size", batch_size, low=1)
        self._seed = random.fresh_seed() if known is None else known

    def __repr__(self) -> str:
        return f"MixUp(…, alpha={self._alpha}, batch_size={self._batch_size}, seed={self._seed})"

    def __len__(self) -> int:
        return int(-(-len(self._x) // self._batch_size))

    def __call__(self, epoch: int) -> Iterator[tuple[Array, Array]]:
        """The minibatches of an epoch, counted from 0."""
        return self._mixed(check_int("epoch", epoch, high=2**64 - 1))

    def _mixed(self, epoch: int) -> Iterator[tuple[Array, Array]]:
        order = epoch_order(len(self._x), self._seed, epoch)
        shares = beta(len(self), self._alpha, self._seed, epoch)
        partner = random.permutation(len(self._x), self._seed, epoch, user=PARTNERS)
        for share, (begin, end) in zip(
            shares, pairwise(batch_offsets(len(order), self._batch_size)), strict=True
        ):
            rows = order[begin:end]
            others = rows[np.argsort(partner[begin:end], kind="stable")]
            x, y = (_mix(part, rows, others, share) for part in (self._x, self._y))
            yield x, y


def _mix(values: Array, rows: Array, others: Array, share: float) -> Array:
    """share·rows + (1 − share)·others, in the dtype of real numbers, float32 for others."""
    kind = values.dtype if values.dtype.kind == "f" else np.dtype(np.float32)
    first, second = values[rows].astype(kind), values[others].astype(kind)
    found: Array = kind.type(share) * first + kind.type(1 - share) * second
    return found


def _targets(y: Any, classes: int | None) -> Array:
    """Targets as numbers (n, k); labels become rows of zeros and a one."""
    found = labels.read("y", y)
    if found.dtype.kind not in arrays.NUMBERS:
        raise DataError(
            f"y has dtype {found.dtype}; expected numbers: numpy.unique(y, return_inverse=True)[1] numbers "
            "labels"
        )
    if found.ndim == 1 and found.dtype.kind in "iub" and found.size:
        found = found.astype(np.int64)
        count = max(2, int(found.max()) + 1) if classes is None else classes
        if found.min() < 0 or found.max() >= count or count > 1 << 16:
            raise DataError(
                f"y holds labels from {found.min()} to {found.max()}; expected integers in "
                f"[0, {classes or 1 << 16})"
            )
        rows = np.zeros((len(found), count), np.float32)
        rows[np.arange(len(found)), found] = 1
        return rows
    if classes is not None:
        raise HyperparameterError(
            f"classes is {classes} and y has shape {found.shape} and dtype {found.dtype}; expected labels "
            "(n,) for classes, or classes=None"
        )
    if found.ndim == 0:
        raise DataError("y is a single number; expected targets with rows")
    return found[:, None] if found.ndim == 1 else found


def beta(count: int, alpha: float, seed: int, step: int) -> Array:
    """`count` draws of Beta(alpha, alpha): the share of one of two gamma variables, by their logarithms.

    Gamma variables: G. Marsaglia, W. W. Tsang, "A simple method for generating gamma variables", ACM TOMS
    26, 2000; that of alpha is that of alpha + 1 times U^(1/alpha).
    """
    each = 2 * count
    d = alpha + 1 - 1 / 3
    c = 1 / np.sqrt(9 * d)
    found = np.full(each, np.log(d))  # where all tries fail, which does not happen
    left = np.ones(each, bool)
    for number in range(TRIES):
        if not left.any():
            break
        stream = random.stream_of(random.SHUFFLE, SHARES + 10 * number)
        z = random.normal(each, seed, stream, step)
        u = random.uniform(each, seed, stream + 1, step)
        v = (1 + c * z) ** 3
        positive = v > 0
        log_v = np.log(np.where(positive, v, 1.0))
        taken = left & positive & (np.log(u) < 0.5 * z * z + d - d * v + d * log_v)
        found[taken] = np.log(d) + log_v[taken]
        left &= ~taken
    boost = random.uniform(each, seed, random.stream_of(random.SHUFFLE, SHARES + 5), step)
    found += np.log(boost) / alpha
    difference = np.clip(found[count:] - found[:count], -700, 700)
    share: Array = 1 / (1 + np.exp(difference))
    return share
