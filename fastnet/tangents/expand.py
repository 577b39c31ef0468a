"""A graph in simpler ops: those without a rule become others that have one, equal within rounding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastnet.layers.activations import sigmoid, silu
from fastnet.layers.batchnorm import batchnorm, batchnorm_inference
from fastnet.layers.columns import take_columns
from fastnet.layers.gated import glu, swiglu
from fastnet.layers.joining import add, multiply
from fastnet.layers.layernorm import layernorm, rmsnorm
from fastnet.layers.ntk_linear import times
from fastnet.layers.parametric import blend
from fastnet.layers.prelu import prelu
from fastnet.layers.rectifiers import relu
from fastnet.layers.scale import affine, scale, shift
from fastnet.op import Op
from fastnet.parameter import Derived
from fastnet.plan.graph import Graph, Node, Tensor
from fastnet.preprocess.scaling import rescale
from fastnet.tangents.rules import seen

Expansion = Callable[[Graph, dict[str, Any]], Tensor]
EXPANSIONS: dict[type[Op], Expansion] = {}


def expands(*ops: type[Op]) -> Callable[[Expansion], Expansion]:
    """Declare how these ops are made of others."""

    def keep(function: Expansion) -> Expansion:
        EXPANSIONS.update(dict.fromkeys(ops, function))
        return function

    return keep


def expanded(graph: Graph) -> Graph:
    """The graph with all ops expanded that have an expansion; tensors of the others stay."""
    made = Graph()
    for node in graph.nodes:
        how = EXPANSIONS.get(node.op)
        if how is None:
            made.nodes.append(node)
            continue
        before = len(made.nodes)
        made.training, made.label = node.training, node.label
        output = how(made, seen(node, node.arguments))
        new = made.nodes[before:]
        for one in new:
            one.stream = node.stream
        # The last op writes the tensor that others read.
        last = next(n for n in reversed(new) if n.output is output)
        last.arguments[last.op.main_output()] = node.output
        for one in new:
            for name in one.op.inputs:
                if one.arguments.get(name) is output:
                    one.arguments[name] = node.output
    return made


def _affine(g: Graph, x: Tensor, gamma: Any, beta: Any) -> Tensor:
    if gamma is not None and beta is not None:
        return g.apply(affine, x=x, w=gamma, b=beta)
    if gamma is not None:
        return g.apply(scale, x=x, w=gamma)
    return x if beta is None else g.apply(shift, x=x, b=beta)


@expands(batchnorm, layernorm, rmsnorm)
def normalisation(g: Graph, a: dict[str, Any]) -> Tensor:
    """x̂, and then gamma·x̂ + beta."""
    x, gamma, beta = a["x"], a.get("gamma"), a.get("beta")
    names = ("eps", "momentum", "running_mean", "running_var", "batches")
    given = {n: a[n] for n in names if a.get(n) is not None}
    op = batchnorm if "momentum" in a else layernorm if "centre" in a else rmsnorm
    return _affine(g, g.apply(op, x=x, **given), gamma, beta)


@expands(batchnorm_inference)
def by_running_statistics(g: Graph, a: dict[str, Any]) -> Tensor:
    """A fixed map of columns, and then gamma·x̂ + beta."""
    mean, var, eps = a["running_mean"], a["running_var"], float(a["eps"])
    width = mean.shape

    def factor() -> np.ndarray:
        return 1 / np.sqrt(var.value + eps)  # type: ignore[no-any-return]

    zeros = Derived(width, lambda: np.zeros(width), constant=True)
    x = g.apply(rescale, x=a["x"], c=mean, r=zeros, f=Derived(width, factor), offset=0.0)
    return _affine(g, x, a.get("gamma"), a.get("beta"))


def _half(g: Graph, x: Tensor, second: bool) -> Tensor:
    half = int(x.shape[1]) // 2
    places = np.arange(half) + half * second
    return g.apply(
        take_columns, x=x, places=Derived((half,), lambda: places, "int64", constant=True)
    )


@expands(glu)
def gated(g: Graph, a: dict[str, Any]) -> Tensor:
    """a·σ(b) of the halves."""
    gate = g.apply(sigmoid, x=_half(g, a["x"], True))
    return g.apply(multiply, a=_half(g, a["x"], False), b=gate)


@expands(swiglu)
def gated_by_silu(g: Graph, a: dict[str, Any]) -> Tensor:
    """SiLU(a)·b of the halves."""
    gate = g.apply(silu, x=_half(g, a["x"], False))
    return g.apply(multiply, a=gate, b=_half(g, a["x"], True))


@expands(prelu)
def by_slopes(g: Graph, a: dict[str, Any]) -> Tensor:
    """max(x, 0) + a·(x − max(x, 0)), whose derivative at 0 is a too."""
    x, slopes = a["x"], a["a"]
    positive = g.apply(relu, x=x)
    negative = g.apply(add, a=x, b=g.apply(times, x=positive, factor=-1.0))
    width, count = int(x.shape[1]), int(slopes.shape[0])
    assert width % count == 0
    each = g.reshape(negative, (count,), x.times * (width // count))
    scaled = g.reshape(g.apply(scale, x=each, w=slopes), (width,), x.times)
    return g.apply(add, a=positive, b=scaled)


@expands(blend)
def blended(g: Graph, a: dict[str, Any]) -> Tensor:
    """x + a·(f − x)."""
    x = a["x"]
    change = g.apply(add, a=a["f"], b=g.apply(times, x=x, factor=-1.0))
    return g.apply(add, a=x, b=g.apply(scale, x=change, w=a["a"]))


def refuses(node: Node) -> str | None:
    """Why an op has no second derivatives; None: nothing is known of that here."""
    if node.op.on_host:
        return (
            "its forward and backward are Python code; fn.elementwise makes a layer that has them"
        )
    return None
