"""Ops: their tensors, their scalars, and their reference kernels.

An op is a class whose static methods are the NumPy reference kernels. It declares its tensors once, with
their dimensions; the argument names of the kernels say everything else:

- `forward(outputs…, state…, inputs…, scalars…, context…)` computes the outputs;
- `vjp(d-inputs…, d-output, operands…, scalars…, context…)` computes, for each input `a`, its gradient
  `da` = (∂output/∂a)ᵀ · d-output. The tensors that `vjp` names stay in memory until then;
- `update(state…, inputs…, hyper…)` is an optimizer's step; a formula takes `hyper` as one record, `n`.

In place of `vjp` an op may have `adjoint(g, name, dy, arguments)`, which describes the gradient of one
input by other ops.

An elementwise kernel is declared by its formula (see fastnet.formulas.language): a function that takes the
tensors which the kernel reads and returns those which it writes.

A kernel writes its outputs into the given arrays, allocates no results and returns nothing. An array of
size 0 stands for an absent optional tensor, and for a gradient of a parameter or input that nobody needs.
Context arguments come from the run, not from the op:

- `accumulate`: add gradients of parameters to the existing ones instead of overwriting them;
- `seed`, `step`, `stream`: the counter of the random draws (see fastnet.random).

Dimensions are words. `B` is the number of rows of a minibatch; the others get their sizes when the op is
bound. An output may have a sum of them ("B I+O"). A leading dtype ("int64 B") declares a tensor that does
not have the model's dtype.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from fastnet import random
from fastnet.errors import ShapeError
from fastnet.formulas.language import COUNTER, Formula
from fastnet.late import dropped
from fastnet.plain import plain

Array = np.ndarray
ROWS = "B"
MAX_SCALARS = 4  # of an op
CONTEXT = ("accumulate", "seed", "step", "stream")
PHASES = ("forward", "vjp", "update")

# A sum over more than MANY_ROWS rows adds the sums of blocks of ROW_BLOCK rows with compensation: a single
# running sum of many equal float32 terms would lose digits.
MANY_ROWS, ROW_BLOCK = 512, 64


@plain(eq=True, frozen=True)
class TensorSpec:
    """The declared dimensions of a tensor, and its dtype if that is not the model's."""

    dims: tuple[str, ...]
    dtype: str | None = None

    @classmethod
    def parse(cls, text: str) -> TensorSpec:
        """Read a declaration such as "B I" or "float64 1"."""
        words = text.split()
        if words[0] in ("int64", "float64"):
            return cls(tuple(words[1:]), words[0])
        return cls(tuple(words))


@plain(frozen=True)
class Kernel:
    """A kernel's name and argument lists, as its reference function spells them."""

    name: str
    op: type[Op]
    phase: str
    function: Callable[..., None]
    arguments: tuple[str, ...]
    tensors: tuple[str, ...]
    formula: Formula | None = None  # of an elementwise kernel

    @property
    def columns(self) -> tuple[str, ...]:
        """The tensors with a number for each column, the same for all rows."""
        specs = {name: self.op.spec(name) for name in self.tensors}
        return tuple(name for name, spec in specs.items() if spec and ROWS not in spec.dims)


# Every kernel by name: "linear_forward", "linear_vjp", "adam_update", …
KERNELS: dict[str, Kernel] = {}
# Those of guests, likewise: ops that a program has made while it runs.
GUESTS: dict[str, Kernel] = {}


class Op:
    """Base of all ops. A subclass declares its tensors and reference kernels, and is registered."""

    outputs: ClassVar[Mapping[str, str]] = {}
    state: ClassVar[Mapping[str, str]] = {}  # tensors that kernels read and write in place
    inputs: ClassVar[Mapping[str, str]] = {}
    optional: ClassVar[tuple[str, ...]] = ()
    dims: ClassVar[tuple[str, ...]] = ()  # the fixed dimensions, in the order of kernel arguments
    scalars: ClassVar[tuple[str, ...]] = ()  # numbers that are fixed when the op is bound
    hyper: ClassVar[tuple[str, ...]] = ()  # numbers that may change from step to step
    guest: ClassVar[bool] = False  # made while the program runs, from a function or layer of a user
    on_host: ClassVar[bool] = False  # its kernels are Python functions on every backend
    objects: ClassVar[tuple[str, ...]] = ()  # Python objects that the kernels of such an op take
    lazy: ClassVar[bool] = False  # only for backends that read lazy rows (Backend.reads_rows)
    packs: ClassVar[bool] = (
        False  # only for backends that keep weights packed (Backend.packs_weights)
    )
    adds_to: ClassVar[str] = ""  # of an op that adds to a loss: the input which that is
    touches_rows: ClassVar[bool] = False  # gradients of matrices are 0 but for some rows
    once: ClassVar[bool] = False  # its update runs once in a step, for all parameters together
    inplace: ClassVar[bool] = (
        False  # forward may write its output over its first input, vjp likewise
    )

    name: ClassVar[str]
    tensors: ClassVar[Mapping[str, TensorSpec]]
    kernels: ClassVar[Mapping[str, Kernel]]

    def __init_subclass__(cls) -> None:
        cls.name = cls.__name__
        declared = {**cls.outputs, **cls.state, **cls.inputs}
        cls.tensors = {name: TensorSpec.parse(text) for name, text in declared.items()}
        words = {word for spec in cls.tensors.values() for d in spec.dims for word in d.split("+")}
        found = {word for word in words if not word.isdigit()}
        if found - {ROWS} != set(cls.dims):
            raise TypeError(f"op {cls.name}: dims is {cls.dims}, its tensors use {sorted(found)}")
        cls.kernels = {
            phase: cls._kernel(phase, getattr(cls, phase))
            for phase in PHASES
            if hasattr(cls, phase)
        }
        table = GUESTS if cls.guest else KERNELS
        for kernel in cls.kernels.values():
            if kernel.name in table and not dropped(table[kernel.name].op):
                raise TypeError(f"kernel {kernel.name} is defined twice")
            table[kernel.name] = kernel

    @classmethod
    def _kernel(cls, phase: str, function: Any) -> Kernel:
        formula = function.with_record(cls.hyper) if isinstance(function, Formula) else None
        if formula:
            written = cls.written(phase)
            new = [name for name in written if name not in formula.arguments]
            # The two that may share memory come first: an output and the first input.
            both = (*new[:1], *formula.arguments[:1], *new[1:], *formula.arguments[1:])
            arguments = (*both, *(COUNTER if formula.draws else ()))
            function = formula.over_arrays(written, arguments, random.tails)
        else:
            code = getattr(function, "__code__", None)
            names = () if code is None else code.co_varnames[: code.co_argcount]
            arguments = getattr(function, "arguments", names)
        tensors = tuple(a for a in arguments if cls.spec(a) is not None)
        rest = cls.scalars + cls.hyper + cls.objects + CONTEXT
        if arguments[: len(tensors)] != tensors or set(arguments) - set(tensors) - set(rest):
            raise TypeError(f"op {cls.name}: {phase}{arguments} does not fit its declaration")
        return Kernel(f"{cls.name}_{phase}", cls, phase, function, arguments, tensors, formula)

    @classmethod
    def written(cls, phase: str) -> tuple[str, ...]:
        """The tensors that a formula returns, in order."""
        if phase == "vjp":
            return tuple(f"d{name}" for name in cls.inputs)
        return tuple(cls.outputs if phase == "forward" else cls.state)

    @classmethod
    def spec(cls, name: str) -> TensorSpec | None:
        """The declaration of the tensor `name`, or of the tensor whose gradient is `name` = "d…"."""
        return cls.tensors.get(name) or cls.tensors.get(name[1:] if name[0] == "d" else "")

    @staticmethod
    def adjoint(g: Any, name: str, dy: Any, arguments: Mapping[str, Any]) -> Any:
        """The gradient of the input `name`, by ops applied on the builder g; may be dy itself.

        dy: the gradient of the output. arguments: those of the op's forward. Only for ops without `vjp`.
        """
        raise NotImplementedError

    @classmethod
    def main_output(cls) -> str:
        """The first output, which other ops consume."""
        return next(iter(cls.outputs))

    @classmethod
    def bind(cls, shapes: Mapping[str, Any]) -> dict[str, int]:
        """The sizes of the fixed dimensions, from the shapes of the inputs (None: absent).

        A shape has ROWS in place of the number of rows. The size of a dimension that no input has, such as
        the width of an output, is given by its own name. Raises ShapeError where an argument is missing or
        two shapes disagree.
        """
        sizes = {d: int(shapes[d]) for d in cls.dims if d in shapes}
        for name in (*cls.state, *cls.inputs):
            shape, spec = shapes.get(name), cls.tensors[name]
            if shape is None:
                if name not in cls.optional:
                    raise ShapeError(f"{cls.name}: {name} is missing")
                continue
            for want, got in zip(spec.dims, shape, strict=False):
                known = (
                    want if want == ROWS else int(want) if want.isdigit() else sizes.get(want, got)
                )
                if known != got or len(spec.dims) != len(shape):
                    raise ShapeError(
                        f"{cls.name}: {name} has shape {shape}, expected {spec.dims} with {sizes}"
                    )
                if want in cls.dims:
                    sizes[want] = int(got)
        if cls.fitted(sizes) != sizes:
            raise ShapeError(f"{cls.name}: {sizes} do not fit; expected {cls.fitted(sizes)}")
        return sizes

    @classmethod
    def rows_of(cls, times: Mapping[str, int]) -> int:
        """The rows for each row of a minibatch, those of each tensor; ShapeError where they differ."""
        found = {
            t for name, t in times.items() if name in cls.tensors and ROWS in cls.tensors[name].dims
        }
        if len(found) > 1:
            raise ShapeError(
                f"{cls.name}: its inputs have {times} rows for one; expected equal numbers"
            )
        return found.pop() if found else 1

    @classmethod
    def fitted(cls, sizes: dict[str, int]) -> dict[str, int]:
        """Sizes, with those among them that follow from others; these need not be there."""
        return sizes

    @classmethod
    def work(cls, sizes: Mapping[str, int], rows: int) -> int:
        """The approximate number of multiplications for a row of a minibatch of so many rows at most."""
        return math.prod(size or 1 for size in sizes.values())

    @classmethod
    def shape(cls, name: str, sizes: Mapping[str, int]) -> tuple[int | str, ...]:
        """The shape of a tensor or gradient with bound sizes, and ROWS for the number of rows."""
        spec = cls.spec(name)
        assert spec is not None, name

        def of(word: str) -> int:
            return int(word) if word.isdigit() else sizes[word]

        return tuple(d if d == ROWS else sum(map(of, d.split("+"))) for d in spec.dims)


def put(into: Array, value: Array, accumulate: int) -> None:
    """Write a parameter's gradient, or add to it; ignore an absent one."""
    if into.size:
        np.add(into, value, out=into) if accumulate else np.copyto(into, value)


def row_sums(x: Array) -> Array:
    """Σ_rows x (N) of x (B, N)."""
    return _sum_of_blocks(len(x), lambda block: x[block].sum(axis=0))


def row_products(x: Array, y: Array) -> Array:
    """Σ_rows of the outer products of rows, xᵀ·y (I, O), for x (B, I) and y (B, O).

    Within MANY_ROWS rows the products of blocks are added without compensation, which would need several
    passes over such matrices.
    """
    if len(x) <= MANY_ROWS:
        product: Array = x.T @ y
        return product

    def of_many(rows: slice) -> Array:
        a, b = x[rows], y[rows]
        total: Array = a[:ROW_BLOCK].T @ b[:ROW_BLOCK]
        for begin in range(ROW_BLOCK, len(a), ROW_BLOCK):
            block = slice(begin, begin + ROW_BLOCK)
            total += a[block].T @ b[block]
        return total

    return _sum_of_blocks(len(x), of_many, MANY_ROWS)


def _sum_of_blocks(rows: int, of_block: Callable[[slice], Array], height: int = ROW_BLOCK) -> Array:
    """The sum over all rows, from those of blocks, with a second sum of the rounding errors."""
    if rows <= MANY_ROWS:
        return of_block(slice(rows))
    total = of_block(slice(height))
    lost = np.zeros_like(total)
    for begin in range(height, rows, height):
        term = of_block(slice(begin, begin + height))
        new = total + term
        part = new - total
        lost += (total - (new - part)) + (term - part)
        total = new
    # Where the sum is infinite, the sum of rounding errors is NaN.
    return np.where(np.isnan(lost), total, total + lost)


class add_to(Op):
    """y ← y + x: adds the gradients of several uses of one tensor."""

    state: ClassVar = {"y": "B N"}
    inputs: ClassVar = {"x": "B N"}
    dims = ("N",)

    @staticmethod
    def forward(y: Array, x: Array) -> None:
        """Add x to y in place."""
        np.add(y, x, out=y)
