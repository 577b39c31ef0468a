"""The learned optimizer: a small LSTM, the same for every parameter, makes the step from the gradient."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from fastnet.data.arrays import numbers
from fastnet.errors import DataError, HyperparameterError, shown
from fastnet.files import tensors
from fastnet.formulas.language import sigmoid
from fastnet.op import Array, Op
from fastnet.optim.numbers import Number
from fastnet.optim.optimizer import Optimizer, OptimizerState
from fastnet.optim.rules import Rule

KIND = "learned optimizer"  # of the files of weights
SHIPPED = Path(__file__).with_name("learned.safetensors")
GATES = 4  # input, forget, cell, output: PyTorch's order
MOST_UNITS, MOST_LAYERS = 64, 8  # for which compiled kernels have local memory
P = 10.0  # gradients below e^−P count as small
SMALL, LARGE = float(np.exp(-P)), float(np.exp(P))
FEATURES = 2  # of a gradient

Weights = dict[str, tuple[Any, ...]]  # by name, as nested tuples


def count_of(layers: int, units: int) -> int:
    """The number of weights of a net, with one bias for each gate."""
    first, other = 1 + FEATURES + units, 1 + 2 * units
    return GATES * units * (first + (layers - 1) * other) + units + 1


def features(g: Array) -> Array:
    """(2, N): of gradients with |g| ≥ e^−p, log(|g|)/p and the sign; of smaller ones, −1 and e^p·g."""
    size = np.abs(g)
    large = size >= SMALL
    logarithm = np.log(np.maximum(size, SMALL)) / P
    return np.stack([np.where(large, logarithm, -1.0), np.where(large, np.sign(g), LARGE * g)])


class learned(Rule):
    """d = g + weight_decay·w; the LSTM's step of features(d) from h and c; w ← shrink·w + lr·output.

    `weights` has for each layer and unit of it a table with four columns, one for each gate: a row of
    biases, a row for each input, and a row for each unit of h. The output's weights and its bias follow.
    """

    state: ClassVar = {"w": "N", "h": "L H N", "c": "L H N"}
    inputs: ClassVar = {"g": "N", "weights": "K"}
    dims = ("N", "L", "H", "K")
    hyper = ("lr", "weight_decay", "shrink")

    @staticmethod
    def update(
        w: Array,
        h: Array,
        c: Array,
        g: Array,
        weights: Array,
        lr: float,
        weight_decay: float,
        shrink: float,
    ) -> None:
        """L layers of H units for each of N parameters."""
        (layers, units, _), begin = h.shape, 0
        x = features(g + weight_decay * w)
        for layer in range(layers):
            rows = len(x) + units
            end = begin + GATES * units * (1 + rows)
            table = weights[begin:end].reshape(units, 1 + rows, GATES).transpose(2, 0, 1)
            sums = table[..., 1:].reshape(-1, rows) @ np.concatenate([x, h[layer]])
            i, f, cell, o = sums.reshape(GATES, units, -1) + table[..., :1]
            c[layer] = sigmoid(f) * c[layer] + sigmoid(i) * np.tanh(cell)
            h[layer] = sigmoid(o) * np.tanh(c[layer])
            x, begin = h[layer], end
        w[...] = shrink * w + lr * (weights[begin:-1] @ x + weights[-1])

    @classmethod
    def fitted(cls, sizes: dict[str, int]) -> dict[str, int]:
        """K weights of a net of L layers with H units."""
        return {**sizes, "K": count_of(sizes["L"], sizes["H"])}


class LearnedOptimizer(Optimizer):
    """A learned optimizer: w ← w + lr·m(features(d), state), where m is an LSTM that training has made.

    d = g + weight_decay·w. The features of a gradient are log(|d|)/p and its sign, or −1 and e^p·d where
    |d| < e^−p, with p = 10. Each parameter, which is a single number here, has LSTM states of its own; the
    weights of the LSTM are the same for all. After the last layer comes a linear unit.

    The shipped weights are for 100 steps or so on problems like those that they were trained on. See
    docs/learned.md for what these are, for how to train others, and for where the optimizer fails. A step
    costs much more than one of Adam, and memory for 2·layers·units numbers for each parameter.

    weights: None (default) for the shipped ones, the path of a safetensors file, or a mapping of arrays, by
        PyTorch's names for a module with `lstm = LSTM(2, units, layers)` and `output = Linear(units, 1)`:
        "lstm.weight_ih_l0" (4·units, 2), "lstm.weight_hh_l0" (4·units, units), "lstm.bias_ih_l0" and
        "lstm.bias_hh_l0" (4·units), the same with l1 … for further layers, whose weight_ih is
        (4·units, units), "output.weight" (1, units) and "output.bias" (1). bias_hh may be missing. At most
        64 units and 8 layers. Kept as numbers, also those of a file. Weights that are assigned between
        steps begin with h = c = 0. Groups have no weights of their own.
    lr: number ≥ 0 (default 0.1), the factor of the output. The shipped weights were trained with 0.1.
    weight_decay: number ≥ 0 (default 0).

    Raises HyperparameterError where weights are missing, have other shapes or are not finite; FileError
    for a file that is damaged or no safetensors file; OSError where it cannot be read.
    Source: M. Andrychowicz et al., "Learning to learn by gradient descent by gradient descent", NeurIPS
    2016, arXiv:1606.04474; the factor of the output is not in it.
    """

    _ranges: ClassVar = {"lr": {"low": 0.0}, "weight_decay": {"low": 0.0}}
    _not_in_groups = ("weights",)
    _net: tuple[int, int, Array]  # layers, units, and the weights as the op takes them

    def __new__(cls, *given: Any, **named: Any) -> Self:
        """Take a mapping of names first, which the base would refuse as PyTorch's parameters."""
        if given and isinstance(given[0], Mapping) and all(isinstance(n, str) for n in given[0]):
            given = (None, *given[1:])
        return super().__new__(cls, *given, **named)

    def __init__(
        self,
        weights: str | os.PathLike[str] | Mapping[str, Any] | None = None,
        lr: Number = 0.1,
        weight_decay: Number = 0.0,
        **shared: Any,
    ) -> None:
        self.weights: Weights | None = weights  # type: ignore[assignment]  # __setattr__ makes these
        self.lr, self.weight_decay = lr, weight_decay
        super().__init__(**shared)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "weights":
            value, net = (None, _shipped()) if value is None else _taken(value)
            super().__setattr__("_net", net)
        super().__setattr__(name, value)

    @property
    def op(self) -> type[Op]:
        """`learned`."""
        return learned

    def sizes(self) -> dict[str, int]:
        """Layers, units and number of weights of the LSTM."""
        layers, units, packed = self._net
        return {"L": layers, "H": units, "K": len(packed)}

    def constants(self) -> dict[str, Array]:
        """The weights."""
        return {"weights": self._net[2]}

    def _continues(self, old: OptimizerState) -> bool:
        return bool(old.options["weights"] == self.weights)

    def _carried(self, old: OptimizerState, new: OptimizerState, model: Any) -> dict[str, Array]:
        """The vectors, but those of other weights."""
        own = {"h", "c"} if not self._continues(old) else set()
        return {name: v for name, v in old.vectors.items() if name not in own}

    def _columns(self, at: Any, t: Array) -> dict[str, Any]:
        return {}


@cache
def _shipped() -> tuple[int, int, Array]:
    return _taken(SHIPPED)[1]


def _taken(given: Any) -> tuple[Weights, tuple[int, int, Array]]:
    """The weights of a path or mapping as nested tuples, and what `_packed` makes of them."""
    what = "weights"
    if isinstance(given, (str, os.PathLike)):
        contents = tensors.read(given)
        if contents.description is not None:
            contents.described(KIND)
        what, given = f"weights in {contents.path}", contents.tensors
    if not isinstance(given, Mapping):
        raise HyperparameterError(
            f"weights is {shown(given)}; expected None, the path of a safetensors file or a mapping of "
            "names to arrays"
        )
    found = _checked(what, given)
    return {name: _tuples(array.tolist()) for name, array in found.items()}, _packed(found)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _checked(what: str, given: Mapping[str, Any]) -> dict[str, Array]:
    """The weights in float64, or HyperparameterError."""
    first, layers = "lstm.weight_hh_l0", 1
    while f"lstm.weight_hh_l{layers}" in given:
        layers += 1
    if first not in given:
        raise HyperparameterError(f"{what} has no {first!r}; it has {shown([*given])}")
    units = np.shape(_numbers(what, first, given[first]))[-1:]
    if units == () or not (1 <= units[0] <= MOST_UNITS and layers <= MOST_LAYERS):
        raise HyperparameterError(
            f"{what} is an LSTM of {layers} layers, whose {first!r} has shape "
            f"{np.shape(given[first])}; expected at most {MOST_LAYERS} layers of 1 to {MOST_UNITS} units"
        )
    shapes = _shapes(layers, units[0])
    if unknown := [name for name in given if name not in shapes]:
        raise HyperparameterError(f"{what} has {shown(unknown[0])}; expected {', '.join(shapes)}")
    found = {}
    for name, shape in shapes.items():
        if name not in given:
            if "bias_hh" in name:
                continue
            raise HyperparameterError(f"{what} has no {name!r}, of shape {shape}")
        array = _numbers(what, name, given[name])
        if array.shape != shape:
            raise HyperparameterError(
                f"{what}: {name!r} has shape {array.shape}; expected {shape}, as {first!r} has shape "
                f"{np.shape(given[first])}"
            )
        found[name] = array.astype(np.float64)
        if not (np.abs(found[name]) <= np.finfo(np.float32).max).all():
            raise HyperparameterError(
                f"{what}: {name!r} holds NaN, infinity or a number that float32 has not; expected finite "
                "numbers"
            )
    return found


def _numbers(what: str, name: str, value: Any) -> Array:
    try:
        return numbers(f"{what}: {name!r}", value)
    except DataError as error:
        raise HyperparameterError(str(error)) from None


def _shapes(layers: int, units: int) -> dict[str, tuple[int, ...]]:
    """The shapes of all weights by name."""
    found: dict[str, tuple[int, ...]] = {}
    for layer in range(layers):
        found[f"lstm.weight_ih_l{layer}"] = GATES * units, units if layer else FEATURES
        found[f"lstm.weight_hh_l{layer}"] = GATES * units, units
        found |= {f"lstm.bias_{of}_l{layer}": (GATES * units,) for of in ("ih", "hh")}
    return {**found, "output.weight": (1, units), "output.bias": (1,)}


def _packed(given: Mapping[str, Array]) -> tuple[int, int, Array]:
    """Layers, units, and the weights as the op takes them, in float64."""
    units, parts, layer = given["output.weight"].size, [], 0
    while f"lstm.weight_hh_l{layer}" in given:
        bias = given[f"lstm.bias_ih_l{layer}"] + given.get(f"lstm.bias_hh_l{layer}", 0.0)
        rows = [bias, given[f"lstm.weight_ih_l{layer}"], given[f"lstm.weight_hh_l{layer}"]]
        table = np.concatenate([one.reshape(GATES, units, -1) for one in rows], axis=2)
        parts.append(table.transpose(1, 2, 0).ravel())
        layer += 1
    packed = np.concatenate([*parts, given["output.weight"].ravel(), given["output.bias"]])
    return layer, units, packed
