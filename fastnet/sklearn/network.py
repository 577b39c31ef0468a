"""The net of an MLP: a Sequential of Linear layers, with scikit-learn's weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from fastnet.errors import DataError, HyperparameterError, ShapeError, shown
from fastnet.init import Zeros
from fastnet.layers import BatchNorm1d, Dropout, Layer, Linear
from fastnet.model import Sequential
from fastnet.op import Array
from fastnet.sklearn.settings import Settings, activation_layer


def initial(
    units: Sequence[int], activation: Any, dtype: Any, draw: Any
) -> tuple[list[Array], list[Array]]:
    """Weights (in, out) and biases (out,), all U(−b, b) with b² = f/(in + out).

    f is 2 with logistic units and 6 otherwise. draw: a RandomState; weights and biases of a layer follow
    one another.
    """
    factor = 2.0 if activation == "logistic" else 6.0
    coefs, intercepts = [], []
    for fan_in, fan_out in pairwise(units):
        bound = math.sqrt(factor / (fan_in + fan_out))
        coefs.append(draw.uniform(-bound, bound, (fan_in, fan_out)).astype(dtype, copy=False))
        intercepts.append(draw.uniform(-bound, bound, fan_out).astype(dtype, copy=False))
    return coefs, intercepts


class Network:
    """A model of the given widths, and its weights in scikit-learn's shapes."""

    def __init__(
        self,
        units: Sequence[int],
        settings: Settings,
        activation: Any,
        dtype: Any,
        backend: str,
        seed: int,
    ) -> None:
        layers: list[Layer] = []
        self.places: list[int] = []  # of the Linear layers
        for fan_in, fan_out in pairwise(units):
            self.places.append(len(layers))
            layers.append(Linear(fan_in, fan_out, weight_init=Zeros(), bias_init=Zeros()))
            if len(self.places) < len(units) - 1:
                layers += [BatchNorm1d(fan_out)] if settings.batch_norm else []
                layers.append(activation_layer(activation))
                layers += [Dropout(settings.dropout)] if settings.dropout else []
        name = "float32" if np.dtype(dtype) == np.float32 else "float64"
        try:
            self.model = Sequential(*layers, dtype=name, backend=backend, seed=seed)
        except ShapeError as error:
            raise HyperparameterError(
                f"activation is {shown(activation)}; expected a layer that keeps the number of columns "
                f"({error})"
            ) from None
        self.model.bind()

    def arrays(self) -> tuple[list[Array], list[Array]]:
        """The weights (in, out) and biases (out,) where they lie, to be read alone."""
        named = dict(self.model.named_parameters())
        coefs = [named[f"{place}.weight"].T for place in self.places]
        intercepts = [named[f"{place}.bias"] for place in self.places]
        for array in (*coefs, *intercepts):
            array.flags.writeable = False
        return coefs, intercepts

    def load(self, coefs: Sequence[Any], intercepts: Sequence[Any]) -> None:
        """Write weights and biases, or raise and change nothing."""
        count = len(self.places)
        for name, given in (("coefs_", coefs), ("intercepts_", intercepts)):
            if len(given) != count:
                raise DataError(f"{name} has {len(given)} arrays; expected {count}")
        state = {f"{p}.weight": np.asarray(c).T for p, c in zip(self.places, coefs, strict=True)}
        state |= {f"{p}.bias": np.asarray(b) for p, b in zip(self.places, intercepts, strict=True)}
        self.model.load_state_dict(state, strict=False)
