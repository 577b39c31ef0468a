"""Dropout, with the random words of fastnet.random."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnet.backends.cuda.device import device
from fastnet.backends.cuda.kernels.loops import draws
from fastnet.backends.cuda.kernels.registry import launcher


@device
def kept(word: Any, value: Any, threshold: float, scale: float) -> Any:
    """scale·value where the word is at least the threshold, else 0."""
    return value * type(value)(scale) if word >= np.uint64(threshold) else type(value)(0)


@launcher
@draws("y")
def dropout_forward(
    i: int,
    word: Any,
    y: Any,
    x: Any,
    threshold: float,
    scale: float,
    seed: int,
    step: int,
    stream: int,
) -> None:
    """y = scale·x where the element's word is at least the threshold, else 0."""
    y[i] = kept(word, x[i], threshold, scale)


@launcher
@draws("dx")
def dropout_vjp(
    i: int,
    word: Any,
    dx: Any,
    dy: Any,
    threshold: float,
    scale: float,
    seed: int,
    step: int,
    stream: int,
) -> None:
    """The same map as forward, with the same mask."""
    dx[i] = kept(word, dy[i], threshold, scale)


@launcher
@draws("y")
def scheduled_dropout_forward(
    i: int, word: Any, y: Any, x: Any, n: Any, seed: int, step: int, stream: int
) -> None:
    """The same with a threshold and a scale of the step."""
    y[i] = kept(word, x[i], n[0], n[1])


@launcher
@draws("dx")
def scheduled_dropout_vjp(
    i: int, word: Any, dx: Any, dy: Any, n: Any, seed: int, step: int, stream: int
) -> None:
    """The same map as forward."""
    dx[i] = kept(word, dy[i], n[0], n[1])


@launcher
@draws("y")
def relu_dropout_forward(
    i: int,
    word: Any,
    y: Any,
    x: Any,
    threshold: float,
    scale: float,
    seed: int,
    step: int,
    stream: int,
) -> None:
    """y = scale·max(x, 0) where the element's word is at least the threshold, else 0."""
    value = x[i]
    y[i] = kept(word, type(value)(0) if value <= 0 else value, threshold, scale)


@launcher
@draws("y")
def alpha_dropout_forward(
    i: int,
    word: Any,
    y: Any,
    x: Any,
    threshold: float,
    scale: float,
    kept: float,
    dropped: float,
    seed: int,
    step: int,
    stream: int,
) -> None:
    """y = scale·x + kept where the element's word is at least the threshold, else dropped."""
    real = y.dtype.type
    y[i] = x[i] * real(scale) + real(kept) if word >= np.uint64(threshold) else real(dropped)


@launcher
@draws("dx")
def alpha_dropout_vjp(
    i: int,
    word: Any,
    dx: Any,
    dy: Any,
    threshold: float,
    scale: float,
    seed: int,
    step: int,
    stream: int,
) -> None:
    """Dropout of dy."""
    dx[i] = kept(word, dy[i], threshold, scale)
