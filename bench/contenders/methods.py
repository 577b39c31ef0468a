"""Activations, norms of rows, losses, optimizers: C kernels against PyTorch's, one thread, float32.

Both sides repeat their kernels within one native call: an activation's forward and backward apart, a
loss's together, for 10³ and 10⁶ elements. An optimizer's step on one flat vector is called from
Python on PyTorch's side, which has no other way. `method_peers.py` has PyTorch's kernels.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import fastnet as fn
from fastnet import layers, losses, optim
from fastnet.backends import registry
from fastnet.op import KERNELS, ROWS, Array
from fastnet.parameter import Derived, Parameter
from fastnet.plan.graph import Graph, Node, Tensor
from fastnet.plan.records import (
    ABSENT,
    CONTEXT,
    INSTRUCTION,
    KIND,
    SCRATCH,
    SEGMENT,
    zeros_aligned,
)

DTYPE = "float32"
PAGE = 4096  # every tensor begins with one, so that none has a luckier place than another
SIZES = {"10³": (10, 100), "10⁶": (1000, 1000)}  # rows and features
NAMES = {name: getattr(fn, name) for name in fn.__all__}  # loads them
# What layers, losses and optimizers have beside methods to compare.
OTHERS = {
    "Layer", "Linear", "NTKLinear", "BatchNorm1d", "Dropout", "AlphaDropout", "Scale", "Bias", "Identity",
    "Loss", "FunctionLoss", "Optimizer", "RandomContrast", "RandomFlip", "RandomTranslation",
    "Add", "Concat", "CustomLayer", "Embedding", "Flatten", "GLU", "HierarchicalSoftmax",
    "HierarchicalSoftmaxLoss", "Multiply", "Periodic", "PiecewiseLinear", "RBF", "Residual", "SwiGLU",
    "Columns", "EnsembleLoss", "EnsembleMean", "EnsembleView", "LinearBatchEnsemble", "LinearEnsemble",
    "PBLD", "ParametricActivation",
}  # fmt: skip


def classes(module: Any, base: type) -> dict[str, type]:
    """The methods of a family by name."""
    found = {name: getattr(module, name) for name in module.__all__ if name not in OTHERS}
    return {n: v for n, v in found.items() if isinstance(v, type) and issubclass(v, base)}


FAMILIES = {
    "activations": classes(layers, fn.Layer),
    "losses": classes(losses, fn.Loss),
    "optimizers": classes(optim, fn.Optimizer),
}


def peers(family: str) -> dict[str, Any]:
    """PyTorch's code by fastnet's; nothing where PyTorch is missing."""
    if not importlib.util.find_spec("torch"):
        return {}
    from contenders import method_peers

    found: dict[str, Any] = getattr(method_peers, family.upper())
    return {code: line for code, line in found.items() if code.split("(")[0] in FAMILIES[family]}


def codes(family: str) -> list[str]:
    """Code that makes each method of a family, where it has peers in the forms that they have."""
    known = list(peers(family))
    named = {code.split("(")[0] for code in known}
    return known + [f"{name}()" for name in FAMILIES[family] if name not in named]


class Kernels:
    """The kernels of an activation or a loss, forward, backward or both, any number of times.

    Every tensor has memory of its own: repeating a kernel changes none of its inputs.
    """

    quantum = 1

    def __init__(self, graph: Graph, values: dict[Any, Array], rows: int, phase: str) -> None:
        self.backend, self.rows = registry.get("c"), rows
        self.arrays: dict[Any, tuple[int, Array]] = {}  # what it is → its offset and its values
        self.values, self.bytes = values, 0
        forward = [self._step(node, "forward") for node in graph.nodes]
        backward = [self._step(node, "vjp") for node in reversed(graph.nodes)]
        memory = zeros_aligned(self.bytes)
        for offset, array in self.arrays.values():
            memory[offset : offset + array.nbytes] = array.reshape(-1).view(np.uint8)
        scratch, self.context = zeros_aligned(SCRATCH), np.zeros(1, CONTEXT)
        self.context["segment"][0, 0], self.context["scratch"] = (
            memory.ctypes.data,
            scratch.ctypes.data,
        )
        self.context["rows"], self.context["threads"] = rows, 1
        self.kept = memory, scratch
        whole = np.concatenate(forward + backward)
        self.backend.prepare(whole)
        self.backend.run(whole, self.context)  # so that the backward finds what a forward saves
        self.once = np.concatenate({"forward": forward, "backward": backward}.get(phase, [whole]))
        self.backend.prepare(self.once)
        self.program = self.once

    def _step(self, node: Node, phase: str) -> np.ndarray:
        op, kernel = node.op, node.op.kernels[phase]
        program = np.zeros(1, INSTRUCTION)
        record = program[0]
        record["kernel"], record["dtype"] = list(KERNELS).index(kernel.name), KIND[DTYPE]
        record["stream"], record["segment"] = node.stream, ABSENT
        record["size"][: len(op.dims)] = [node.sizes[dim] for dim in op.dims]
        record["scalar"][: len(op.scalars)] = [float(node.arguments[s]) for s in op.scalars]
        for i, name in enumerate(kernel.tensors):
            own = name in op.tensors
            argument = node.arguments.get(name if own else name[1:])
            if argument is not None:
                record["segment"][i] = 0
                record["offset"][i] = self._place(argument, own)
        return program

    def _place(self, argument: Any, own: bool) -> int:
        key = (argument, own)
        if key not in self.arrays:
            array = self.values.get(argument) if own else None
            if array is None:
                shape = [self.rows if d == ROWS else int(d) for d in argument.shape]
                array = np.random.default_rng(0).normal(size=shape)
            if own and isinstance(argument, Parameter):
                array = argument.value
            if own and isinstance(argument, Derived):  # a loss's numbers for each column
                array = argument.compute()
            dtype = getattr(argument, "dtype", None) or DTYPE
            self.arrays[key] = self.bytes, np.asarray(array, dtype)
            self.bytes += -(-self.arrays[key][1].nbytes // PAGE) * PAGE
        return self.arrays[key][0]

    def run(self, count: int) -> None:
        """`count` times in one call."""
        if len(self.program) != count * len(self.once):
            self.program = np.tile(self.once, count)
        self.backend.run(self.program, self.context)


def activation(code: str, rows: int, width: int, phase: str) -> Kernels:
    """fastnet's side for an activation."""
    layer, graph = eval(code, {**NAMES, "width": width}), Graph()
    layer.forward(np.ones((1, width)))  # draws its parameters
    x = Tensor((ROWS, width))
    layer.emit(graph, x)
    values = np.random.default_rng(0).standard_normal((rows, width), DTYPE)
    return Kernels(graph, {x: values}, rows, phase)


def loss(code: str, rows: int, width: int) -> Kernels:
    """fastnet's side for a loss: value and gradient."""
    made, graph, random = eval(code, {**NAMES}), Graph(), np.random.default_rng(0)
    try:  # labels, where it takes them
        targets = made.target(random.integers(width, size=rows), (width,))
    except fn.FastnetError:
        shape = (rows, *made.target_shape((width,)))
        targets = made.target(random.random(shape, DTYPE), (width,))
    kind = "int64" if targets.dtype == np.int64 else None
    x, t = Tensor((ROWS, width)), Tensor((ROWS, *targets.shape[1:]), kind)
    made.emit(graph, x, t)
    outputs = random.random((rows, width))  # what every loss takes
    return Kernels(graph, {x: outputs, t: targets}, rows, "both")


class Updates:
    """An optimizer's steps on one flat vector, any number of them in one call."""

    quantum = 1

    def __init__(self, code: str, size: int) -> None:
        self.optimizer = eval(code, {**NAMES})
        self.model = fn.Sequential(fn.Linear(size, 1, bias=False), backend="c", seed=0)
        storage, self.backend = self.model.bind(), registry.get("c")
        places = storage.trainable_places()
        storage.flat("grads")[places] = np.random.default_rng(0).standard_normal(size, DTYPE)
        self.state = self.model.optimizer_state(self.optimizer)
        self.hyper = self.state.hyper(3)[2]  # past what is special about the first steps
        scratch, self.context = zeros_aligned(SCRATCH), np.zeros(1, CONTEXT)
        for name in ("params", "grads"):
            self.context["segment"][0, SEGMENT[name]] = storage.segments[name].ctypes.data
        self.context["segment"][0, SEGMENT["state"]] = self.state.rule.segment.ctypes.data
        self.context["hyper"] = self.hyper.ctypes.data
        self.context["hyper_size"] = self.hyper.shape[-1]
        self.context["rows"], self.context["threads"] = 1, 1
        self.context["scratch"] = scratch.ctypes.data
        self.kept = scratch
        self.once = (
            self.state.rule.program.copy()
        )  # the rule's own serves all models that are alike
        self.backend.prepare(self.once)
        self.program = self.once

    def run(self, count: int) -> None:
        """`count` steps in one call."""
        if len(self.program) != count * len(self.once):
            self.program = np.tile(self.once, count)
        self.backend.run(self.program, self.context)


Makers = dict[str, Callable[[], Any]]


def cases(largest: float = math.inf) -> dict[str, tuple[str, Makers]]:
    """For each case its family and who takes part, all sizes up to the largest."""
    found: dict[str, tuple[str, Makers]] = {}
    for size, (rows, width) in SIZES.items():
        if rows * width > largest:
            continue
        for code, lines in _of("activations"):
            for phase, line in zip(("forward", "backward"), lines or (None, None), strict=True):
                ours = partial(activation, code, rows, width, phase)
                found[f"{code} {phase}, {size}"] = "activations", _makers(ours, line, rows, width)
        for code, line in _of("losses"):
            ours = partial(loss, code, rows, width)
            found[f"{code}, {size}"] = "losses", _makers(ours, line, rows, width)
        for code, theirs in _of("optimizers"):
            makers: Makers = {"fastnet": partial(Updates, code, rows * width)}
            if theirs:
                from contenders import method_peers

                makers["PyTorch"] = partial(method_peers.Stepped, theirs, rows * width)
            found[f"{code}, {size}"] = "optimizers", makers
    return found


def _of(family: str) -> list[tuple[str, Any]]:
    known = peers(family)
    return [(code, known.get(code)) for code in codes(family)]


def _makers(ours: Callable[[], Any], line: str | None, rows: int, width: int) -> Makers:
    makers: Makers = {"fastnet": ours}
    if line:
        from contenders import method_peers

        makers["PyTorch"] = lambda: method_peers.Scripted(line, method_peers.tensors(rows, width))
    return makers
