"""Random changes of images in training: shifts, flips and contrast."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from fastnet import random
from fastnet.builder import Builder
from fastnet.errors import (
    HyperparameterError,
    ShapeError,
    check_choice,
    check_int,
    check_real,
    shown,
)
from fastnet.layers.base import Layer, Shape
from fastnet.op import Array, Op

HORIZONTAL, VERTICAL = 1, 2


def row_words(rows: int, seed: int, step: int, stream: int) -> Array:
    """Four random words for each row (rows, 4): the block of fastnet.random with the row's number."""
    return random.blocks(rows, seed, stream, step).astype(np.uint64)


class move_image(Op):
    """y = a row's image x, shifted by at most `down` and `right` pixels each way; 0 comes from outside.

    A row has pixels of `channels` numbers, `across` of them in a line; numbers that fill no line stay.
    Word 0 of the row (see row_words) selects the shift downwards, ⌊word·(2·down + 1)/2³²⌋ − down, word 1
    that to the right. dx is dy, shifted back.
    """

    outputs: ClassVar = {"y": "B N"}
    inputs: ClassVar = {"x": "B N"}
    dims = ("N",)
    scalars = ("across", "channels", "down", "right")

    @staticmethod
    def forward(
        y: Array,
        x: Array,
        across: float,
        channels: float,
        down: float,
        right: float,
        seed: int,
        step: int,
        stream: int,
    ) -> None:
        """Each number comes from a place, or is 0."""
        word = row_words(len(x), seed, step, stream)
        shifts = _shift(word[:, 0:1], int(down)), _shift(word[:, 1:2], int(right))
        _moved(y, x, across, channels, *shifts)

    @staticmethod
    def vjp(
        dx: Array,
        dy: Array,
        across: float,
        channels: float,
        down: float,
        right: float,
        seed: int,
        step: int,
        stream: int,
    ) -> None:
        """The opposite shift."""
        word = row_words(len(dy), seed, step, stream)
        shifts = -_shift(word[:, 0:1], int(down)), -_shift(word[:, 1:2], int(right))
        _moved(dx, dy, across, channels, *shifts)


class mirror_image(Op):
    """y = a row's image x, mirrored or not; dx = dy, mirrored likewise.

    The image is as in move_image. Bit 0 of the row's word 2 mirrors left and right if `flips` has
    HORIZONTAL, bit 1 top and bottom if it has VERTICAL.
    """

    outputs: ClassVar = {"y": "B N"}
    inputs: ClassVar = {"x": "B N"}
    dims = ("N",)
    scalars = ("across", "channels", "flips")

    @staticmethod
    def forward(
        y: Array,
        x: Array,
        across: float,
        channels: float,
        flips: float,
        seed: int,
        step: int,
        stream: int,
    ) -> None:
        """Each number comes from its mirror's place."""
        kinds = row_words(len(x), seed, step, stream)[:, 2:3].astype(np.int64) & int(flips)
        _moved(y, x, across, channels, 0, 0, kinds)

    @staticmethod
    def vjp(
        dx: Array,
        dy: Array,
        across: float,
        channels: float,
        flips: float,
        seed: int,
        step: int,
        stream: int,
    ) -> None:
        """The same map of dy: a mirror image of a mirror image is the image."""
        mirror_image.forward(dx, dy, across, channels, flips, seed, step, stream)


def _moved(
    y: Array, x: Array, across: float, channels: float, down: Any, right: Any, flips: Any = 0
) -> None:
    """Write the images of rows, mirrored and shifted by so many pixels."""
    size = x.shape[1]
    width, depth = int(across), int(channels)
    line = width * depth
    high = size // line
    place = np.arange(size)
    i, j, c = (place // line)[None], (place % line // depth)[None], (place % depth)[None]
    j = np.where(np.bitwise_and(flips, HORIZONTAL), width - 1 - j, j) - right
    i = np.where(np.bitwise_and(flips, VERTICAL), high - 1 - i, i) - down
    inside = (i >= 0) & (i < high) & (j >= 0) & (j < width)
    source = np.where(inside, i * line + j * depth + c, -1)
    source = np.broadcast_to(np.where(place < high * line, source, place), x.shape)
    y[...] = np.where(source < 0, 0, np.take_along_axis(x, np.maximum(source, 0), axis=1))


def _shift(word: Array, most: int) -> Array:
    """A uniform integer in [−most, most] of a word."""
    found: Array = ((word * np.uint64(2 * most + 1)) >> np.uint64(32)).astype(np.int64) - most
    return found


class contrast(Op):
    """y = m + f·(x − m) with the mean m of a row and f uniform in (1 − spread, 1 + spread).

    f = 1 + spread·((2·word + 1)/2³² − 1) for word 3 of the row (see row_words). dx likewise from dy,
    because the map is linear and symmetric.
    """

    outputs: ClassVar = {"y": "B N"}
    inputs: ClassVar = {"x": "B N"}
    dims = ("N",)
    scalars = ("spread",)
    inplace = True

    @staticmethod
    def forward(y: Array, x: Array, spread: float, seed: int, step: int, stream: int) -> None:
        """Stretch the differences from the mean."""
        word = row_words(len(x), seed, step, stream)[:, 3:4].astype(np.float64)
        factor = (1 + spread * ((2 * word + 1) * 2.0**-32 - 1)).astype(x.dtype)
        mean = x.mean(axis=1, dtype=np.float64, keepdims=True).astype(x.dtype)
        np.add(mean, factor * (x - mean), out=y)

    @staticmethod
    def vjp(dx: Array, dy: Array, spread: float, seed: int, step: int, stream: int) -> None:
        """The same map of dy."""
        contrast.forward(dx, dy, spread, seed, step, stream)


class _OfImages(Layer, base=True):
    """Base of layers whose rows are images.

    shape: (height, width) or (height, width, channels) of the images that rows (n, height·width·channels)
    are.
    """

    def __init__(self, shape: Any, **config: Any) -> None:
        super().__init__(shape=_checked_shape(shape), **config)

    @property
    def in_width(self) -> int:
        """The number of values of an image."""
        return math.prod(self.shape)

    def output_shape(self, shape: Shape) -> Shape:
        """The shape of the input."""
        if shape != (self.in_width,):
            raise ShapeError(
                f"{self.label}: rows of shape {shape} came, expected {self.in_width} = "
                f"{'·'.join(map(str, self.shape))} values"
            )
        return shape

    def _numbers(self) -> dict[str, float]:
        """The numbers of the ops that say what an image is."""
        _, width, *channels = self.shape
        return {"across": float(width), "channels": float(math.prod(channels))}

    @property
    def _stream(self) -> int:
        return random.stream_of(random.NOISE, self._index)


class RandomTranslation(_OfImages):
    """In training y = the image x, shifted by up to `height` pixels down or up and `width` right or left.

    Each row has shifts of its own, uniform among the integers in [−height, height] and [−width, width].
    What comes from outside is 0. In evaluation y = x. The shifts are functions of the seed, the layer's
    index in the model, the step and the row's place in the minibatch, and are the same on every backend.

    shape: (height, width) or (height, width, channels) of the images.
    height: integer ≥ 0 (default 2), less than the image's.
    width: integer ≥ 0 (default 2), less than the image's.
    Source: P. Y. Simard, D. Steinkraus, J. C. Platt, "Best practices for convolutional neural networks",
    ICDAR 2003; the name is Keras's, whose arguments are shares of the size.
    """

    def __init__(self, shape: Sequence[Any], height: int = 2, width: int = 2) -> None:
        known = _checked_shape(shape)
        most = {"height": check_int("height", height), "width": check_int("width", width)}
        for (name, value), size in zip(most.items(), known, strict=False):
            if value >= size:
                raise HyperparameterError(
                    f"{name} is {value} and shape is {known}; expected an integer in [0, {size - 1}]"
                )
        super().__init__(known, **most)

    def emit(self, g: Builder, x: Any) -> Any:
        """Apply `move_image` in training, no op in evaluation."""
        if not g.training:
            return x
        most = {"down": float(self.height), "right": float(self.width)}
        return g.apply(move_image, x=x, **self._numbers(), **most, stream=self._stream)


class RandomFlip(_OfImages):
    """In training y = the image x, mirrored with probability ½ in each direction of mode; else y = x.

    The draws are functions of the seed, the layer's index in the model, the step and the row's place in the
    minibatch, and are the same on every backend.

    shape: (height, width) or (height, width, channels) of the images.
    mode: "horizontal" (default, left and right change places), "vertical" or "horizontal_and_vertical",
        whose two draws are independent.
    Source: A. Krizhevsky, I. Sutskever, G. E. Hinton, "ImageNet classification with deep convolutional
    neural networks", NIPS 2012, section 4.1; names and modes are Keras's.
    """

    def __init__(self, shape: Sequence[Any], mode: str = "horizontal") -> None:
        super().__init__(shape, mode=check_choice("mode", mode, tuple(_FLIPS)))

    def emit(self, g: Builder, x: Any) -> Any:
        """Apply `mirror_image` in training, no op in evaluation."""
        if not g.training:
            return x
        flips = float(_FLIPS[self.mode])
        return g.apply(mirror_image, x=x, **self._numbers(), flips=flips, stream=self._stream)


_FLIPS = {
    "horizontal": HORIZONTAL,
    "vertical": VERTICAL,
    "horizontal_and_vertical": HORIZONTAL | VERTICAL,
}


class RandomContrast(Layer):
    """In training y = m + f·(x − m) with the row's mean m and f ~ U(1 − factor, 1 + factor); else y = x.

    Each row has its own f, a function of the seed, the layer's index in the model, the step and the row's
    place in the minibatch, the same on every backend. y is not clipped.

    factor: number in [0, 1] (default 0.2).
    Source: A. G. Howard, "Some improvements on deep convolutional neural network based image
    classification", ICLR 2014; the name is Keras's, where each channel has a mean of its own.
    """

    def __init__(self, factor: float = 0.2) -> None:
        super().__init__(factor=check_real("factor", factor, low=0.0, high=1.0))

    def output_shape(self, shape: Shape) -> Shape:
        """The shape of the input."""
        if len(shape) != 1:
            raise ShapeError(f"{self.label}: rows of shape {shape} came, expected (features,)")
        return shape

    def emit(self, g: Builder, x: Any) -> Any:
        """Apply `contrast` in training, no op in evaluation."""
        if not g.training or self.factor == 0.0:
            return x
        stream = random.stream_of(random.NOISE, self._index)
        return g.apply(contrast, x=x, spread=self.factor, stream=stream)


def _checked_shape(given: Any) -> tuple[int, ...]:
    """The argument shape."""
    try:
        found = tuple(check_int("shape", size, low=1, high=1 << 16) for size in given)
        if len(found) not in (2, 3):
            raise ValueError
    except (TypeError, ValueError):
        raise HyperparameterError(
            f"shape is {shown(given)}; expected (height, width) or (height, width, channels)"
        ) from None
    return found
