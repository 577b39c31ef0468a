"""Formulas: arithmetic on single elements, from which each backend makes its kernel.

    class silu(Elementwise):
        @each
        def forward(x: Real) -> Real:
            return x * sigmoid(x)

The reference calls the function with whole arrays. `translate` reads its syntax tree; from this,
`python_text` writes the kernels of Numba and CUDA, and `c_text` those of C. So a formula is straight-line
code: it assigns each name once (except `_`, for unused values), and then returns a value or several. It may
use + − * /, comparisons, & | ~ of these, the functions below, `horner` of a tuple of coefficients and a
name, and functions of such functions marked `@formula`. Subexpressions of numbers alone (scalars,
hyper-parameters, constants) are computed in float64 and rounded once.

A last argument `n` is the record of the numbers that the op declares as `hyper`: `n.lr` is one of them. A
last argument `tail` is a random number of the element (see `fastnet.random.tails`). A `@formula` that
returns several values is called as `a, b = f(…)`. Such calls, and calls with a number or a record among the
arguments, are inlined; other calls stay function calls.
"""

from __future__ import annotations

import ast
import inspect
import math
import textwrap
from collections.abc import Callable
from copy import copy
from functools import cached_property
from types import SimpleNamespace
from typing import Any, Final, Self

import numpy as np

RECORD: Final = "n"  # the argument with an optimizer's numbers
TAIL: Final = "tail"  # the argument with a random number
COUNTER: Final = ("seed", "stream", "step")  # the random number is a function of these

Real = Any  # an element of the model's dtype; in the reference, an array of elements
Numbers = Any  # the op's hyper-parameters as attributes, such as n.lr

cos: Final = np.cos
exp: Final = np.exp
expm1: Final = np.expm1
log: Final = np.log
log1p: Final = np.log1p
sin: Final = np.sin
sqrt: Final = np.sqrt
tanh: Final = np.tanh
sign: Final = np.sign
where: Final = np.where
maximum: Final = np.maximum  # NaN if the first argument is; the second, a bound, never is NaN
minimum: Final = np.minimum

_erf: Any = np.frompyfunc(math.erf, 1, 1)


def erf(x: Real) -> Real:
    """The error function 2/√π·∫₀ˣ e^−t² dt."""
    return _erf(x).astype(x.dtype)


def sigmoid(x: Real) -> Real:
    """1 / (1 + e^−x), computed from e^−|x| to avoid overflow."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


def exp_below_0(x: Real) -> Real:
    """eˣ for x ≤ 0, where no kernel needs to avoid overflow."""
    return np.exp(x)


def log1p_exp(x: Real) -> Real:
    """ln(1 + eˣ) for x ≤ 0."""
    return np.log1p(np.exp(x))


def madd(a: Real, b: Real, c: Real) -> Real:
    """a·b + c, rounded once if the machine has fused multiply-add."""
    return a * b + c


def is_tiny(x: Real) -> Real:
    """Whether x is subnormal or zero."""
    return np.abs(x) < np.finfo(x.dtype).smallest_normal


PRIMITIVES: Final = {
    **{f.__name__: f for f in (erf, sigmoid, exp_below_0, log1p_exp, madd, is_tiny)},
    **{f.__name__: f for f in (exp, expm1, log, log1p, sqrt, tanh, sign, where, maximum, minimum)},
    "cos": cos,
    "sin": sin,
    "abs": abs,
}


class Formula:
    """Arithmetic on elements and numbers, as a function and as its syntax tree.

    function: the reference calls it with whole arrays. `of` makes a formula from a tree alone.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.__doc__ = function.__doc__
        self.names: dict[str, Any] = function.__globals__  # its functions and constants
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        if closed := {name: cell.cell_contents for name, cell in cells if _is_set(cell)}:
            self.names = {**self.names, **closed}
        code = function.__code__
        self.parameters: tuple[str, ...] = code.co_varnames[: code.co_argcount]
        self.draws = self.parameters[-1] == TAIL
        self.elements = self.parameters[: -1 if self.draws else None]  # elements and numbers
        self.arguments = self.elements  # the kernel's arguments except its outputs
        self.fields: tuple[str, ...] = ()  # names of the record's numbers

    def with_record(self, fields: tuple[str, ...]) -> Self:
        """A formula whose record has these numbers, which become arguments of the kernel."""
        *others, last = self.elements
        if last != RECORD or not fields:
            return self
        made = copy(self)
        made.fields, made.elements = fields, (*others, *fields)
        made.arguments = made.elements
        return made

    @classmethod
    def of(cls, tree: ast.FunctionDef, names: dict[str, Any]) -> Self:
        """The formula of a definition, with the meanings of names in `names`."""
        code = compile(ast.Module([tree], []), f"<formula {tree.name}>", "exec")
        made: dict[str, Any] = {}
        exec(code, names, made)
        formula = cls(made[tree.name])
        formula.tree = tree
        return formula

    @cached_property
    def tree(self) -> ast.FunctionDef:
        """The definition; for a Python function, read from its source at first use."""
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(self.function))).body
        assert isinstance(tree, ast.FunctionDef)
        tree.decorator_list = []  # lets `of` make a formula from it
        return tree

    def __call__(self, *given: Any) -> Any:
        """The function's value."""
        return self.function(*given)

    def over_arrays(
        self, outputs: tuple[str, ...], arguments: tuple[str, ...], tails: Callable[..., Any]
    ) -> Any:
        """The reference kernel: a function of `arguments`, arrays and numbers, that writes `outputs`.

        If the formula draws random numbers, its arguments include the counter; `tails` draws them.
        """
        inputs = [arguments.index(name) for name in self.arguments]
        counter = [arguments.index(name) for name in COUNTER] if self.draws else []
        written = [arguments.index(name) for name in outputs]

        def kernel(*given: Any) -> None:
            like = given[written[0]]
            drawn = [tails(like.size, *(given[i] for i in counter))] if counter else []
            drawn = [tail.astype(like.dtype).reshape(like.shape) for tail in drawn]
            results = self.results(*(given[i] for i in inputs), *drawn)
            for i, result in zip(written, results if len(written) > 1 else [results], strict=True):
                np.copyto(given[i], result)

        kernel.__module__, kernel.__doc__ = self.function.__module__, self.__doc__
        return kernel

    def results(self, *given: Any) -> Any:
        """The kernel's outputs for its arguments."""
        if not self.fields:
            return self.function(*given)
        count = len(given) - len(self.fields)
        numbers = zip(self.fields, given[count:], strict=True)
        return self.function(*given[:count], SimpleNamespace(**dict(numbers)))


def _is_set(cell: Any) -> bool:
    """Whether a variable of an enclosing function has a value yet."""
    try:
        return bool(cell.cell_contents is cell.cell_contents)
    except ValueError:
        return False


class RowSum(Formula):
    """row_loss = Σ value / divisor over the columns, in float64."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self.arguments = (*self.arguments, "divisor")

    def results(self, *given: Any) -> Any:
        """The sums divided by the divisor."""
        *elements, divisor = given
        return np.sum(self.function(*elements), axis=1, dtype=np.float64) / divisor


class RowSlope(Formula):
    """dy = slope·drow_loss / divisor."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self.arguments = ("drow_loss", *self.arguments, "divisor")

    def results(self, *given: Any) -> Any:
        """The slopes times the shares of their rows."""
        d, *elements, divisor = given
        return self.function(*elements) * (d / divisor)[:, None]


def formula(function: Callable[..., Any]) -> Formula:
    """Declare a function of elements that formulas may call."""
    return Formula(function)


def each(function: Callable[..., Any]) -> Any:
    """Declare an op's kernel by its formula for one element."""
    return Formula(function)
