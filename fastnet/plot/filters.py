"""The weights of a first layer as images."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastnet.errors import HyperparameterError, ShapeError, check_int, shown
from fastnet.layers.base import Layer
from fastnet.model import Sequential
from fastnet.op import Array
from fastnet.plot.figures import figure_of


def weights(model: Any, shape: Any = (28, 28), most: int = 100, figure: Any = None) -> Any:
    """The weights from the inputs to each unit of the first layer, as an image for each unit.

    model: a model, of which the first layer with a weight matrix is taken, or such a layer.
    shape: (height, width) of an input row as an image; height·width is the number of inputs (default
        (28, 28), MNIST's).
    most: integer ≥ 1 (default 100). How many units are shown at most, the first ones.
    figure: a figure of matplotlib's to draw in (default None: a new one).

    Black is −v and white v, where v is a bound of 99.5 % of the magnitudes that are shown; 0 is grey. So
    images of a net that has learned nothing look like noise, and units without any effect are plain grey.
    Returns the figure. Raises MissingExtra without matplotlib.
    """
    most = check_int("most", most, low=1)
    path, layer = _first(model)
    values = layer.state_dict()["weight"]
    height, width = _sides(shape, values.shape[1])
    units = values[:most].astype(np.float64).reshape(-1, height, width)
    finite = np.abs(units[np.isfinite(units)])
    bound = float(np.quantile(finite, 0.995)) if finite.size else 0.0
    mosaic, columns = _mosaic(units)
    ratio = mosaic.shape[0] / mosaic.shape[1]
    made = figure_of(figure, 7.0, min(12.0, max(2.0, 6.0 * ratio + 0.6)))
    axes = made.add_subplot()
    image = axes.imshow(mosaic, cmap="gray", vmin=-(bound or 1.0), vmax=bound or 1.0)
    axes.set_facecolor("white")  # between the images
    axes.set_axis_off()
    name = f"layer {path} ({type(layer).__name__})" if path else type(layer).__name__
    many = f"{len(units)} of {len(values)} units"
    axes.set_title(f"{name}: {many}, {columns} in a row", fontsize=11)
    made.colorbar(image, ax=axes, shrink=0.8, label="weight")
    return made


def _first(model: Any) -> tuple[str, Layer]:
    """The first layer with a weight matrix, and its path."""
    if isinstance(model, Sequential):
        layers = model.layers
    elif isinstance(model, Layer):
        layers = [("", model)]
    else:
        raise HyperparameterError(f"model is {shown(model)}; expected a Sequential or a layer")
    for path, layer in layers:
        weight = layer._parameters.get("weight")
        if weight is not None and len(weight.shape) == 2:
            return path, layer
    raise HyperparameterError(
        f"model is a {type(model).__name__} without a weight matrix; expected one with a Linear layer"
    )


def _sides(shape: Any, inputs: int) -> tuple[int, int]:
    try:
        height, width = shape
    except (TypeError, ValueError):
        raise HyperparameterError(
            f"shape is {shown(shape)}; expected (height, width), such as (28, 28)"
        ) from None
    height, width = (check_int(f"shape[{i}]", n, low=1) for i, n in enumerate((height, width)))
    if height * width != inputs:
        root = math.isqrt(inputs)
        way = next(d for d in range(root, 0, -1) if inputs % d == 0)
        raise ShapeError(
            f"shape is ({height}, {width}), and the layer has {inputs} inputs; expected "
            f"height·width = {inputs}, such as shape=({way}, {inputs // way})"
        )
    return height, width


def _mosaic(units: Array) -> tuple[Array, int]:
    """The images side by side, with NaN between them, and how many are in a row."""
    count, height, width = units.shape
    columns = min(count, max(1, math.ceil(math.sqrt(count * 1.3 * height / width))))
    rows = -(-count // columns)
    gap = max(1, round(0.06 * max(height, width)))
    mosaic = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap), np.nan)
    for i, unit in enumerate(units):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        mosaic[top : top + height, left : left + width] = unit
    return mosaic, columns
