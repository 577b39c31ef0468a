"""The nodes of each op that is no formula, and of the formulas that ONNX has an operator for."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fastnet.errors import UsageError
from fastnet.layers.class_tree import ABOVE, CHILDREN, FIRST_ROW, PLACE
from fastnet.layers.piecewise import features_of, groups, limits
from fastnet.layers.rectifiers import SELU_ALPHA, SELU_SCALE
from fastnet.onnx.nodes import Nodes
from fastnet.onnx.schema import NUMBER_OF
from fastnet.op import Array

INT64 = NUMBER_OF["int64"]


class Operands:
    """The arguments of a node of fastnet's graph while it is written.

    `o["x"]` is the name of an input or parameter in the ONNX graph, `o.array("w")` the value of a
    parameter, None where it is absent; `o.numbers` and `o.sizes` are the op's.
    """

    def __init__(
        self,
        nodes: Nodes,
        names: dict[str, str],
        arrays: dict[str, Array | None],
        wishes: dict[str, str],
        numbers: dict[str, float],
        sizes: dict[str, int],
    ) -> None:
        self.nodes, self.names, self._arrays, self.wishes = nodes, names, arrays, wishes
        self.numbers, self.sizes = numbers, sizes
        self.add = nodes.add

    def array(self, name: str) -> Any:
        """The value of a parameter."""
        return self._arrays[name]

    def constant(self, name: str, array: Array | None = None) -> str:
        """The name of a parameter's value, or of what was made of it."""
        return self.nodes.constant(self.array(name) if array is None else array, self.wishes[name])

    def __getitem__(self, name: str) -> str:
        return self.names[name] if name in self.names else self.constant(name)


Writer = Callable[[Operands], str]


def _linear(o: Operands) -> str:
    return _product(o, np.asarray(o.array("w")).T)


def _transposed_linear(o: Operands) -> str:
    return _product(o, o.array("w"))


def _product(o: Operands, w: Array) -> str:
    """x·wᵀ + b; the weights have PyTorch's shape (outputs, inputs)."""
    given = [o["x"], o.constant("w", w)]
    if o.array("b") is not None:
        given.append(o["b"])
    return o.add("Gemm", *given, transB=1)


def _scale(o: Operands) -> str:
    return o.add("Mul", o["x"], o["w"])


def _shift(o: Operands) -> str:
    return o.add("Add", o["x"], o["b"])


def _affine(o: Operands) -> str:
    return o.add("Add", _scale(o), o["b"])


def _batchnorm(o: Operands) -> str:
    width, eps = o.sizes["N"], o.numbers["eps"]
    gamma, beta = o.array("gamma"), o.array("beta")
    if o.nodes.dtype == np.float32:  # the attribute epsilon is a float32
        ends = [
            o.nodes.constant(np.ones(width)) if gamma is None else o["gamma"],
            o.nodes.constant(np.zeros(width)) if beta is None else o["beta"],
        ]
        statistics = o["running_mean"], o["running_var"]
        return o.add("BatchNormalization", o["x"], *ends, *statistics, epsilon=eps)
    rstd = o.nodes.constant(1 / np.sqrt(o.array("running_var") + eps))
    y = o.add("Mul", o.add("Sub", o["x"], o["running_mean"]), rstd)
    return y if gamma is None else o.add("Add", o.add("Mul", y, o["gamma"]), o["beta"])


def _of_rows(o: Operands) -> str:
    raise UsageError(
        "has no running statistics: its output depends on the rows that come together; take "
        "track_running_stats=True"
    )


def _layernorm(o: Operands) -> str:
    gamma, beta, eps = o.array("gamma"), o.array("beta"), o.numbers["eps"]
    if o.nodes.dtype == np.float32:  # the attribute epsilon is a float32
        scale = o.nodes.constant(np.ones(o.sizes["N"])) if gamma is None else o["gamma"]
        ends = [] if beta is None else [o["beta"]]
        return o.add("LayerNormalization", o["x"], scale, *ends, axis=-1, epsilon=eps)
    centred = o.add("Sub", o["x"], o.nodes.reduce("ReduceMean", o["x"], 1, keepdims=True))
    y = o.add("Div", centred, _root_mean_square(o, centred, eps))
    y = y if gamma is None else o.add("Mul", y, o["gamma"])
    return y if beta is None else o.add("Add", y, o["beta"])


def _rmsnorm(o: Operands) -> str:
    eps = o.numbers["eps"] or float(np.finfo(o.nodes.dtype).eps)
    y = o.add("Div", o["x"], _root_mean_square(o, o["x"], eps))
    return y if o.array("gamma") is None else o.add("Mul", y, o["gamma"])


def _root_mean_square(o: Operands, x: str, eps: float) -> str:
    """√(mean(x²) + eps) of each row."""
    mean = o.nodes.reduce("ReduceMean", o.add("Mul", x, x), 1, keepdims=True)
    return o.add("Sqrt", o.add("Add", mean, o.nodes.constant(eps)))


def _softmax(o: Operands) -> str:
    return o.add("Softmax", o["x"], axis=-1)


def _log_softmax(o: Operands) -> str:
    return o.add("LogSoftmax", o["x"], axis=-1)


def _concat(o: Operands) -> str:
    return o.add("Concat", o["a"], o["b"], axis=1)


def _take_columns(o: Operands) -> str:
    return o.nodes.columns(o["x"], o.array("places"))


def _embedding(o: Operands) -> str:
    """The rows of codes; NaN, or the row of unknown codes, where a number is no code."""
    place, width = int(o.numbers["place"]), o.sizes["N"]
    unknown = o.numbers["unknown"] >= 1
    count = float(o.sizes["V"] - unknown)
    code = o.add("Gather", o["x"], o.nodes.constant(np.int64(place)), axis=1)
    within = o.add(
        "And",
        o.add("GreaterOrEqual", code, o.nodes.constant(0.0)),
        o.add("Less", code, o.nodes.constant(count)),
    )
    good = o.add("And", within, o.add("Equal", code, o.add("Floor", code)))
    other = o.nodes.constant(count if unknown else 0.0)
    chosen = o.nodes.cast(o.add("Where", good, code, other), INT64)
    rows = o.add("Gather", o["w"], chosen, axis=0)
    if not unknown:
        column = o.add("Unsqueeze", good, o.nodes.integers(1))
        rows = o.add("Where", column, rows, o.nodes.constant(math.nan))
    if width == 1:
        return rows
    others = o.nodes.columns(o["x"], np.delete(np.arange(width), place))
    return o.add("Concat", others, rows, axis=1)


def _one_hot(o: Operands) -> str:
    source, values = o.array("source"), o.array("v")
    last = np.append(source[1:] != source[:-1], True)  # the slots of unknown categories
    slots, unknown = np.flatnonzero((source >= 0) & ~last), np.flatnonzero((source >= 0) & last)
    copied, parts = np.flatnonzero(source < 0), []
    compared = o.nodes.columns(o["x"], source[slots])
    equal = o.add("Equal", compared, o.nodes.constant(values[slots]))
    known = o.nodes.cast(equal, NUMBER_OF[o.nodes.dtype.name])
    groups = (source[slots][:, None] == source[unknown]).astype(np.float64)
    found = o.add("MatMul", known, o.nodes.constant(groups))
    parts = [known, o.add("Sub", o.nodes.constant(1.0), found)]
    if len(copied):
        parts.append(o.nodes.columns(o["x"], -1 - source[copied]))
    order = np.argsort(np.concatenate([slots, unknown, copied]), kind="stable")
    return o.nodes.columns(o.add("Concat", *parts, axis=1), order)


def _interpolate(o: Operands) -> str:
    """The number of knots at or below x tells the segment."""
    add, nodes, x, width, count = o.add, o.nodes, o["x"], o.sizes["N"], o.sizes["K"]
    one, knots = nodes.constant(np.int64(1)), o["k"]
    column = add("Unsqueeze", x, nodes.integers(2))
    below = nodes.cast(add("GreaterOrEqual", column, knots), INT64)
    number = nodes.reduce("ReduceSum", below, 2)
    inside = add(
        "And",
        add("Greater", number, nodes.constant(np.int64(0))),
        add("Less", number, nodes.constant(np.int64(count))),
    )
    first = add("Max", add("Sub", number, one), nodes.constant(np.int64(0)))
    at = add("Add", first, nodes.constant(np.arange(width) * count))
    after = add("Add", at, nodes.cast(inside, INT64))
    flat = {n: nodes.constant(np.reshape(o.array(n), -1)) for n in "kv"}
    k, v = (add("Gather", flat[n], at, axis=0) for n in "kv")
    k_after, v_after = (add("Gather", flat[n], after, axis=0) for n in "kv")
    divisor = add("Where", inside, add("Sub", k_after, k), nodes.constant(1.0))
    share = add("Div", add("Sub", x, k), divisor)
    between = add("Add", v, add("Mul", share, add("Sub", v_after, v)))
    found = add("Where", inside, between, v)
    return add("Where", add("Equal", x, x), found, x)


def _rescale(o: Operands) -> str:
    y = o.add("Sub", o.add("Sub", o["x"], o["c"]), o["r"])
    y = y if o.array("f") is None else o.add("Mul", y, o["f"])
    offset = o.numbers["offset"]
    return y if offset == 0 else o.add("Add", y, o.nodes.constant(offset))


def _prelu(o: Operands) -> str:
    return o.add("PRelu", o["x"], o["a"])  # one slope, or one for each column


def _gaussian_basis(o: Operands) -> str:
    sigma, more = np.asarray(o.array("sigma"), np.float64), o.sizes["M"] - o.sizes["J"]
    column = o.add("Unsqueeze", o["x"], o.nodes.integers(2))
    difference = o.add("Sub", column, o["mu"])
    distance = o.nodes.reduce("ReduceSum", o.add("Mul", difference, difference), 1)
    y = o.add("Exp", o.add("Mul", distance, o.nodes.constant(-0.5 / (sigma * sigma))))
    if not more:
        return y
    return o.add("Pad", y, o.nodes.integers(0, 0, 0, more), o.nodes.constant(1.0))


def _glu(o: Operands) -> str:
    a, b = _halves(o)
    return o.add("Mul", a, o.add("Sigmoid", b))


def _swiglu(o: Operands) -> str:
    a, b = _halves(o)
    return o.add("Mul", o.add("Mul", a, o.add("Sigmoid", a)), b)


def _halves(o: Operands) -> tuple[str, str]:
    half = o.sizes["H"]
    return o.nodes.slice(o["x"], 0, half), o.nodes.slice(o["x"], half, 2 * half)


def _blend(o: Operands) -> str:
    return o.add("Add", o["x"], o.add("Mul", o["a"], o.add("Sub", o["f"], o["x"])))


def _spread(o: Operands) -> str:
    row = o.add("Unsqueeze", o["x"], o.nodes.integers(1))
    return o.add("Mul", row, o.nodes.constant(np.full((o.sizes["N"], 1), o.numbers["factor"])))


def _sum_members(o: Operands) -> str:
    total = o.nodes.reduce("ReduceSum", o["x"], 1)
    return o.add("Mul", total, o.nodes.constant(o.numbers["factor"]))


def _log_mean_exp(o: Operands) -> str:
    most = o.nodes.reduce("ReduceMax", o["x"], 1, keepdims=True)
    none = o.add("Equal", most, o.nodes.constant(-math.inf))
    top = o.add("Where", none, o.nodes.constant(0.0), most)
    powers = o.add("Exp", o.add("Sub", o["x"], top))
    total = o.nodes.reduce("ReduceSum", powers, 1)
    mean = o.add("Div", total, o.nodes.constant(float(o.sizes["N"])))
    return o.add("Add", o.nodes.reshape(top, o.sizes["I"]), o.add("Log", mean))


def _linear_ensemble(o: Operands) -> str:
    count, into, out = o.sizes["N"], o.sizes["I"], o.sizes["O"]
    members = o.add("Transpose", o.nodes.reshape(o["x"], count, into), perm=[1, 0, 2])
    y = o.add("MatMul", members, o["w"])
    if o.array("b") is not None:
        y = o.add("Add", y, o.constant("b", o.array("b")[:, None]))
    return o.nodes.reshape(o.add("Transpose", y, perm=[1, 0, 2]), out)


def _angles(o: Operands) -> str:
    inputs, waves, total = o.sizes["I"], o.sizes["K"], o.sizes["M"]
    turns = o.add("Mul", o.add("Unsqueeze", o["x"], o.nodes.integers(2)), o["w"])
    part = o.add("Sub", turns, o.add("Round", turns))
    angle = o.add("Mul", part, o.nodes.constant(2 * math.pi))
    each = o.add("Unsqueeze", angle, o.nodes.integers(2))
    phases = np.reshape(o.array("p"), (inputs, total // (inputs * waves), waves))
    return o.nodes.reshape(o.add("Add", each, o.constant("p", phases)), total)


def _piecewise(o: Operands) -> str:
    ends, count = o.array("ends"), o.sizes["M"]
    low, high = limits(np.asarray(ends, np.float64), count)
    value = o.nodes.columns(o["x"], features_of(ends, count))
    place = o.add("Mul", o.add("Sub", value, o["edge"]), o["scale"])
    return o.add("Min", o.add("Max", place, o.nodes.constant(low)), o.nodes.constant(high))


def _grouped_linear(o: Operands) -> str:
    """A product of matrices for each group; narrower groups are filled up by weights 0."""
    spans, width = groups(np.asarray(o.array("ends"))), o.sizes["E"]
    most = max(end - begin for begin, end in spans)
    places = np.zeros((len(spans), most), np.int64)
    weights = np.zeros((len(spans), most, width))
    for i, (begin, end) in enumerate(spans):
        places[i, : end - begin] = np.arange(begin, end)
        weights[i, : end - begin] = o.array("w")[begin:end]
    x = o.nodes.reshape(o.nodes.columns(o["x"], places.reshape(-1)), len(spans), most)
    y = o.add("MatMul", o.add("Transpose", x, perm=[1, 0, 2]), o.constant("w", weights))
    rows = o.nodes.reshape(o.add("Transpose", y, perm=[1, 0, 2]), len(spans) * width)
    return o.add("Add", rows, o["b"])


def _tree_log_softmax(o: Operands) -> str:
    """A log-softmax of each decision's logits, and for each class the sum over its path."""
    nodes, classes, logits = o.array("nodes"), o.sizes["C"], o.sizes["R"]
    inner = nodes[classes:]
    most = int(inner[:, CHILDREN].max())
    zero, never = logits, logits + 1  # further columns, of logits 0 and −∞
    table = np.full((len(inner), most), never)
    for i, node in enumerate(inner):
        first, count = int(node[FIRST_ROW]), int(node[CHILDREN])
        table[i, :count] = [first, zero] if count == 2 else range(first, first + count)
    paths = [_path(nodes, leaf, classes, most) for leaf in range(classes)]
    longest, nothing = max(map(len, paths)), len(inner) * most
    steps = np.array([path + [nothing] * (longest - len(path)) for path in paths])
    z = o["z"]
    for value in (0.0, -math.inf):
        z = o.add("Pad", z, o.nodes.integers(0, 0, 0, 1), o.nodes.constant(value))
    chosen = o.nodes.columns(z, table)
    logs = o.nodes.reshape(o.add("LogSoftmax", chosen, axis=-1), nothing)
    logs = o.add("Pad", logs, o.nodes.integers(0, 0, 0, 1), o.nodes.constant(0.0))
    return o.nodes.reduce("ReduceSum", o.nodes.columns(logs, steps), 2)


def _path(nodes: Array, leaf: int, classes: int, most: int) -> list[int]:
    """The outcomes of decisions that lead to a class, in a table of `most` for each."""
    found, node = [], leaf
    while nodes[node, ABOVE] >= 0:
        above = int(nodes[node, ABOVE])
        found.append((above - classes) * most + int(nodes[node, PLACE]))
        node = above
    return found


TABLE: dict[str, Writer] = {
    "affine": _affine,
    "angles": _angles,
    "batchnorm": _of_rows,
    "batchnorm_inference": _batchnorm,
    "blend": _blend,
    "concat": _concat,
    "embedding": _embedding,
    "gaussian_basis": _gaussian_basis,
    "glu": _glu,
    "grouped_linear": _grouped_linear,
    "interpolate": _interpolate,
    "layernorm": _layernorm,
    "linear": _linear,
    "linear_ensemble": _linear_ensemble,
    "log_mean_exp": _log_mean_exp,
    "log_softmax": _log_softmax,
    "one_hot": _one_hot,
    "piecewise": _piecewise,
    "prelu": _prelu,
    "rescale": _rescale,
    "rmsnorm": _rmsnorm,
    "scale": _scale,
    "shift": _shift,
    "softmax": _softmax,
    "spread": _spread,
    "sum_members": _sum_members,
    "swiglu": _swiglu,
    "take_columns": _take_columns,
    "transposed_linear": _transposed_linear,
    "tree_log_softmax": _tree_log_softmax,
}


def _clip(o: Operands) -> str:
    ends = (o.nodes.constant(o.numbers[name]) for name in ("min_val", "max_val"))
    return o.add("Clip", o["x"], *ends)


# Formulas that have an operator of their own, which other programs know and may fuse.
NATIVE: dict[str, Writer] = {
    "hardtanh": _clip,
    "relu": lambda o: o.add("Relu", o["x"]),
    "sigmoid": lambda o: o.add("Sigmoid", o["x"]),
    "tanh": lambda o: o.add("Tanh", o["x"]),
}
# Those whose operator has attributes in float32, or is missing for float64 in onnxruntime.
NATIVE_32: dict[str, Writer] = {
    "elu": lambda o: o.add("Elu", o["x"], alpha=o.numbers["alpha"]),
    "hardsigmoid": lambda o: o.add("HardSigmoid", o["x"], alpha=1 / 6, beta=0.5),
    "hardswish": lambda o: o.add("HardSwish", o["x"]),
    "leaky_relu": lambda o: o.add("LeakyRelu", o["x"], alpha=o.numbers["negative_slope"]),
    "selu": lambda o: o.add("Selu", o["x"], alpha=SELU_ALPHA, gamma=SELU_SCALE),
    "softsign": lambda o: o.add("Softsign", o["x"]),
}


def native(name: str, dtype: Any) -> Writer | None:
    """How a formula's operator is written for a dtype; None: it is written as arithmetic."""
    return NATIVE.get(name) or (NATIVE_32.get(name) if dtype == np.float32 else None)
