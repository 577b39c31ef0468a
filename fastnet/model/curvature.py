"""Products of a model's Jacobian, and of a loss's Hessian or Gauss–Newton matrix, with directions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from fastnet.backends.products import Runner
from fastnet.backends.steps import bad_label
from fastnet.data.dataset import Dataset
from fastnet.data.minibatches import batch_offsets
from fastnet.errors import (
    DivergenceError,
    NoSecondDerivatives,
    ShapeError,
    StateDictError,
    UsageError,
    shown,
)
from fastnet.losses.base import Loss
from fastnet.losses.function import as_loss
from fastnet.model.order import trained
from fastnet.model.structure import Ending
from fastnet.model.ways import Way, accepted_targets
from fastnet.op import Array
from fastnet.parameter import check_array, check_names
from fastnet.plan.compiler import Plan
from fastnet.plan.segments import Storage

WORKSPACE_BYTES = 1 << 23  # of one block of rows, approximately
KEPT_BYTES = 1 << 30  # of all blocks, whose forward and backward are kept
FEW_ROWS = 256  # a block has at least so many


class Packing:
    """Where the trainable parameters lie in a segment, and in a vector without padding."""

    def __init__(self, storage: Storage) -> None:
        self.runs: list[tuple[slice, slice]] = []
        end, last = 0, -1
        for p in storage.trainable():
            begin, size = storage.place(p)[1] // storage.dtype.itemsize, math.prod(p.shape)
            if begin == last:
                there, here = self.runs.pop()
                self.runs.append((slice(there.start, begin + size), slice(here.start, end + size)))
            else:
                self.runs.append((slice(begin, begin + size), slice(end, end + size)))
            end, last = end + size, begin + size
        self.size = end

    def spread(self, vector: Array, segment: Array) -> None:
        """Write a vector into a segment."""
        for there, here in self.runs:
            segment[there] = vector[here]

    def gathered(self, segment: Array) -> Array:
        """A segment's numbers as a float64 vector."""
        found = np.empty(self.size)
        for there, here in self.runs:
            found[here] = segment[there]
        return found


def jvp(model: Any, x: Any, dx: Any, dparams: Any) -> tuple[Array, Array]:
    """See Sequential.jvp."""
    kind = "jvp", dx is not None, dparams is not None
    way = model._ways.get(kind)
    if way is not None and way.is_open(model):
        with model.training_lock():
            found: tuple[Array, Array] | None = way.call(x, dx, dparams, model._draws)
        if found is not None:
            return found
    model._root("jvp")
    if dx is None and dparams is None:
        raise UsageError(
            "dx and dparams are None; expected a direction of x, of parameters, or both"
        )
    x = np.asarray(model.features("x", model.on_host("x", x)))
    shape = tuple(x.shape[1:])
    if dx is not None:
        dx = np.asarray(model.features("dx", model.on_host("dx", dx), shape))
        if dx.shape != x.shape:
            raise ShapeError(f"dx has shape {dx.shape}, expected that of x, {x.shape}")
        dx = np.asarray(dx, model.dtype)
    with model.training_lock():
        if dparams is not None:
            check_direction(model, "dparams", dparams)
        modes = model._modes()
        model._check_rows(len(x), modes)
        runner = jacobian_runner(model, shape, len(x), modes, kind)
        call = _jvp_call(model, runner)
        if not model._runtime.coded and _is_new(model, way, runner):
            short = runner.native(model.seed, runner.plan.max_rows) or call
            model._ways.keep(kind, Way(model, short, runner, modes))
        given = None if dparams is None else _as_arrays(model, dparams)
        found = call(np.ascontiguousarray(x, model.dtype), dx, given, model._draws)
        assert found is not None
        return found


def _is_new(model: Any, way: Way | None, runner: Runner) -> bool:
    """Whether a way for this runner is still to be made."""
    return way is None or way.executor is not runner or not way.is_open(model)


def jacobian_runner(
    model: Any, shape: Any, rows: int, modes: Any, kind: tuple[str, bool, bool]
) -> Runner:
    """The runner of Jacobian products for up to so many rows of a shape, with layers in these modes.

    kind: "jvp", whether x moves, and whether parameters do.
    """
    from fastnet.tangents.program import jacobian_product

    runtime, storage = model._runtime, model.bind()
    described = runtime.described(shape, modes, None)

    def make(most: int) -> Runner:
        (_, of_x, of_parameters), structure = kind, described.structure
        made = jacobian_product(structure, storage, most, of_x=of_x, of_parameters=of_parameters)
        runner: Runner = _runner_of(model, made)
        return runner

    exact = joins_rows(model, modes)
    made: Runner = runtime.products(kind, described, rows, make, exact=exact)
    made.exact = exact
    return made


def _runner_of(model: Any, products: Any) -> Any:
    """The runner of a plan of products on the model's backend."""
    storage, backend, names = model.bind(), model._runtime.backend, trained(model)
    made = backend.products(products, storage, names)
    return made or Runner(products, storage, names, backend)


def _jvp_call(model: Any, runner: Runner) -> Any:
    """A function (x, dx, dparams, draw) → (y, ẏ) for rows of one kind; None where it declines."""
    plan, products, dtype = runner.plan, runner.products, model.dtype
    of_x, of_parameters = products.dx is not None, products.of_parameters

    def call(x: Any, dx: Any, dparams: Any, draw: int) -> tuple[Array, Array] | None:
        if (dx is None) == of_x or (dparams is None) == of_parameters:
            return None
        if not runner.takes(x, plan.max_rows) or (runner.exact and len(x) != plan.max_rows):
            return None
        if of_x:
            if type(dx) is not np.ndarray or dx.shape != x.shape or dx.dtype.kind != "f":
                return None
            if not np.isfinite(runner.move_x(dx)).all():
                return None
        if of_parameters and not runner.point(dparams):
            return None
        runner.linearize(x, None, None, model.seed, draw)
        shape = len(x), *plan.output_shape
        there = plan.output[0] == "x"
        y = x.reshape(shape) if there else runner.at(plan.output, shape, dtype)
        if products.dy is None:
            return np.array(y), np.zeros(shape, dtype)
        return np.array(y), np.array(runner.at(products.dy, shape, dtype))

    return call


class Curvature:
    """The Hessian or the Gauss–Newton matrix of a loss of all rows, at the model's present parameters.

    Vectors are float64 and have the trainable parameters without padding, in the model's order. One block
    of rows is two native calls, and the products of blocks are added in float64. With `kept`, forward and
    backward are kept for further products, at the memory of all rows' activations, until the parameters
    change and `linearize` is called again.
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
        self.packing, self.places = Packing(self.storage), self.storage.trainable_places()
        self.ending = Ending(loss, data.classes > 0, data.w is not None, data.by_rows)
        if self.ending.on_host:
            raise NoSecondDerivatives(
                f"loss is {shown(loss)}, which Python computes; expected a loss of fastnet's, whose "
                "second derivatives are known"
            )
        self.exact = joins_rows(model, self.modes)
        self._compiled: dict[int, Any] = {}  # by rows
        self._penalty, count = 1.0, data.rows
        if rows is None:
            rows = count if self.exact else self.rows_of_a_block(count)
        self.offsets = batch_offsets(count, min(rows, count))
        self.shares = np.diff(self.offsets) / count
        if loss.reduction == "sum":
            self.shares[:] = 1
        self._share_penalties()
        self._runners: list[Runner] = []
        self.of: Any = None  # what the caller has linearized last
        most = int(np.diff(self.offsets).max())
        if kept:
            nbytes = self._products(most).plan.workspace_bytes * len(self.shares)
            self.kept = nbytes <= KEPT_BYTES
        else:
            self.runner(most)  # it raises where there are no second derivatives

    def _share_penalties(self) -> None:
        """Let the penalties of parameters, each block's divided by its own rows, add up to one of all."""
        described = self.model._runtime.described(self.data.row_shape, self.modes, self.ending)
        if len(self.shares) > 1 and any(n.op.adds_to for n in described.structure.graph.nodes):
            self._penalty = 1 / (
                self.data.rows * float((self.shares / np.diff(self.offsets)).sum())
            )
            self._compiled.clear()

    def _products(self, rows: int) -> Any:
        from fastnet.tangents.program import curvature_product

        if rows not in self._compiled:
            runtime = self.model._runtime
            described = runtime.described(self.data.row_shape, self.modes, self.ending)
            kind: Any = {"gauss_newton": self.gauss_newton, "penalty": self._penalty}
            structure = described.structure
            self._compiled[rows] = curvature_product(structure, self.storage, rows, **kind)
        made = self._compiled[rows]
        return replace(made, plan=made.plan.copy())

    def runner(self, rows: int) -> Runner:
        """A runner for up to so many rows; a new one where it is to be kept."""
        if self.kept:
            made: Runner = _runner_of(self.model, self._products(rows))
            return made
        runtime = self.model._runtime
        made = runtime.products(
            ("curvature", self.gauss_newton, self._penalty),
            runtime.described(self.data.row_shape, self.modes, self.ending),
            rows,
            lambda most: _runner_of(self.model, self._products(most)),
            exact=self.exact,
        )
        made.exact = self.exact
        return made

    def rows_of_a_block(self, count: int) -> int:
        """The rows that a block has of so many."""
        if count <= FEW_ROWS:
            return count
        plan: Plan = self._products(FEW_ROWS).plan
        per_row = max(1, plan.workspace_bytes // plan.max_rows)
        return min(count, max(FEW_ROWS, WORKSPACE_BYTES // per_row))

    def linearize(self) -> float:
        """Run forward and backward of all blocks and keep them; returns the loss."""
        total, known = 0.0, self._runners
        self._runners = []
        for number, (begin, end) in enumerate(pairwise(self.offsets)):
            runner = known[number] if known else self.runner(end - begin)
            self._load(runner, number)
            total += self.shares[number] * runner.loss()
            self._runners.append(runner)
        return total

    @np.errstate(all="ignore")
    def product(self, v: Array) -> Array:
        """The matrix times a vector; the caller looks whether it is finite."""
        total = None
        for share, runner in self._runs(lambda runner: self.packing.spread(v, runner.direction)):
            part = self.packing.gathered(runner.product())
            if share != 1:
                part *= share
            total = part if total is None else np.add(total, part, out=total)
        assert total is not None
        return total

    @np.errstate(all="ignore")
    def product_by_name(self, v: Mapping[str, Array]) -> dict[str, Array]:
        """The same for a checked direction by name, in the model's dtype."""
        total, last = None, None
        several = len(self.shares) > 1
        for share, runner in self._runs(lambda runner: runner.point(v)):
            part, last = runner.product(), runner
            if several:
                part = share * part.astype(np.float64)
                total = part if total is None else total + part
            else:
                total = part * part.dtype.type(share) if share != 1 else part.copy()
        assert last is not None and total is not None
        return last.named(total.astype(self.storage.dtype, copy=False))

    def _runs(self, point: Callable[[Runner], Any]) -> Iterator[tuple[float, Runner]]:
        """Each block's share and its runner, ready for a product."""
        if self.kept and not self._runners:
            self.linearize()
        for number, (begin, end) in enumerate(pairwise(self.offsets)):
            runner = self._runners[number] if self.kept else self.runner(end - begin)
            point(runner)
            if not self.kept:
                self._load(runner, number)
            yield self.shares[number], runner

    def _load(self, runner: Runner, number: int) -> None:
        begin, end = self.offsets[number : number + 2]
        data, dtype = self.data, self.model.dtype
        x = np.ascontiguousarray(np.asarray(data.x[begin:end]), dtype)
        y = np.ascontiguousarray(data.y[begin:end], np.int64 if data.classes else dtype)
        if data.classes:
            self._check_labels(y, begin)
        w = None if data.w is None else np.ascontiguousarray(data.w[begin:end], dtype)
        runner.linearize(x, y, w, self.seed, self.step + number)

    def _check_labels(self, y: Array, begin: int) -> None:
        bad = ((y < 0) | (y >= self.data.classes)) & (y != self.data.ignored)
        if bad.any():
            raise bad_label(self.data.classes, begin + int(np.flatnonzero(bad)[0]))


def _curvature_way(model: Any, curvature: Curvature, way: Way | None) -> Way | None:
    """The way of products with data of one kind, of one block; None where there is none."""
    data, loss = curvature.data, curvature.loss
    if len(curvature.shares) > 1 or not isinstance(data.x, np.ndarray) or model._runtime.coded:
        return way
    targets, runner = accepted_targets(loss, data), curvature.runner(data.rows)
    if targets is None or not _is_new(model, way, runner):
        return way
    most = runner.plan.max_rows
    if not runner.exact:
        most = curvature.rows_of_a_block(most)
    call = runner.native(model.seed, most, data.y.shape[1:], data.classes, targets)
    call = call or _curvature_call(model, runner, data, targets, most)
    return Way(model, call, runner, curvature.modes, loss)


def _curvature_call(
    model: Any, runner: Runner, data: Dataset, targets: tuple[float, float], most: int
) -> Any:
    """A function (x, y, v, draw) → product by name for up to so many rows; None where it declines."""
    (low, high), dtype, row, classes = targets, model.dtype, data.y.shape[1:], data.classes

    def call(x: Any, y: Any, v: Any, draw: int) -> dict[str, Array] | None:
        if not runner.takes(x, most) or (runner.exact and len(x) != most):
            return None
        if type(y) is not np.ndarray or y.shape != (len(x), *row) or not y.flags.c_contiguous:
            return None
        if classes:
            if y.dtype != np.int64 or y.min() < 0 or y.max() >= classes:
                return None
        elif y.dtype != dtype or not (y.min() >= low and y.max() <= high and np.isfinite(y).all()):
            return None
        if type(v) is not dict or not runner.point(v):
            return None
        runner.linearize(x, y, None, model.seed, draw)
        product = runner.product().copy()
        return runner.named(product) if np.isfinite(product).all() else None

    return call


def curvature_times(
    model: Any, loss: Any, x: Any, y: Any, v: Any, sample_weight: Any, *, gauss_newton: bool
) -> dict[str, Array]:
    """See Sequential.hvp and Sequential.gnvp."""
    name = "gnvp" if gauss_newton else "hvp"
    way = model._ways.get((name, id(loss)))
    if way is not None and sample_weight is None and way.more is loss and way.is_open(model):
        with model.training_lock():
            product: dict[str, Array] | None = way.call(x, y, v, model._draws)
        if product is not None:
            return product
    model._root(name)
    loss = as_loss(loss)
    x = model.features("X", model.on_host("X", x))
    data = model.data(loss, x, y, "X", "y", sample_weight, by_rows=True)
    with model.training_lock():
        check_direction(model, "v", v)
        modes = model._modes()
        model._check_rows(data.rows, modes)
        given = {"seed": model.seed, "step": model._draws}
        curvature = Curvature(model, loss, data, modes=modes, gauss_newton=gauss_newton, **given)
        product = curvature.product_by_name(_as_arrays(model, v))
        if not all(np.isfinite(part).all() for part in product.values()):
            raise DivergenceError(
                "the product is not finite: parameters, inputs or v are too large for the model's dtype; "
                "inputs scaled to about 1 and a smaller v usually help"
            )
        if sample_weight is None:
            model._ways.keep((name, id(loss)), _curvature_way(model, curvature, way))
        return product


def joins_rows(model: Any, modes: Any) -> bool:
    """Whether rows depend on one another, so that they cannot be taken in blocks."""
    return any(
        layer.joins_rows or (mode and layer.min_training_rows > 1)
        for mode, (_, layer) in zip(modes, model.layers, strict=True)
    )


def check_direction(model: Any, what: str, given: Any) -> None:
    """Raise StateDictError unless a direction has a finite array for each trainable parameter."""
    named = trained(model)
    remedy = "; expected an array for each parameter that is not frozen"
    check_names(what, given, named, remedy=remedy)
    for name, p in named.items():
        array = check_array(f"{what}[{name!r}]", given[name], tuple(p.shown_shape))
        if not np.isfinite(array.astype(model.dtype)).all():
            raise StateDictError(
                f"{what}[{name!r}] has numbers that are not finite in {model.dtype}; expected finite ones"
            )


def direction_of(model: Any, what: str, given: Any) -> Array:
    """A checked direction as a float64 vector of the trainable parameters, in the model's order."""
    check_direction(model, what, given)
    named = trained(model)
    parts = [p.held(np.asarray(given[n], np.float64)).ravel() for n, p in named.items()]
    return np.concatenate(parts) if parts else np.zeros(0)


def _as_arrays(model: Any, given: Mapping[str, Any]) -> dict[str, Array]:
    """A checked direction as arrays of the model's dtype."""
    return {name: np.asarray(given[name], model.dtype) for name in trained(model)}
