"""Runners of plans of products: Jacobian, Hessian and Gauss–Newton products with directions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastnet.backends.base import Backend, Moved, Product, Rows, Second, Taken
from fastnet.backends.executor import Executor
from fastnet.op import Array
from fastnet.parameter import Parameter
from fastnet.plan.instructions import kernels_of
from fastnet.plan.records import KIND, MAX_SCALARS, SEGMENT, zeros_aligned
from fastnet.plan.segments import Storage

NUMBERS = np.zeros(
    (0, MAX_SCALARS)
)  # plans of products are compiled for the numbers of their nodes


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

    def start_of_buffers(self) -> tuple[int, int]:
        """The address of the model's running statistics, and their bytes."""
        block = self._of.segments["buffers"]
        return block.ctypes.data, block.nbytes


class Directions:
    """What runners of all backends have: a direction and a product in the host's memory, by name.

    direction, result: in the layout of the parameters' segment.
    """

    plan: Any
    exact = False  # whether the runner is for its number of rows alone

    def _direct(self, directed: Directed, names: Mapping[str, Parameter]) -> None:
        dtype = directed.dtype
        self.direction: Array = directed.segments["state"].view(dtype)
        self.result: Array = directed.segments["grads"].view(dtype)
        self.names, self.directed = dict(names), directed
        self.directions = {n: self._part(p, self.direction) for n, p in names.items()}

    def _part(self, p: Parameter, vector: Array) -> Array:
        begin = self.directed.place(p)[1] // vector.itemsize
        return p.shown(vector[begin : begin + math.prod(p.shape)].reshape(p.shape))

    def point(self, given: Mapping[str, Array]) -> bool:
        """Take a direction by name; False where an array is not one of finite numbers of its shape."""
        if len(given) != len(self.directions):
            return False
        for name, into in self.directions.items():
            array = given.get(name)
            if (
                type(array) is not np.ndarray
                or array.shape != into.shape
                or array.dtype.kind != "f"
            ):
                return False
            np.copyto(into, array, casting="same_kind")
        return bool(np.isfinite(self.direction).all())

    def named(self, vector: Array) -> dict[str, Array]:
        """A vector in the segment's layout as arrays by name: views."""
        return {name: self._part(p, vector) for name, p in self.names.items()}

    def native(
        self,
        seed: int,
        most: int,
        y: tuple[int, ...] = (),
        classes: int = 0,
        targets: tuple[float, float] = (0.0, 0.0),
    ) -> Product | None:
        """A native function of up to so many rows (see Backend.product_call); None: there is none.

        seed: of random draws. y: the shape of a target, of a product by name. classes: of labels; 0:
        targets are numbers. targets: the least and the largest of these. What it computes is not in
        `direction` and `result`.
        """
        return None

    def takes(self, x: Any, most: int) -> bool:
        """Whether x are rows of the model's dtype, up to so many, finite, one after the other in memory."""
        plan = self.plan
        return (
            type(x) is np.ndarray
            and x.dtype == plan.dtype
            and x.shape[1:] == plan.x_shape
            and 0 < len(x) <= most
            and x.flags.c_contiguous
            and bool(np.isfinite(x).all())
        )


class Runner(Directions, Executor):
    """Runs a plan of products on the segments in the host's memory."""

    def __init__(
        self, products: Any, storage: Storage, names: Mapping[str, Parameter], backend: Backend
    ) -> None:
        self.products = products
        directed = Directed(storage)
        super().__init__(products.plan, directed, backend)  # type: ignore[arg-type]
        self.use(NUMBERS, products.derived, products.objects, products.scheduled)
        self._direct(directed, names)
        self._moved = self._find_moved() if products.of_parameters else ()
        starts = [(p.offset // self.result.itemsize, p) for p in self._moved if p.cleared]
        self._unwritten = [slice(a, a + math.prod(p.shown)) for a, p in starts]

    def linearize(self, x: Array, y: Array | None, w: Array | None, seed: int, step: int) -> None:
        """Run the forward on rows x with targets and weights; these stay where they are."""
        self._inputs = x, y, w
        for name, array in (("y", y), ("w", w)):
            self._context["segment"][0, SEGMENT[name]] = 0 if array is None else array.ctypes.data
        self.directed.start()
        self._context["accumulate"] = 0
        self._forward(len(x), x.ctypes.data, seed, step)

    def move_x(self, dx: Array) -> Array:
        """Let x move by these rows; returns them in the model's dtype."""
        into = self.at(self.products.dx, dx.shape, self.plan.dtype)
        np.copyto(into, dx, casting="same_kind")
        return into

    def product(self) -> Array:
        """The product with the present direction."""
        for part in self._unwritten:
            self.result[part] = 0
        self._run(1)
        return self.result

    def loss(self) -> float:
        """The loss of the last forward."""
        return float(self.at(self.plan.loss, (1,), np.float64)[0])

    def native(
        self,
        seed: int,
        most: int,
        y: tuple[int, ...] = (),
        classes: int = 0,
        targets: tuple[float, float] = (0.0, 0.0),
    ) -> Product | None:
        """See Directions.native."""
        plan, products, gives = self.plan, self.products, (0, 0)
        if not self.backend.native_calls or self._calls_python or plan.scheduled or self.derives:
            return None
        if plan.output[0] == "x":
            return None
        room = np.empty(0)
        if plan.loss is None:
            if products.dy is None:
                return None
            second = Second.NOTHING if products.dx is None else Second.DIRECTION_OF_X
            gives = self.address(plan.output), self.address(products.dy)
            at = 0 if products.dx is None else self.address(products.dx)
        else:
            second = Second.LABELS if classes else Second.TARGETS
            room = np.empty((plan.max_rows, *y), plan.dtype)
            at = room.ctypes.data
        self._threads(plan.max_rows)
        largest = float(np.finfo(plan.dtype).max)
        rows = Rows(
            x=plan.x_shape,
            y=plan.x_shape if second == Second.DIRECTION_OF_X else y,
            labels=classes > 0,
            low=max(-largest, targets[0]),
            high=min(largest, targets[1]),
            least=plan.max_rows if self.exact else 1,
            most=plan.max_rows if self.exact else min(most, plan.max_rows),
            to_share=self._rows_to_share(),
        )
        taken = Taken(
            dtype=KIND[plan.dtype.name],
            rows=rows,
            classes=classes,
            second=second,
            room=(self._x_address, at),
            buffers=self.directed.start_of_buffers(),
            gives=gives,
            y=plan.output_shape,
            parameters=self._moved,
            nbytes=self.directed.segments["grads"].nbytes,
        )
        context, programs = self._context.copy(), (plan.forward.copy(), plan.backward.copy())
        context["seed"], context["accumulate"] = seed, 0
        kept = self._own_memory(), self.directed.segments, room
        return self.backend.product_call(context, programs, taken, kept)

    def _find_moved(self) -> tuple[Moved, ...]:
        """The trainable parameters, and which of them have products that no instruction writes whole."""
        whole, grads = set(), SEGMENT["grads"]
        for instruction, _ in kernels_of(self.plan.backward):
            here = instruction["segment"] == grads
            whole |= set(instruction["offset"][here].tolist())
        found = []
        for name, p in self.names.items():
            offset = self.directed.place(p)[1]
            found.append(
                Moved(name, tuple(p.shown_shape), p.transposed, offset not in whole, offset)
            )
        return tuple(found)
