"""Links: how the outputs that a loss takes become probabilities and classes.

SOFTMAX: logits (n, C) of one class. EXP: log-probabilities (n, C) of one class. MARGINS: scores (n, C),
of which the largest is the class's; no probabilities. SIGMOID: logits (n, k), each of something that is
true or not. PROBABILITY: probabilities (n, k) of such. LOG: logarithms of real numbers.
"""

from __future__ import annotations

import numpy as np

from fastnet.formulas import portable
from fastnet.op import Array

SOFTMAX, EXP, MARGINS = "softmax", "exp", "margins"
SIGMOID, PROBABILITY, LOG = "sigmoid", "probability", "log"

ONE_OF_CLASSES = (SOFTMAX, EXP, MARGINS)  # one column for each class
OF_TRUTHS = (SIGMOID, PROBABILITY)  # each column for itself
OF_PROBABILITIES = (SOFTMAX, EXP, SIGMOID, PROBABILITY)
OF_CLASSES = (*ONE_OF_CLASSES, *OF_TRUTHS)
LINKS = (*OF_CLASSES, LOG)


def softmax(logits: Array) -> Array:
    """softmax over each row, float64, with equal bits on every machine."""
    z = logits.astype(np.float64)
    z -= z.max(axis=-1, keepdims=True)
    parts: Array = portable.exp(z)
    total = parts[..., :1].copy()
    for column in range(1, parts.shape[-1]):  # in an order that does not depend on the machine
        total += parts[..., column : column + 1]
    parts /= total
    return parts


def of_logits(logits: Array) -> Array:
    """sigmoid of each element and what is missing to 1, float64 (…, 2): [1 − p, p]."""
    z = logits.astype(np.float64)[..., None]
    return softmax(np.concatenate([np.zeros_like(z), z], axis=-1))


def mean_of(link: str | None, output: Array) -> Array:
    """What the outputs say of each target, float64, of their shape: probabilities, or real numbers."""
    with np.errstate(all="ignore"):
        if link == SOFTMAX:
            return softmax(output)
        if link == SIGMOID:
            return np.asarray(of_logits(output)[..., 1])
        if link in (EXP, LOG):
            return np.asarray(portable.exp(output.astype(np.float64)))
        return output.astype(np.float64)


def probabilities(link: str, output: Array) -> Array:
    """Probabilities float64 (n, C) of the classes, or (n, k) of several truths; of one, both: (n, 2)."""
    if link in ONE_OF_CLASSES or output.shape[1] > 1:
        return mean_of(link, output)
    with np.errstate(all="ignore"):
        if link == SIGMOID:
            return of_logits(output[:, 0])
        p = output.astype(np.float64)
        return np.concatenate([1 - p, p], axis=1)


def decisions(link: str, output: Array) -> Array:
    """The number of each row's class, int64 (n,); of several truths 0 or 1 for each, (n, k)."""
    if link in ONE_OF_CLASSES:
        return np.asarray(np.argmax(output, axis=1))
    found: Array = (output >= (0.0 if link == SIGMOID else 0.5)).astype(np.int64)
    return found[:, 0] if output.shape[1] == 1 else found
