"""Operands for any registered op, its reference kernels in float64, and finite-difference checks.

An op is checked from its declaration alone: tensors of its declared shapes are drawn at random, its
scalars are looked up by name. Only what cannot be drawn so is listed below, by op.
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from fastnet.layers.bfloat16_linear import pairs_of
from fastnet.layers.class_tree import ClassTree
from fastnet.losses.pointwise import Pointwise
from fastnet.op import KERNELS, ROWS, Array, Kernel, Op

# Scalars and hyper-parameters by name, chosen so that each is felt in every result.
NUMBERS = {
    "negative_slope": 0.2,
    "slope": 0.8,
    "amplitude": 1.7,
    "alpha": 0.7,
    "beta": 1.3,
    "bound": 1.5,
    "a": 0.3,
    "power": 2.0,
    "margin": 0.7,
    "offset": 0.4,
    "min_val": -0.4,
    "max_val": 0.9,
    "threshold": float(round(0.3 * 2**32)),
    "scale": 1 / 0.7,
    "kept": 0.9,
    "dropped": -0.7,
    "stddev": 0.6,
    "factor": 0.35,
    "eps": 0.05,
    "momentum": 0.3,
    "lr": 0.1,
    "weight_decay": 0.03,
    "damping": 0.6,
    "step_size": 0.3,
    "root_scale": 1.7,
    "beta1": 0.9,
    "beta2": 0.99,
    "shrink": 0.95,
    "mean": 1.0,
    "divisor": 3.0,
    "delta": 0.6,
    "width": 0.7,
    "smoothing": 0.3,
    "ignored": 1.0,
    "ahead": 0.8,
    "gradient_size": 0.2,
    "adaptive": 1.0,
    "rho": 0.7,
    "linear": 3.4445,
    "cubic": -4.775,
    "quintic": 2.0315,
    "matched": 1.0,
    "eta_minus": 0.5,
    "eta_plus": 1.2,
    "least": 0.3,
    "most": 1.1,
    "l1": 0.15,
    "cut": 0.4,
    "max_norm": 0.7,
    "keep": 0.6,
    "pull": 0.3,
    "push": 0.08,
    "lead": 0.2,
    "share": 0.4,
    "limit": 0.5,
    "rate": 0.3,
    "across": 3.0,
    "channels": 2.0,
    "down": 1.0,
    "right": 2.0,
    "flips": 3.0,
    "spread": 0.3,
    "place": 2.0,
    "unknown": 1.0,
    "decay": 0.04,
    "window": 5.0,
    "logs": 1.0,
    "clipping": 1.0,
    "closed": 1.0,
    "gamma": 0.2,
    "hypergrad_lr": 0.3,
    "multiplicative": 1.0,
}
# The counter of random draws: beyond 32 bits where it may be.
COUNTER = {"seed": 2**63 + 12345, "step": 2**33 + 7, "stream": 3}

# Losses of labels t with weights v of the classes.
LABELLED = ("cross_entropy", "soft_cross_entropy", "nll", "multi_margin", "one_vs_rest")
# Tensors that must be positive, as op and name.
POSITIVE = {
    ("batchnorm", "running_var"),
    ("batchnorm_inference", "running_var"),
    ("weighted_loss", "row_loss"),  # otherwise some of their sums cancel
    ("weighted_loss", "w"),
    ("weighted_loss", "c"),
    *((op, "v") for op in LABELLED),
    ("soft_cross_entropy", "t"),
    ("rbf", "beta"),
    ("pinball", "q"),
    ("gaussian_basis", "sigma"),
    ("gaussian_nll", "y"),
    ("weighted_bce_with_logits", "u"),
    ("poisson", "y"),
    ("full_poisson", "y"),
    ("full_poisson", "t"),
    ("full_log_poisson", "t"),
    *(
        (rule, "v")
        for rule in (
            "adam",
            "adam_amsgrad",
            "nadam",
            "radam",
            "adagrad",
            "adadelta",
            "rmsprop",
            "rmsprop_momentum",
            "rmsprop_centered",
            "rmsprop_centered_momentum",
            "schedule_free_adamw",
            "adamhd",
        )
    ),
    ("adam_amsgrad", "top"),
    ("adamax", "u"),
    ("adadelta", "u"),
    ("rprop", "size"),
    ("yellowfin_tune", "tuning"),
    ("yellowfin_tune", "recent"),
    ("hypergradient_tune", "tuning"),
}
# Tensors that must be in (0, 1).
UNIT = {("bce", "y"), ("bce", "t"), ("kl_div", "t")}
# Tensors whose rows ascend.
ASCENDING = {("interpolate", "k")}
# Tensors that are drawn small, so that a difference does not cancel.
SMALL = {("rmsprop_centered", "a"), ("rmsprop_centered_momentum", "a")}
# Results that are sums which may cancel, with the tensor that they sum.
SUMS_OF = {
    ("layernorm", "centre"): "x",
    ("layernorm", "rest"): "x",
    ("l2_penalty", "loss"): "data",
}
SMALL = {("angles", "x"), ("rmsprop_centered", "a"), ("rmsprop_centered_momentum", "a")}
# Inputs that an op treats as constants: it has no gradient for them.
CONSTANT = {
    "piecewise": {"edge", "scale", "ends"},
    "grouped_linear": {"ends"},
    "batchnorm_inference": {"running_mean", "running_var"},
    "mse": {"t"},
    "mean_of_losses": {"counts"},
    "take_columns": {"places"},
    "softmax_nll": {"t"},
    "weighted_loss": {"w", "c"},
    "l2_penalty": {"data", "row_loss"},  # the compiler passes the gradient of the loss on to data
    "gaussian_nll": {"t"},
    "rescale": {"c", "r", "f"},
    "interpolate": {"k", "v"},
    "scheduled_dropout": {"n"},
    "one_hot": {"v", "source"},
    "sparse_linear": {"x", "columns", "ends", "xt", "columns_t", "rows_t"},
    "tree_log_softmax": {"nodes", "spans", "children", "leaves"},
    "hierarchical_nll": {"t", "nodes", "room"},
    **{name: {"t", "v"} for name in LABELLED},
    **{op.name: {"t", *op.columns} for op in Pointwise.__subclasses__()},
}
# The fewest rows for which an op has a meaning; 0 where it is not listed.
MIN_ROWS = {"batchnorm": 2, "mse": 1, "softmax_nll": 1}
# Columns of codes, which cannot be moved by a little.
CODES = {("embedding", "x"): int(NUMBERS["place"])}


def ops() -> list[type[Op]]:
    """All registered ops."""
    return list(dict.fromkeys(kernel.op for kernel in KERNELS.values()))


def named(op: type[Op], dims: Iterable[int], rows: int) -> dict[str, int]:
    """The sizes of an op's dims; those of a matrix leave out what follows from others.

    For an op with a tree of classes the last dim is about their number.
    """
    dims = tuple(dims)
    sizes = dict(zip(op.dims, dims, strict=False))
    if "nodes" in op.inputs:
        tree = tree_of(dims[-1] + 1)
        of_tree = {"C": tree.classes, "R": tree.rows, "M": tree.longest, "N": len(tree.nodes)}
        return {d: of_tree.get(d, sizes.get(d, 1)) for d in (*op.dims, "C")}
    if "h" in op.state:  # one or two layers of a few units
        sizes |= {"L": 1 + dims[1] % 2, "H": 1 + dims[1] % 20}
    if "N" in op.dims and not op.lazy:
        sizes.setdefault("N", 4)
    sizes = op.fitted(sizes)
    return {**sizes, "N": 2 * rows + 1} if op.lazy else sizes


def with_length(op: type[Op], dims: Iterable[int], rows: int, name: str, n: int) -> dict[str, int]:
    """The same where one dim is n; those of a tree of classes are about n."""
    if "nodes" in op.inputs and name != "I":
        return named(op, (*dims, n), rows)
    return op.fitted({**named(op, dims, rows), name: n})


def tree_of(classes: int) -> ClassTree:
    """A tree in which nodes have one to five children, and ways differ in length."""
    parents, roots, size = [-1] * classes, list(range(classes)), 1
    while len(roots) > 1 or len(parents) == classes:
        size = size % 5 + 1
        for child in roots[:size]:
            parents[child] = len(parents)
        roots = [*roots[size:], len(parents)]
        parents.append(-1)
    return ClassTree(np.array(parents), classes)


def shape_of(op: type[Op], name: str, rows: int, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The shape of a tensor or gradient for this number of rows."""
    return tuple(rows if d == ROWS else int(d) for d in op.shape(name, sizes))


def dtype_of(op: type[Op], name: str, dtype: str) -> str:
    """The dtype of a tensor or gradient of an op in a model of `dtype`."""
    spec = op.spec(name)
    assert spec is not None
    return spec.dtype or dtype


def written(kernel: Kernel) -> tuple[str, ...]:
    """The tensors that a kernel writes: outputs and state, or gradients of inputs."""
    op = kernel.op
    if kernel.phase == "vjp":
        return tuple(n for n in kernel.tensors if n not in op.tensors and n[1:] in op.inputs)
    return tuple(n for n in kernel.tensors if n in op.outputs or n in op.state)


def accumulates(kernel: Kernel, name: str) -> bool:
    """Whether a kernel adds to this gradient on request: it does for those of parameters."""
    spec = kernel.op.spec(name)
    assert spec is not None
    takes = kernel.phase == "vjp" and "accumulate" in kernel.arguments
    return takes and ROWS not in spec.dims


def normal(random: np.random.Generator, shape: tuple[int, ...], dtype: str = "float64") -> Array:
    """Normal numbers at least 0.05 away from 0, where many functions have a kink."""
    z = random.normal(size=shape)
    return (z + np.copysign(0.05, z)).astype(dtype)


def operands(
    op: type[Op],
    rows: int,
    sizes: Mapping[str, int],
    dtype: str = "float64",
    absent: Iterable[str] = (),
) -> dict[str, Array]:
    """State and inputs of an op at random, the same for the same arguments; `absent` ones missing."""
    random = np.random.default_rng(zlib.crc32(repr((op.name, rows, dict(sizes))).encode()))
    tensors = {}
    for name in (*op.state, *op.inputs):
        shape, kind = shape_of(op, name, rows, sizes), dtype_of(op, name, dtype)
        if kind == "int64":  # labels
            drawn = random.integers(0, sizes.get(op.dims[-1], 1), shape)
        else:
            drawn = normal(random, shape, kind)
        if (op.name, name) in SMALL:
            drawn *= drawn.dtype.type(0.125)
        if (op.name, name) in UNIT:
            drawn = (1 / (1 + np.exp(-drawn))).astype(kind)
        if (op.name, name) in ASCENDING:
            drawn.sort(axis=-1)
        of = op.name.removesuffix("_curve")
        tensors[name] = np.abs(drawn) if (of, name) in POSITIVE else drawn
    if op.name == "embedding":  # codes, of which some are unknown
        codes = random.integers(-1, sizes["V"] + 1, rows)
        tensors["x"][:, CODES[op.name, "x"]] = codes
    if op.name == "scheduled_dropout":
        tensors["n"][...] = NUMBERS["threshold"], NUMBERS["scale"]
    if "ends" in tensors and not op.lazy:  # of groups of columns
        columns = sizes["N" if "N" in op.dims else "M"]
        tensors["ends"][...] = np.sort(random.integers(0, columns + 1, sizes["I"]))
        tensors["ends"][-1] = columns
    if op.lazy:
        arrange(tensors, random, sizes["I"])
    if "p" in tensors and op.packs:
        tensors["p"] = pairs_of(normal(random, (sizes["I"], sizes["O"])))
    if "nodes" in tensors:
        tree = tree_of(sizes["C"])
        tensors |= {
            n: getattr(tree, n) for n in ("nodes", "spans", "children", "leaves") if n in tensors
        }
        if "t" in tensors:
            tensors["t"] = random.integers(0, tree.classes, rows)
    return {name: tensor for name, tensor in tensors.items() if name not in set(absent)}


def arrange(tensors: dict[str, Array], random: np.random.Generator, width: int) -> None:
    """Make operands of `sparse_linear` elements of rows: some have none, and columns repeat."""
    columns, ends = tensors["columns"], tensors["ends"]
    ends[...] = np.sort(random.integers(0, len(columns) + 1, len(ends)))
    columns[...] = random.integers(0, width, len(columns))
    count = ends[-1] if len(ends) else 0
    rows = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
    order = np.argsort(columns[:count], kind="stable")
    for name, of in (("xt", tensors["x"]), ("columns_t", columns), ("rows_t", rows)):
        tensors[name][:count] = of[order]


def vjp_operands(
    op: type[Op],
    rows: int,
    sizes: Mapping[str, int],
    dtype: str = "float64",
    absent: Iterable[str] = (),
) -> dict[str, Array]:
    """The operands of an op, what its forward makes of them, and a gradient of its main output."""
    tensors = operands(op, rows, sizes, dtype, absent)
    made = evaluate(op.kernels["forward"], tensors, sizes=sizes)
    tensors |= {name: a.astype(dtype_of(op, name, dtype)) for name, a in made.items()}
    name = f"d{op.main_output()}"
    if name in op.kernels["vjp"].tensors:
        random = np.random.default_rng(rows)
        tensors[name] = normal(random, shape_of(op, name, rows, sizes), dtype)
    return tensors


def evaluate(
    kernel: Kernel,
    given: Mapping[str, Array],
    *,
    absent: Iterable[str] = (),
    into: Mapping[str, Array] | None = None,
    sizes: Mapping[str, int] | None = None,
) -> dict[str, Array]:
    """Run a reference kernel in float64; returns the tensors that it wrote.

    Nothing given is modified; what is written starts as NaN, or, where it accumulates, as what
    `into` holds. `absent`: gradients that are not wanted. State that is not given is absent, too.
    """
    op = kernel.op
    sizes = dict(sizes or {})
    for name in given:
        sizes |= dict(zip(op.spec(name).dims, given[name].shape, strict=True))  # type: ignore[union-attr]
    sizes = op.fitted(sizes)
    rows = sizes.pop(ROWS, 1)
    gone = {*absent, *(name for name in op.state if name not in given)}
    made = [name for name in written(kernel) if name not in gone]
    arrays: dict[str, Any] = {name: np.empty(0) for name in kernel.tensors}
    for name in kernel.tensors:
        if name in given:
            kind = dtype_of(op, name, "float64")
            arrays[name] = given[name].astype(kind)
        elif name in made:
            kind = dtype_of(op, name, "float64")
            empty = np.nan if kind == "float64" else -1
            arrays[name] = np.full(shape_of(op, name, rows, sizes), empty, kind)
            if into is not None and accumulates(kernel, name):
                arrays[name][...] = into[name]
    numbers = NUMBERS | COUNTER | {"accumulate": int(into is not None)}
    kernel.function(*(arrays[a] if a in arrays else numbers[a] for a in kernel.arguments))
    return {name: arrays[name] for name in made}


def numeric_jacobian(op: type[Op], tensors: Mapping[str, Array], name: str) -> Array:
    """∂output/∂name by central differences: (elements of the main output, elements of name)."""
    columns, codes = [], CODES.get((op.name, name), -1)
    for i in range(tensors[name].size):
        at = []
        if i % tensors[name].shape[-1] == codes:
            columns.append(np.zeros(columns[-1].shape))
            continue
        for sign in (1, -1):
            moved = tensors[name].copy()
            moved.flat[i] += sign * 1e-5
            result = evaluate(op.kernels["forward"], {**tensors, name: moved})
            at.append(result[op.main_output()].ravel())
        columns.append((at[0] - at[1]) / 2e-5)
    return np.stack(columns, axis=1)


def vjp_jacobians(op: type[Op], tensors: Mapping[str, Array]) -> dict[str, Array]:
    """The same for all inputs, from the VJP: a row for each unit gradient of the output."""
    tensors = {**tensors, **evaluate(op.kernels["forward"], tensors)}
    vjp, main = op.kernels["vjp"], op.main_output()
    absent = [f"d{name}" for name in op.inputs if name not in tensors]
    units = np.eye(tensors[main].size).reshape(-1, *tensors[main].shape)
    given = [{**tensors, f"d{main}": unit} for unit in units]  # a loss takes none, and has one unit
    grads = [evaluate(vjp, g, absent=absent) for g in given]
    return {name[1:]: np.stack([g[name].ravel() for g in grads]) for name in grads[0]}


def check_vjp(
    op: type[Op], rows: int, sizes: Mapping[str, int], absent: Iterable[str] = (), tol: float = 1e-7
) -> None:
    """Compare the Jacobians of an op for every differentiable input; relative to their largest entry."""
    tensors = operands(op, rows, sizes, absent=absent)
    given = {name for name in op.inputs if name in tensors} - CONSTANT.get(op.name, set())
    exact = vjp_jacobians(op, tensors)
    assert set(exact) == given, f"{op.name}: gradients of {sorted(exact)}, inputs {sorted(given)}"
    for name, jacobian in exact.items():
        numeric = numeric_jacobian(op, tensors, name)
        error = np.max(np.abs(jacobian - numeric)) / (np.max(np.abs(numeric)) or 1.0)
        assert error <= tol, f"{op.name}: d{name} is off by {error:.1e}"


def check_model(model: Any, x: Array, *, seed: int = 0, tol: float = 1e-7) -> None:
    """⟨v, Jᵀu⟩ = ⟨Jv, u⟩ for a float64 model, random u, and a random v of inputs and parameters.

    Each evaluation runs on a copy, so that dropout draws the same mask and running statistics stay.
    """
    random = np.random.default_rng(seed)
    moves = {name: normal(random, p.shape) for name, p in model.named_parameters().items()}
    move_x = normal(random, x.shape)

    def output(t: float) -> Array:
        moved = copy.deepcopy(model)
        with moved.edit() as values:
            for name, move in moves.items():
                values[name] += t * move
        return moved.forward(x + t * move_x)

    h = 1e-6
    jv = (output(h) - output(-h)) / (2 * h)
    u = normal(random, jv.shape)
    used = copy.deepcopy(model)
    used.zero_grad()
    used.forward(x)
    dx = used.backward(u)
    parts = [dx * move_x, *(used.grads[name] * move for name, move in moves.items())]
    products = np.concatenate([part.ravel() for part in parts])
    error = abs(products.sum() - (jv * u).sum()) / np.linalg.norm(products)
    assert error <= tol, f"the directional derivative is off by {error:.1e}"


def check_loss_gradient(
    model: Any, loss: Any, x: Array, y: Array, *, tol: float = 1e-7, **options: Any
) -> None:
    """The same for dL/d-parameters of `value_and_grad`."""
    random = np.random.default_rng(1)
    moves = {name: normal(random, p.shape) for name, p in model.named_parameters().items()}

    def value(t: float) -> float:
        moved = copy.deepcopy(model)
        with moved.edit() as values:
            for name, move in moves.items():
                values[name] += t * move
        return moved.value_and_grad(loss, x, y, **options)

    h = 1e-5
    numeric = (value(h) - value(-h)) / (2 * h)
    used = copy.deepcopy(model)
    used.value_and_grad(loss, x, y, **options)
    products = np.concatenate([(used.grads[n] * move).ravel() for n, move in moves.items()])
    error = abs(products.sum() - numeric) / np.linalg.norm(products)
    assert error <= tol, f"the loss's derivative is off by {error:.1e}"
