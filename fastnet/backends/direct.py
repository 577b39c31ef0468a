"""Arrays that a prediction reads and writes where they lie."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnet.data import arrays
from fastnet.plan.compiler import Plan


def takes(plan: Plan, x: Any, out: Any) -> bool:
    """Whether a prediction can read x and write out directly (see Backend.predictor)."""
    if not (_plain(x, plan.dtype, plan.x_shape) and _plain(out, plan.dtype, plan.output_shape)):
        return False
    if len(x) != len(out) or not out.flags.writeable or np.may_share_memory(x, out):
        return False
    largest = float(np.finfo(plan.dtype).max)
    return arrays.lies_within(x, -largest, largest)


def _plain(array: Any, dtype: np.dtype[Any], row: tuple[int, ...]) -> bool:
    """Whether this is an aligned contiguous array of rows of this shape."""
    return (
        type(array) is np.ndarray
        and array.dtype == dtype
        and array.shape[1:] == row
        and array.flags.c_contiguous
        and array.flags.aligned
    )
