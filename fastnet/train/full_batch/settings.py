"""The checked options of a full-batch fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Callback = Callable[[dict[str, Any]], Any]


@dataclass(frozen=True, eq=False, repr=False)
class Settings:
    """The checked options of a fit, without the data.

    method: its entry in `methods.TABLE`.
    """

    method: Any
    max_iter: int
    tol: float
    weight_decay: float
    decay_biases_and_norms: bool
    batch_size: int | None
    respect_modes: bool
    options: dict[str, Any]
    callback: Callback | None
