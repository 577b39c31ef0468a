"""Random changes of images, by four random words of each row."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnet.backends.cuda.device import device
from fastnet.backends.cuda.kernels.loops import cells, rows
from fastnet.backends.cuda.kernels.registry import launcher
from fastnet.backends.cuda.kernels.teams import team_sum
from fastnet.backends.cuda.philox import counter, philox

_U, _HALF = np.uint64, np.uint64(32)


@device
def _shift(word: Any, most: int) -> Any:
    """A uniform integer in [−most, most]."""
    return np.int64((word * _U(2 * most + 1)) >> _HALF) - most


@device
def _moved(
    x: Any, row: int, column: int, width: int, depth: int, mirrored: Any, down: Any, right: Any
) -> Any:
    """The number of a row's image at a place, when the image is mirrored and then shifted."""
    line = width * depth
    high = x.shape[1] // line
    if column >= high * line:
        return x[row, column]
    i, j, c = column // line, column % line // depth, column % depth
    if mirrored & 2:
        i = high - 1 - i
    if mirrored & 1:
        j = width - 1 - j
    i -= down
    j -= right
    inside = i >= 0 and i < high and j >= 0 and j < width
    return x[row, i * line + j * depth + c] if inside else x.dtype.type(0)


@launcher
@cells("y")
def move_image_forward(
    row: int,
    column: int,
    y: Any,
    x: Any,
    across: float,
    channels: float,
    down: float,
    right: float,
    seed: int,
    step: int,
    stream: int,
) -> None:
    """y = x, shifted."""
    w0, w1, _, _ = philox(row, counter(seed, _U(stream), step))
    down_now, right_now = _shift(w0, int(down)), _shift(w1, int(right))
    y[row, column] = _moved(x, row, column, int(across), int(channels), 0, down_now, right_now)


@launcher
@cells("dx")
def move_image_vjp(
    row: int,
    column: int,
    dx: Any,
    dy: Any,
    across: float,
    channels: float,
    down: float,
    right: float,
    seed: int,
    step: int,
    stream: int,
) -> None:
    """dx = dy, shifted back."""
    w0, w1, _, _ = philox(row, counter(seed, _U(stream), step))
    down_now, right_now = _shift(w0, int(down)), _shift(w1, int(right))
    dx[row, column] = _moved(dy, row, column, int(across), int(channels), 0, -down_now, -right_now)


@launcher
@cells("y")
def mirror_image_forward(
    row: int,
    column: int,
    y: Any,
    x: Any,
    across: float,
    channels: float,
    flips: float,
    seed: int,
    step: int,
    stream: int,
) -> None:
    """y = x, mirrored or not."""
    _, _, w2, _ = philox(row, counter(seed, _U(stream), step))
    mirrored = np.int64(w2) & int(flips)
    y[row, column] = _moved(x, row, column, int(across), int(channels), mirrored, 0, 0)


@launcher
@cells("dx")
def mirror_image_vjp(
    row: int,
    column: int,
    dx: Any,
    dy: Any,
    across: float,
    channels: float,
    flips: float,
    seed: int,
    step: int,
    stream: int,
) -> None:
    """The same map of dy."""
    _, _, w2, _ = philox(row, counter(seed, _U(stream), step))
    mirrored = np.int64(w2) & int(flips)
    dx[row, column] = _moved(dy, row, column, int(across), int(channels), mirrored, 0, 0)


@device
def _stretch(
    team: Any,
    row: int,
    end: int,
    to: Any,
    of: Any,
    spread: float,
    seed: int,
    step: int,
    stream: int,
) -> None:
    """to = m + f·(of − m)."""
    _, _, _, w3 = philox(max(row, 0), counter(seed, _U(stream), step))
    word = float(np.int64(w3))
    factor = of.dtype.type(1.0 + spread * ((2.0 * word + 1.0) * 2.0**-32 - 1.0))
    total = 0.0
    for column in range(team[2], end, team[3]):
        total += np.float64(of[row, column])
    mean = of.dtype.type(team_sum(team, total) / max(end, 1))
    for column in range(team[2], end, team[3]):
        to[row, column] = mean + factor * (of[row, column] - mean)


@launcher
@rows("y")
def contrast_forward(
    team: Any, row: int, end: int, y: Any, x: Any, spread: float, seed: int, step: int, stream: int
) -> None:
    """y = m + f·(x − m)."""
    _stretch(team, row, end, y, x, spread, seed, step, stream)


@launcher
@rows("dx")
def contrast_vjp(
    team: Any,
    row: int,
    end: int,
    dx: Any,
    dy: Any,
    spread: float,
    seed: int,
    step: int,
    stream: int,
) -> None:
    """The same map of dy."""
    _stretch(team, row, end, dx, dy, spread, seed, step, stream)
