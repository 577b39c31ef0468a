"""Layers of fastnet for the operators of ONNX."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fastnet import layers as fl
from fastnet.errors import FastnetError
from fastnet.interop.values import layer_of, vector
from fastnet.layers.base import Layer
from fastnet.onnx.folding import axes_of
from fastnet.onnx.reading import ML, Node
from fastnet.op import Array

Shape = tuple[int | None, ...] | None  # of a row; None: it is not known yet
SELU = 1.67326319217681884765625, 1.05070102214813232421875  # alpha and gamma by default


def shortest(value: float) -> float:
    """An attribute as it was before it was rounded to float32, such as 1e-5: the shortest such number."""
    return float(str(np.float32(value)))


class Unsupported(Exception):
    """A node has no layers; the message says why, or is empty where its operator is unknown."""


class Reader:
    """One node, with what its layers are made of.

    row: the shape of a row of its only input that is no constant. spend: told how many numbers are made
    that the file does not have.
    """

    def __init__(
        self,
        node: Node,
        constants: dict[str, Array],
        row: Shape,
        dtype: Any,
        spend: Callable[[int], None],
    ) -> None:
        self.node, self.constants, self.row, self.dtype = node, constants, row, dtype
        self.spend = spend

    @property
    def width(self) -> int:
        """The number of columns of the input, which must be known."""
        if self.row is None or len(self.row) != 1 or self.row[0] is None:
            raise Unsupported("the width of its input is not known, or it has more dimensions")
        self.spend(self.row[0])
        return self.row[0]

    def constant(self, place: int) -> Array | None:
        """The constant that is an input; None: there is none at this place."""
        name = self.node.inputs[place] if place < len(self.node.inputs) else ""
        if not name:
            return None
        if name not in self.constants:
            raise Unsupported(f"its input {place} is no constant")
        return self.constants[name]

    def needed(self, place: int) -> Array:
        """The same, where it must be there."""
        found = self.constant(place)
        if found is None:
            raise Unsupported(f"its input {place} is missing")
        return found

    def number(self, place: int, name: str, default: float | None = None) -> float | None:
        """A number, an input or in older versions an attribute."""
        if place < len(self.node.inputs):
            found = self.constant(place)
            if found is not None and found.size != 1:
                raise Unsupported(f"its input {place} has shape {found.shape}")
            return default if found is None else float(found.reshape(-1)[0])
        given = self.attribute(name, default)
        return None if given is None else float(given)

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute's value."""
        found = self.node.attributes.get(name)
        return default if found is None else found

    @property
    def eps(self) -> float:
        """The attribute epsilon."""
        return shortest(self.attribute("epsilon", 1e-5))

    def make(self, kind: Any, *arguments: Any, values: Any = None, **config: Any) -> Layer:
        """A layer with these values."""
        return layer_of(kind, *arguments, values=values or {}, dtype=self.dtype, **config)  # type: ignore[no-any-return]

    def scaled(self, factor: Any) -> Layer:
        """x·factor, a frozen Scale."""
        width = self.width
        values = {"weight": vector(np.asarray(factor), width)}
        return self.make(fl.Scale, width, values=values).freeze()

    def shifted(self, summand: Any) -> Layer:
        """x + summand, a frozen Bias."""
        width = self.width
        values = {"bias": vector(np.asarray(summand), width)}
        return self.make(fl.Bias, width, values=values).freeze()


def linear(r: Reader, weight: Array, bias: Array | None) -> Layer:
    """x·weightᵀ + bias, weight (outputs, inputs)."""
    if weight.ndim != 2 or 0 in weight.shape:
        raise Unsupported(f"its weights have shape {weight.shape}")
    out, into = weight.shape
    values = {"weight": weight}
    if bias is not None:
        values["bias"] = vector(bias, out)
    return r.make(fl.Linear, into, out, bias is not None, values=values)


def _gemm(r: Reader) -> list[Layer]:
    if r.attribute("transA", 0):
        raise Unsupported("it has transA = 1 for rows")
    weight, bias = r.needed(1), r.constant(2)
    alpha, beta = r.attribute("alpha", 1.0), r.attribute("beta", 1.0)
    weight = weight if r.attribute("transB", 0) else weight.T
    weight = weight if alpha == 1 else weight * weight.dtype.type(alpha)
    if bias is not None and beta != 1:
        bias = bias * bias.dtype.type(beta)
    return [linear(r, weight, bias)]


def _matmul(r: Reader) -> list[Layer]:
    return [linear(r, r.needed(1).T, None)]


def _add(r: Reader) -> list[Layer]:
    return [r.shifted(_other(r))]


def _sub(r: Reader) -> list[Layer]:
    if _first_is_constant(r):
        return [r.scaled(-1.0), r.shifted(r.needed(0))]
    return [r.shifted(-r.needed(1))]


def _mul(r: Reader) -> list[Layer]:
    return [r.scaled(_other(r))]


def _div(r: Reader) -> list[Layer]:
    if _first_is_constant(r):
        raise Unsupported("it divides a constant by rows")
    with np.errstate(all="ignore"):
        return [r.scaled(1 / r.needed(1))]


def _neg(r: Reader) -> list[Layer]:
    return [r.scaled(-1.0)]


def _first_is_constant(r: Reader) -> bool:
    return r.node.inputs[0] in r.constants


def _other(r: Reader) -> Array:
    """The constant beside rows."""
    return r.needed(0) if _first_is_constant(r) else r.needed(1)


def _batchnorm(r: Reader) -> list[Layer]:
    if r.attribute("training_mode", 0):
        raise Unsupported("it is in training mode: it has the statistics of each batch")
    names = ("weight", "bias", "running_mean", "running_var")
    values = {name: r.needed(i) for i, name in enumerate(names, 1)}
    values["num_batches_tracked"] = np.zeros((), np.int64)
    size = values["weight"].size
    momentum = 1.0 - r.attribute("momentum", 0.9)
    momentum = round(min(max(momentum, 0.0), 1.0), 6)  # as before it was rounded to float32
    return [r.make(fl.BatchNorm1d, size, r.eps, momentum, values=values)]


def _norm(r: Reader, kind: Any, eps: float, weight: Array, **more: Array | None) -> Layer:
    """A LayerNorm or RMSNorm with this factor and bias, each of a column or of all."""
    width = weight.size if weight.size > 1 else r.width
    values = {n: vector(v, width) for n, v in {"weight": weight, **more}.items() if v is not None}
    config = {name: name in values for name in more}
    return r.make(kind, width, eps, values=values, **config)


def _layernorm(r: Reader) -> list[Layer]:
    if r.attribute("axis", -1) not in (-1, 1):
        raise Unsupported(f"it has axis {r.attribute('axis')}")
    return [_norm(r, fl.LayerNorm, r.eps, r.needed(1), bias=r.constant(2))]


def _rmsnorm(r: Reader) -> list[Layer]:
    if r.attribute("axis", -1) not in (-1, 1):
        raise Unsupported(f"it has axis {r.attribute('axis')}")
    return [_norm(r, fl.RMSNorm, r.eps, r.needed(1))]


def _written_layernorm(r: Reader) -> list[Layer]:
    weight, bias, eps = r.attribute("weight"), r.attribute("bias"), shortest(r.attribute("eps"))
    if weight is None:
        return [fl.LayerNorm(r.width, eps, elementwise_affine=False)]
    return [_norm(r, fl.LayerNorm, eps, weight, bias=bias)]


def _written_rmsnorm(r: Reader) -> list[Layer]:
    weight, eps = r.attribute("weight"), shortest(r.attribute("eps"))
    if weight is None:
        return [fl.RMSNorm(r.width, eps, elementwise_affine=False)]
    return [_norm(r, fl.RMSNorm, eps, weight)]


def _of_rows(kind: Any) -> Callable[[Reader], list[Layer]]:
    def read(r: Reader) -> list[Layer]:
        if r.attribute("axis", -1) not in (-1, 1):
            raise Unsupported(f"it has axis {r.attribute('axis')}")
        return [kind()]

    return read


def _clip(r: Reader) -> list[Layer]:
    return _between(r, r.number(1, "min"), r.number(2, "max"))


def _max(r: Reader) -> list[Layer]:
    return _between(r, float(_single(_other(r))), None)


def _min(r: Reader) -> list[Layer]:
    return _between(r, None, float(_single(_other(r))))


def _single(value: Array) -> float:
    if value.size != 1:
        raise Unsupported(f"its constant has shape {value.shape}")
    return float(value.reshape(-1)[0])


def _between(r: Reader, low: float | None, high: float | None) -> list[Layer]:
    """min(max(x, low), high)."""
    low = None if low is None or low <= -3.4e38 else low
    high = None if high is None or high >= 3.4e38 else high
    if low is None and high is None:
        return []
    if low == 0 and high is None:
        return [fl.ReLU()]
    if low is None or high is None:
        raise Unsupported("it has one bound alone, and not 0")
    return [fl.ReLU6()] if (low, high) == (0.0, 6.0) else [fl.Hardtanh(low, high)]


def _elu(r: Reader) -> list[Layer]:
    return [fl.ELU(shortest(r.attribute("alpha", 1.0)))]


def _celu(r: Reader) -> list[Layer]:
    alpha = shortest(r.attribute("alpha", 1.0))
    if alpha == 1:
        return [fl.ELU()]
    return [r.scaled(1 / alpha), fl.ELU(), r.scaled(alpha)]


def _leaky_relu(r: Reader) -> list[Layer]:
    return [fl.LeakyReLU(shortest(r.attribute("alpha", 0.01)))]


def _selu(r: Reader) -> list[Layer]:
    given = r.attribute("alpha", SELU[0]), r.attribute("gamma", SELU[1])
    if any(abs(a - b) > 1e-4 for a, b in zip(given, SELU, strict=True)):
        raise Unsupported(f"it has alpha {given[0]:g} and gamma {given[1]:g}")
    return [fl.SELU()]


def _hardsigmoid(r: Reader) -> list[Layer]:
    alpha, beta = r.attribute("alpha", 0.2), r.attribute("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return [fl.Hardsigmoid()]
    return [r.scaled(alpha), r.shifted(beta), fl.Hardtanh(0.0, 1.0)]


def _prelu(r: Reader) -> list[Layer]:
    slopes = r.needed(1).reshape(-1)
    return [r.make(fl.PReLU, slopes.size, values={"weight": slopes})]


def _gelu(r: Reader) -> list[Layer]:
    return [fl.GELU(r.attribute("approximate", "none"))]


def _swish(r: Reader) -> list[Layer]:
    if r.attribute("alpha", 1.0) != 1:
        raise Unsupported(f"it has alpha {r.attribute('alpha'):g}")
    return [fl.SiLU()]


def _softplus(r: Reader) -> list[Layer]:
    return [fl.Softplus(threshold=r.attribute("threshold", 20.0))]


def _dropout(r: Reader) -> list[Layer]:
    if len(r.node.inputs) > 2 and bool(np.any(r.constant(2))):
        raise Unsupported("it is in training mode")
    ratio = r.number(1, "ratio", 0.5)
    return [fl.Dropout(shortest(ratio if ratio is not None else 0.5))]


def _nothing(r: Reader) -> list[Layer]:
    return []


def _cast(r: Reader) -> list[Layer]:
    if r.attribute("to") not in (1, 10, 11, 16):
        raise Unsupported("it converts to numbers that are not floating-point")
    return []


def _flatten(r: Reader) -> list[Layer]:
    if r.attribute("axis", 1) != 1:
        raise Unsupported(f"it has axis {r.attribute('axis')}")
    return _flat(r)


def _flat(r: Reader) -> list[Layer]:
    return [] if r.row is not None and len(r.row) == 1 else [fl.Flatten()]


def _reshape(r: Reader) -> list[Layer]:
    """Only what leaves rows as they are, or makes vectors of them."""
    wanted = r.needed(1).reshape(-1).tolist()
    if r.row is not None and None not in r.row:
        size = math.prod(d for d in r.row if d is not None)
        if len(wanted) == 2 and wanted[1] in (size, -1):
            return _flat(r)
        if tuple(wanted[1:]) == r.row:
            return []
    raise Unsupported(f"it gives rows the shape {tuple(wanted[1:])}")


def _squeeze(r: Reader) -> list[Layer]:
    given = [None, *(r.constant(i) for i in range(1, len(r.node.inputs)))]
    if r.row is None or axes_of(given, r.node.attributes, len(r.row) + 1) not in ((), None):
        raise Unsupported("it changes the dimensions of rows")
    return []


def _gather(r: Reader) -> list[Layer]:
    places = r.needed(1)
    if r.attribute("axis", 0) not in (1, -1) or places.ndim != 1 or not places.size:
        raise Unsupported("it takes something else than columns of rows")
    if places.min() < 0:
        places = np.where(places < 0, places + r.width, places)
    return [fl.Columns(places.tolist())]


def _slice(r: Reader) -> list[Layer]:
    if len(r.node.inputs) > 1:
        rank = 1 + len(r.row or (0,))
        starts, ends = r.needed(1), r.needed(2)
        axes = axes_of([None, r.constant(3)], {}, rank)
        steps = r.constant(4)
    else:
        starts, ends = (np.ravel(r.attribute(n, [])) for n in ("starts", "ends"))
        axes, steps = axes_of([None], r.node.attributes, 2), None
    if axes not in ((1,), (-1,)) or starts.size != 1 or ends.size != 1:
        raise Unsupported("it takes something else than columns of rows")
    step = 1 if steps is None else int(steps.reshape(-1)[0])
    chosen = range(r.width)[slice(int(starts.reshape(-1)[0]), int(ends.reshape(-1)[0]), step or 1)]
    if not chosen:
        raise Unsupported("it takes no column")
    return [fl.Columns(list(chosen))]


def split(r: Reader, output: str) -> list[Layer]:
    """The columns that an output of a Split has."""
    if r.attribute("axis", 0) not in (1, -1):
        raise Unsupported("it splits something else than the columns of rows")
    count = len(r.node.outputs)
    given = r.constant(1)
    sizes = np.ravel(r.attribute("split", [])) if given is None else given.reshape(-1)
    if not sizes.size:
        most = -(-r.width // count)
        sizes = np.array([min(most, r.width - i * most) for i in range(count)])
    at = r.node.outputs.index(output)
    if len(sizes) != count or sizes.min() < 1 or sizes.sum() != r.width:
        raise Unsupported("its parts do not fit the columns")
    begin = int(sizes[:at].sum())
    return [fl.Columns(list(range(begin, begin + int(sizes[at]))))]


def _scaler(r: Reader) -> list[Layer]:
    """(x − offset)·scale, as skl2onnx writes StandardScaler."""
    offset, scale = (np.array(r.attribute(n, [0.0])) for n in ("offset", "scale"))
    return [r.shifted(-offset), r.scaled(scale)]


def _plain(kind: Any, *arguments: Any) -> Callable[[Reader], list[Layer]]:
    return lambda r: [kind(*arguments)]


TABLE: dict[str, Callable[[Reader], list[Layer]]] = {
    "Add": _add,
    "BatchNormalization": _batchnorm,
    "Cast": _cast,
    "Celu": _celu,
    "Clip": _clip,
    "Div": _div,
    "Dropout": _dropout,
    "Elu": _elu,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "HardSigmoid": _hardsigmoid,
    "HardSwish": _plain(fl.Hardswish),
    "Identity": _nothing,
    "LayerNormalization": _layernorm,
    "LeakyRelu": _leaky_relu,
    "LogSoftmax": _of_rows(fl.LogSoftmax),
    "MatMul": _matmul,
    "Max": _max,
    "Min": _min,
    "Mish": _plain(fl.Mish),
    "Mul": _mul,
    "Neg": _neg,
    "PRelu": _prelu,
    "RMSNormalization": _rmsnorm,
    "Relu": _plain(fl.ReLU),
    "Reshape": _reshape,
    "Selu": _selu,
    "Sigmoid": _plain(fl.Sigmoid),
    "Slice": _slice,
    "Softmax": _of_rows(fl.Softmax),
    "Softplus": _softplus,
    "Softsign": _plain(fl.Softsign),
    "Squeeze": _squeeze,
    "Sub": _sub,
    "Swish": _swish,
    "Tanh": _plain(fl.Tanh),
    f"{ML}.Scaler": _scaler,
    f"{ML}.ZipMap": _nothing,
    "fastnet.GELU": _plain(fl.GELU),
    "fastnet.GELU tanh": _plain(fl.GELU, "tanh"),
    "fastnet.Hardswish": _plain(fl.Hardswish),
    "fastnet.LayerNorm": _written_layernorm,
    "fastnet.LogSigmoid": _plain(fl.LogSigmoid),
    "fastnet.Mish": _plain(fl.Mish),
    "fastnet.RMSNorm": _written_rmsnorm,
    "fastnet.SiLU": _plain(fl.SiLU),
    "fastnet.Softplus": _softplus,
    "fastnet.Softsign": _plain(fl.Softsign),
}
# Operators of several rows at once, and the blocks that they become.
JOINS = {"Add": fl.Add, "Sum": fl.Add, "Sub": fl.Add, "Mul": fl.Multiply, "Concat": fl.Concat}


def layers_of(r: Reader, output: str) -> list[Layer]:
    """The layers of a node with one input that is no constant; Unsupported where there are none."""
    if r.node.op == "Split":
        return split(r, output)
    if r.node.op.startswith("fastnet.layers."):
        return [getattr(fl, r.node.op.rpartition(".")[2])()]
    read = TABLE.get(r.node.op)
    if read is None:
        raise Unsupported("")
    try:
        return read(r)
    except (FastnetError, ValueError, TypeError, IndexError, OverflowError) as error:
        raise Unsupported(str(error)) from None
