"""The decision that a row of outputs makes, which accuracy compares with the row's label."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fastnet.op import Array, Op


class decision(Op):
    """d = the column of a row's largest output; of one column, 1 where y ≥ threshold, else 0.

    Of equal outputs the first counts. NaN is larger than any number.
    """

    outputs: ClassVar = {"d": "float64 B"}
    inputs: ClassVar = {"y": "B N"}
    dims = ("N",)
    scalars = ("threshold",)

    @staticmethod
    def forward(d: Array, y: Array, threshold: float) -> None:
        """As NumPy's argmax."""
        d[...] = y[:, 0] >= threshold if y.shape[1] == 1 else np.argmax(y, axis=1)
