"""Ranges of real numbers that 256 codes stand for: which part of them, and its scale and zero point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastnet.op import Array

METHODS = ("percentile", "minmax", "mse")
CODES = 256
TRIALS = 60  # ranges that the method "mse" compares
MOST = 200_000  # numbers that it compares them on


@dataclass(frozen=True)
class Codes:
    """A code q in 0 … 255 stands for the number scale·(q − zero). scale: a float32 number."""

    scale: float
    zero: int

    @classmethod
    def of(cls, low: float, high: float) -> Codes:
        """The codes of a range, which is widened to contain 0."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = float(np.float32((high - low) / (CODES - 1)))
        if not scale > np.finfo(np.float32).smallest_normal:
            return cls(1.0, 0)
        return cls(scale, int(np.clip(np.rint(-low / scale), 0, CODES - 1)))

    @property
    def low(self) -> float:
        """The least number that has a code."""
        return -self.zero * self.scale

    @property
    def high(self) -> float:
        """The largest number that has a code."""
        return (CODES - 1 - self.zero) * self.scale

    def quantize(self, x: Array) -> Array:
        """The codes of numbers, uint8: the nearest, of two equally near ones the higher."""
        with np.errstate(invalid="ignore"):
            q = np.floor(np.asarray(x, np.float64) / self.scale + self.zero + 0.5)
        found: Array = np.clip(np.nan_to_num(q), 0, CODES - 1).astype(np.uint8)
        return found

    def numbers(self, q: Array) -> Array:
        """The numbers of codes, float32."""
        return (np.float32(self.scale) * (q.astype(np.float32) - self.zero)).astype(np.float32)

    def saturated(self, x: Array) -> float:
        """The share of numbers beyond the range by more than half a step."""
        half = self.scale / 2
        return float(np.mean((x < self.low - half) | (x > self.high + half)))


@dataclass(frozen=True, eq=False)
class Entry:
    """The codes of inputs: those of the front, then with `table` those of its activations."""

    codes: Codes
    table: Array | None
    after: Codes


def codes_of(x: Array, method: str, percentile: float) -> Codes:
    """The codes for numbers like these."""
    if method == "minmax":
        return Codes.of(float(x.min()), float(x.max()))
    if method == "percentile":
        low, high = np.percentile(x, [100 - percentile, percentile])
        return Codes.of(float(low), float(high))
    return _of_least_error(x.reshape(-1))


def _of_least_error(x: Array) -> Codes:
    """Of ranges from a tenth of all numbers to all, that with the least squared error."""
    if x.size > MOST:
        x = x[:: -(-x.size // MOST)]
    low, high = float(x.min()), float(x.max())
    best, least = Codes.of(low, high), np.inf
    for share in np.linspace(0.1, 1.0, TRIALS):
        codes = Codes.of(low * share, high * share)
        error = float(np.square(codes.numbers(codes.quantize(x)) - x).mean())
        if error < least:
            best, least = codes, error
    return best
