"""A matrix product of integers: the arithmetic that all forms of a quantised net have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np

from fastnet.errors import UsageError
from fastnet.int8.chain import Product
from fastnet.int8.ranges import CODES, Codes
from fastnet.op import Array

LARGEST_WEIGHT = 127
MULTIPLIER_BITS = 31
MOST_SHIFT = 62


@dataclass(frozen=True, eq=False)
class Layer:
    """q = table[clip((a·multiplier + 2^(shift − 1)) >> shift + zero, 0, 255)], with a = bias + Σ x·w.

    x: codes, uint8. w: int8 (inputs, outputs), −127 … 127, symmetric with a scale for each output. bias,
    multiplier: int32 (outputs,); the bias has the zero point of x in it. shift: uint8 (outputs,), 1 … 62.
    a: int32, and its product with the multiplier int64. >> rounds down, so that the whole rounds to the
    nearest code, and of two equally near ones to the higher. The multiplier with its shift is
    x's scale · the weights' scale / the scale of the codes before the table, to 2⁻³¹.
    table: uint8 (256,), the activation of each code; None: there is none, or a rectifier, whose zero point
    is 0. given, before, after: the codes of x, those before and those after the table.
    """

    label: str
    w: Array
    bias: Array
    scales: Array  # of the weights, float32 (outputs,)
    multiplier: Array
    shift: Array
    table: Array | None
    given: Codes
    before: Codes
    after: Codes
    product: Product

    @classmethod
    def of(cls, product: Product, given: Codes, before: Codes, after: Codes) -> Self:
        """A product whose inputs, sums and outputs have these codes."""
        w, b = product.w, product.b
        largest = np.abs(w).max(axis=0, initial=0.0) / LARGEST_WEIGHT
        floor = np.abs(b) / (given.scale * 2**30)  # so that the bias is an int32
        scales = np.maximum(largest, floor).astype(np.float32).astype(np.float64)
        scales[~(scales > np.finfo(np.float32).smallest_normal)] = 1.0
        codes = np.clip(np.rint(w / scales), -LARGEST_WEIGHT, LARGEST_WEIGHT)
        bias = np.rint(b / (given.scale * scales)) - given.zero * codes.sum(axis=0)
        most = np.abs(bias) + (CODES - 1) * np.abs(codes).sum(axis=0)
        if not most.max(initial=0.0) < 2**31:
            raise UsageError(
                f"{product.label} cannot be quantized: its sums of {len(w)} products may leave int32; "
                "standardize the data, or make the layer narrower"
            )
        pairs = [_fixed(given.scale * scale / before.scale) for scale in scales]
        table = None
        if product.activations and not product.rectifies:
            table = table_of(product.activated, before, after)
        return cls(
            product.label,
            codes.astype(np.int8),
            bias.astype(np.int32),
            scales.astype(np.float32),
            np.array([multiplier for multiplier, _ in pairs], np.int32),
            np.array([shift for _, shift in pairs], np.uint8),
            table,
            given,
            before,
            after,
            product,
        )

    def __call__(self, x: Array) -> Array:
        """The codes after the layer for codes x, uint8 (n, outputs)."""
        # Sums of integers below 2^53 are exact in float64, whose products are fast.
        a = (x.astype(np.float64) @ self.w.astype(np.float64)).astype(np.int64) + self.bias
        shift = self.shift.astype(np.int64)
        scaled = (a * self.multiplier.astype(np.int64) + (1 << (shift - 1))) >> shift
        q = np.clip(scaled + self.before.zero, 0, CODES - 1).astype(np.uint8)
        found: Array = q if self.table is None else self.table[q]
        return found

    @property
    def nbytes(self) -> int:
        """The bytes of its constants."""
        arrays = (self.w, self.bias, self.multiplier, self.shift, self.table)
        return sum(array.nbytes for array in arrays if array is not None)


def table_of(activate: Callable[[Array], Array], before: Codes, after: Codes) -> Array:
    """The codes of an activation's values at all codes before it, uint8 (256,)."""
    numbers = before.numbers(np.arange(CODES)).astype(np.float64)
    return after.quantize(activate(numbers))


def _fixed(number: float) -> tuple[int, int]:
    """The integers m and k with number ≈ m·2⁻ᵏ, m below 2³¹."""
    fraction, exponent = np.frexp(number)
    multiplier, shift = int(np.rint(fraction * 2**MULTIPLIER_BITS)), MULTIPLIER_BITS - int(exponent)
    if multiplier == 2**MULTIPLIER_BITS:
        multiplier, shift = multiplier // 2, shift - 1
    if shift < 1:  # all sums but 0 are beyond the range
        return 2**MULTIPLIER_BITS - 1, 1
    return (multiplier, shift) if shift <= MOST_SHIFT else (0, 1)
