"""Products of a model's Jacobian, and of a loss's Hessian or Gauss–Newton matrix, with directions."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np

from fastnet.backends.base import Backend
from fastnet.backends.executor import Executor
from fastnet.backends.steps import bad_label
from fastnet.data.dataset import Dataset
from fastnet.data.minibatches import batch_offsets
from fastnet.errors import DivergenceError, ShapeError, StateDictError, UsageError, shown
from fastnet.losses.base import Loss
from fastnet.losses.function import as_loss
from fastnet.model.structure import Ending
from fastnet.op import Array
from fastnet.parameter import Parameter, check_array, check_names
from fastnet.plan.records import MAX_SCALARS, SEGMENT, zeros_aligned
from fastnet.plan.segments import Storage

WORKSPACE_BYTES = 1 << 23  # of one block of rows, approximately
FEW_ROWS = 256  # of which a block has at least so many


class Directed:
    """A model's storage with a direction of its parameters, and room for a product in place of gradients.

    Running statistics are copies, so that no product moves the model's.
    """

    def __init__(self, storage: Storage) -> None:
        self._of = storage
        bytes_of = {name: block.nbytes for name, block in storage.segments.items()}
        self.segments = {
            **storage.segments,
            "state": zeros_aligned(bytes_of["params"]),
            "grads": zeros_aligned(bytes_of["params"]),
            "buffers": zeros_aligned(bytes_of["buffers"]),
        }

    def __getattr__(self, name: str) -> Any:
        return getattr(self._of, name)

    def start(self) -> None:
        """Take the model's running statistics."""
        np.copyto(self.segments["buffers"], self._of.segments["buffers"])

    def vector(self, segment: str) -> Array:
        """A segment as one vector of the model's dtype, padding included."""
        return self.segments[segment].view(self._of.dtype)


class Runner(Executor):
    """Runs a plan of products."""

    def __init__(self, products: Any, storage: Storage, backend: Backend) -> None:
        self.products, self.directed = products, Directed(storage)
        super().__init__(products.plan, self.directed, backend)  # type: ignore[arg-type]
        none = np.zeros((0, MAX_SCALARS))
        self.use(none, products.derived, products.objects, products.scheduled)

    def linearize(self, x: Array, y: Array | None, w: Array | None, seed: int, step: int) -> None:
        """Run the forward on rows x with targets and weights; these stay where they are."""
        self._inputs = x, y, w
        for name, array in (("y", y), ("w", w)):
            self._context["segment"][0, SEGMENT[name]] = 0 if array is None else array.ctypes.data
        self.directed.start()
        self._context["accumulate"] = 0
        self._forward(len(x), x.ctypes.data, seed, step)

    def product(self) -> None:
        """Run the products with the present direction."""
        self._run(1)

    def loss(self) -> float:
        """The loss of the last forward."""
        assert self.plan.loss is not None
        return float(self.at(self.plan.loss, (1,), np.float64)[0])


def jvp(model: Any, x: Any, dx: Any, dparams: Any) -> tuple[Array, Array]:
    """See Sequential.jvp."""
    from fastnet.tangents.program import jacobian_product

    model._root("jvp")
    if dx is None and dparams is None:
        raise UsageError(
            "dx and dparams are None; expected a direction of x, of parameters, or both"
        )
    x = np.asarray(model.features("x", model.on_host("x", x)))
    shape = tuple(x.shape[1:])
    if dx is not None:
        dx = model.features("dx", model.on_host("dx", dx), shape)
        if dx.shape != x.shape:
            raise ShapeError(f"dx has shape {dx.shape}, expected that of x, {x.shape}")
    with model.training_lock():
        storage = model.bind()
        direction = None if dparams is None else direction_of(model, "dparams", dparams)
        modes = model._modes()
        model._check_rows(len(x), modes)
        runtime = model._runtime
        described = runtime.described(shape, modes, None)
        of = {"of_x": dx is not None, "of_parameters": direction is not None}
        runner = runtime.products(
            ("jvp", *of.values()),
            described,
            len(x),
            lambda rows: Runner(
                jacobian_product(described.structure, storage, rows, **of), storage, runtime.backend
            ),
            exact=_joins_rows(model, modes),
        )
        if direction is not None:
            runner.directed.vector("state")[storage.trainable_places()] = direction
        if runner.products.dx is not None:
            np.copyto(runner.at(runner.products.dx, dx.shape, model.dtype), dx)
        given = np.ascontiguousarray(x, model.dtype)
        runner.linearize(given, None, None, model.seed, model._draws)
        shape = len(x), *runner.plan.output_shape
        y = given.reshape(shape) if runner.plan.output[0] == "x" else None
        y = runner.at(runner.plan.output, shape, model.dtype) if y is None else y
        if runner.products.dy is None:
            return np.array(y), np.zeros(shape, model.dtype)
        if runner.products.dy == runner.products.dx and runner.plan.output[0] == "x":
            return np.array(y), np.array(dx).reshape(shape)
        return np.array(y), np.array(runner.at(runner.products.dy, shape, model.dtype))


class Curvature:
    """The Hessian and the Gauss–Newton matrix of a loss of all rows, at the model's present parameters.

    Vectors are float64 and have the trainable parameters without padding, in the model's order. One block
    of rows is two native calls, and the products of blocks are added in float64. With `kept`, forward and
    backward are kept for further products, at the memory of all rows' activations.
    """

    def __init__(
        self,
        model: Any,
        loss: Loss,
        data: Dataset,
        *,
        modes: Any = None,
        gauss_newton: bool = False,
        kept: bool = False,
        rows: int | None = None,
        seed: int = 0,
        step: int = 0,
    ) -> None:
        self.model, self.loss, self.data, self.kept = model, loss, data, kept
        self.modes = model._modes() if modes is None else modes
        self.gauss_newton, self.seed, self.step = gauss_newton, seed, step
        self.storage = model.bind()
        self.places = self.storage.trainable_places()
        self.ending = Ending(loss, data.classes > 0, data.w is not None, data.by_rows)
        if self.ending.on_host:
            raise UsageError(
                f"loss is {shown(loss)}, which Python computes; expected a loss of fastnet's, whose "
                "second derivatives are known"
            )
        self.exact = _joins_rows(model, self.modes)
        count = data.rows
        if rows is None:
            rows = count if self.exact else self._rows_of_a_block(count)
        self.offsets = batch_offsets(count, min(rows, count))
        self.shares = np.diff(self.offsets) / count
        if loss.reduction == "sum":
            self.shares[:] = 1
        self._runners: list[Runner] = []

    def _runner(self, rows: int) -> Runner:
        from fastnet.tangents.program import curvature_product

        runtime = self.model._runtime
        described = runtime.described(self.data.row_shape, self.modes, self.ending)
        kind = {"gauss_newton": self.gauss_newton, "kept": True}

        def make(most: int) -> Runner:
            made = curvature_product(described.structure, self.storage, most, **kind)
            return Runner(made, self.storage, runtime.backend)

        if self.kept:
            return make(rows)
        key = "curvature", self.gauss_newton
        made: Runner = runtime.products(key, described, rows, make, exact=self.exact)
        return made

    def _rows_of_a_block(self, count: int) -> int:
        few = min(count, FEW_ROWS)
        plan = self._runner(few).plan
        return min(count, max(few, WORKSPACE_BYTES * plan.max_rows // max(1, plan.workspace_bytes)))

    def linearize(self) -> float:
        """Run forward and backward of all blocks, where they are kept; returns the loss."""
        total, self._runners = 0.0, []
        for number, (begin, end) in enumerate(pairwise(self.offsets)):
            runner = self._runner(end - begin)
            self._load(runner, begin, end)
            total += self.shares[number] * runner.loss()
            self._runners.append(runner)
        return total

    def product(self, v: Array) -> Array:
        """The matrix times a vector."""
        total = np.zeros(len(v))
        for number, (begin, end) in enumerate(pairwise(self.offsets)):
            if self.kept:
                if not self._runners:
                    self.linearize()
                runner = self._runners[number]
            else:
                runner = self._runner(end - begin)
                self._load(runner, begin, end)
            state, grads = runner.directed.vector("state"), runner.directed.vector("grads")
            state[self.places] = v
            grads.fill(0)
            runner.product()
            total += self.shares[number] * grads[self.places]
        return total

    def _load(self, runner: Runner, begin: int, end: int) -> None:
        data, dtype = self.data, self.model.dtype
        x = np.ascontiguousarray(np.asarray(data.x[begin:end]), dtype)
        y = np.ascontiguousarray(data.y[begin:end], np.int64 if data.classes else dtype)
        if data.classes:
            self._check_labels(y)
        w = None if data.w is None else np.ascontiguousarray(data.w[begin:end], dtype)
        runner.linearize(x, y, w, self.seed, self.step)

    def _check_labels(self, y: Array) -> None:
        bad = ((y < 0) | (y >= self.data.classes)) & (y != self.data.ignored)
        if bad.any():
            raise bad_label(self.data.classes, int(np.flatnonzero(bad)[0]))


def _joins_rows(model: Any, modes: Any) -> bool:
    """Whether rows depend on one another, so that they cannot be taken in blocks."""
    return any(
        layer.joins_rows or (mode and layer.min_training_rows > 1)
        for mode, (_, layer) in zip(modes, model.layers, strict=True)
    )


def curvature_times(
    model: Any, loss: Any, x: Any, y: Any, v: Any, sample_weight: Any, *, gauss_newton: bool
) -> dict[str, Array]:
    """See Sequential.hvp and Sequential.gnvp."""
    model._root("gnvp" if gauss_newton else "hvp")
    loss = as_loss(loss)
    x = model.features("X", model.on_host("X", x))
    data = model.data(loss, x, y, "X", "y", sample_weight, by_rows=True)
    with model.training_lock():
        direction = direction_of(model, "v", v)
        modes = model._modes()
        model._check_rows(data.rows, modes)
        curvature = Curvature(
            model,
            loss,
            data,
            modes=modes,
            gauss_newton=gauss_newton,
            seed=model.seed,
            step=model._draws,
        )
        product = curvature.product(direction)
        if not np.isfinite(product).all():
            raise DivergenceError(
                "the product is not finite: parameters, inputs or v are too large for the model's dtype; "
                "inputs scaled to about 1 and a smaller v usually help"
            )
        return by_name(model, product)


def _trained(model: Any) -> dict[str, Parameter]:
    """The trainable parameters by name, in the order of their vector."""
    names = {id(p): name for name, p in reversed(model._named().items())}
    return {names[id(p)]: p for p in model.bind().trainable()}


def direction_of(model: Any, what: str, given: Any) -> Array:
    """A direction by name as a float64 vector of the trainable parameters; or StateDictError."""
    named = _trained(model)
    check_names(
        what, given, named, remedy="; it has an array for each parameter that is not frozen"
    )
    parts = []
    for name, p in named.items():
        array = check_array(f"{what}[{name!r}]", given[name], tuple(p.shown_shape))
        if not np.isfinite(array).all():
            raise StateDictError(f"{what}[{name!r}] is not finite; expected finite numbers")
        parts.append(p.held(array.astype(np.float64)).ravel())
    return np.concatenate(parts) if parts else np.zeros(0)


def by_name(model: Any, vector: Array) -> dict[str, Array]:
    """A vector of the trainable parameters as arrays by name, in the model's dtype."""
    found, begin = {}, 0
    for name, p in _trained(model).items():
        end = begin + math.prod(p.shape)
        part = vector[begin:end].reshape(p.shape)
        found[name] = np.array(p.shown(part), model.dtype, order="C")
        begin = end
    return found
