"""Outputs that say nothing, and outputs that say all: what a loss is worth before and after training."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np

from fastnet import losses
from fastnet.losses.base import Loss
from fastnet.op import Array


def loss_of(loss: Loss, output: Array, target: Array) -> float:
    """The loss of these outputs, by the reference."""
    with np.errstate(all="ignore"):
        return float(copy.copy(loss).forward(output, target))


def uninformed(loss: Loss, target: Array, row: tuple[int, ...]) -> tuple[Array, str] | None:
    """The outputs (n, …) of a net that knows nothing of its inputs, and what they are; None: unknown."""
    if isinstance(loss, losses.EnsembleLoss):
        return uninformed(loss.loss, target, row)
    shape = len(target), *row
    if isinstance(loss, losses.CrossEntropyLoss):
        return np.zeros(shape), f"of {row[-1]} equal logits"
    if isinstance(loss, (losses.NLLLoss, losses.KLDivLoss)):
        return np.full(shape, -math.log(row[-1])), f"of {row[-1]} equal probabilities"
    if isinstance(loss, losses.BCEWithLogitsLoss):
        return np.zeros(shape), "of logits 0"
    if isinstance(loss, losses.BCELoss):
        return np.full(shape, 0.5), "of probabilities 1/2"
    if isinstance(loss, (losses.MultiMarginLoss, losses.OneVsRestHingeLoss)):
        return np.zeros(shape), "of outputs 0"
    if isinstance(loss, losses.L1Loss):
        return _each(np.median(target, axis=0), shape), "of the targets' median"
    if isinstance(loss, losses.PinballLoss):
        shares = np.broadcast_to(loss.quantile, shape[1:])
        known = [np.quantile(t, q) for t, q in zip(target.T, shares, strict=True)]
        return _each(known, shape), "of the targets' quantile"
    if isinstance(loss, losses.PoissonNLLLoss):
        mean = np.maximum(target.mean(axis=0), 1e-12)
        return _each(np.log(mean) if loss.log_input else mean, shape), "of the targets' mean"
    if isinstance(loss, (losses.MSELoss, losses.HalfMSELoss)):
        return _each(target.mean(axis=0), shape), "of the targets' mean, from their variance"
    if isinstance(loss, (losses.HuberLoss, losses.SmoothL1Loss, losses.LogCoshLoss)):
        return _each(target.mean(axis=0), shape), "of the targets' mean"
    return None


def perfect(loss: Loss, target: Array, row: tuple[int, ...]) -> Array | None:
    """The outputs with the lowest loss of these targets; None where it is 0, or unknown."""
    if isinstance(loss, losses.EnsembleLoss):
        return perfect(loss.loss, target, row)
    if isinstance(loss, losses.CrossEntropyLoss):
        wanted = np.eye(row[-1])[np.clip(target, 0, row[-1] - 1)] if target.ndim == 1 else target
        wanted = wanted * (1 - loss.label_smoothing) + loss.label_smoothing / row[-1]
        if loss.weight is not None:
            wanted = wanted * loss.weight
        return _log(wanted)
    if isinstance(loss, losses.BCEWithLogitsLoss):
        factor = 1.0 if loss.pos_weight is None else loss.pos_weight
        odds: Array = _log(target * factor) - _log(1 - target)
        return odds
    if isinstance(loss, losses.BCELoss):
        return np.asarray(target)
    if isinstance(loss, losses.PoissonNLLLoss):
        return _log(target) if loss.log_input else np.maximum(target, 1e-30)
    return None


def _each(value: Any, shape: tuple[int, ...]) -> Array:
    return np.array(np.broadcast_to(value, shape), np.float64)


def _log(values: Array) -> Array:
    logs: Array = np.log(np.maximum(values, 1e-30))
    return logs
