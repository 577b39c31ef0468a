"""Activations of your own, as plain functions of one element."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any

from fastnet.builder import Builder
from fastnet.errors import FormulaError, HyperparameterError, check_real, shown
from fastnet.formulas.derive import spelled_out
from fastnet.formulas.language import COUNTER, PRIMITIVES, RECORD, TAIL, Formula
from fastnet.formulas.translate import Translator
from fastnet.layers.pointwise import Activation, Elementwise
from fastnet.op import GUESTS, MAX_SCALARS

ALLOWED = (
    "a formula is straight-line code of + − * /, comparisons, & | ~ of these, numbers, and the functions "
    f"{', '.join(sorted(PRIMITIVES))} and horner of fastnet.formulas, or NumPy's of these names; and of "
    "functions of this kind that are marked by fastnet.formulas.formula"
)


def elementwise(function: Callable[..., Any]) -> type[Activation]:
    """The layer y = f(x), elementwise, of a function f of one element; its derivative is derived.

        from fastnet.formulas import sigmoid

        @fn.elementwise
        def swish(x, beta=1.0):
            return x * sigmoid(beta * x)

        model = fn.Sequential(fn.Linear(4, 8), swish(beta=2.0), fn.Linear(8, 1))

    function: a `def` in a file or a notebook, as its source is read. The first argument is the element; up
        to four others are numbers, the layer's hyper-parameters, with their defaults. It assigns names and
        returns a value, by arithmetic, comparisons, constants, and the functions of `fastnet.formulas`;
        `where(condition, a, b)` chooses. Constants have the values of this moment.

    Returns a class of layers with the function's name. Every backend runs it within its native call: C and
    Numba compile it by Numba, at first use, and keep the code on disk; CUDA compiles it for the device.
    Without Numba the backend "c" calls NumPy in each step, as for a CustomLayer. At a kink the derivative
    is that of the branch that f takes, so f with PyTorch's comparisons has PyTorch's derivative. NaN passes
    through. The bits are those of Numba, and may differ between machines; they are the same for any number
    of threads.

    `fn.register(swish)`, or `fn.load(path, layers=[swish])`, loads models with the layer from files. Raises
    FormulaError for anything that is not part of the language, with its line, and HyperparameterError for
    what is no such function.
    """
    return _class_of(_checked(function), function)


def _checked(function: Any) -> Formula:
    """The function as a formula of x and its numbers, which are called a0, a1, ….."""
    if not isinstance(function, FunctionType) or function.__name__ == "<lambda>":
        raise HyperparameterError(
            f"function is {shown(function)}; expected a function that `def` defines, as a file of a model "
            "knows its layers by their names"
        )
    name, given = function.__name__, list(inspect.signature(function).parameters.values())
    if not given or any(p.kind is not p.POSITIONAL_OR_KEYWORD for p in given):
        raise HyperparameterError(
            f"{name} takes {inspect.signature(function)}; expected an element and numbers, such as "
            "(x, a=1.0)"
        )
    if len(given) > 1 + MAX_SCALARS:
        raise HyperparameterError(
            f"{name} takes {len(given) - 1} numbers; expected at most {MAX_SCALARS}"
        )
    if given[0].default is not inspect.Parameter.empty:
        raise HyperparameterError(
            f"{name} has a default for the element {given[0].name}; expected none"
        )
    for p in given:
        taken = p.name in (RECORD, TAIL, *COUNTER) or p.name.startswith("_")
        if taken or (p is not given[0] and hasattr(Activation, p.name)):
            raise HyperparameterError(
                f"{name} has an argument {p.name!r}, a name that layers use; choose another"
            )
    formula = Formula(function)
    numbers = tuple(p.name for p in given[1:])
    try:
        text = Translator({name: name for name in PRIMITIVES}).text(formula, "R", numbers)
    except FormulaError as error:
        raise FormulaError(f"{error}; {ALLOWED}") from None
    except (OSError, SyntaxError, ValueError, AssertionError):
        raise HyperparameterError(
            f"{name} has no source that can be read; define it by `def` in a file or in a notebook"
        ) from None
    if len(text.results) > 1:
        raise FormulaError(f"formula {name} returns {len(text.results)} values; expected one")
    return spelled_out(formula, ["x", *(f"a{i}" for i in range(len(numbers)))])


def _op_of(name: str, formula: Formula) -> type[Elementwise]:
    """The op of a formula; the same one for functions of one name and equal arithmetic."""
    from hashlib import sha256  # it loads OpenSSL

    others = {n: v for n, v in formula.names.items() if isinstance(v, tuple)}
    text = f"{ast.unparse(formula.tree)}\n{sorted(others.items())}"
    own = f"{name}_{sha256(text.encode()).hexdigest()[:32]}"
    if known := GUESTS.get(f"{own}_forward"):
        return known.op  # type: ignore[return-value]
    return type(
        own,
        (Elementwise,),
        {"guest": True, "scalars": formula.parameters[1:], "forward": formula, "__doc__": ""},
    )


def _class_of(formula: Formula, function: Any) -> type[Activation]:
    name, (_, *numbers) = function.__name__, inspect.signature(function).parameters.values()
    op = _op_of(name, formula)
    names = dict(zip(op.scalars, (p.name for p in numbers), strict=True))
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in numbers]
    signature = inspect.Signature([own, *plain])
    for p in numbers:
        if p.default is not p.empty:
            check_real(f"{name}: the default of {p.name}", p.default)

    def make(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            given = signature.bind(self, *args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{name}: {error}") from None
        given.apply_defaults()
        values = {n: check_real(n, v) for n, v in given.arguments.items() if n != "self"}
        super(made, self).__init__(**values)

    def emit(self: Any, g: Builder, x: Any) -> Any:
        """Apply the op."""
        return g.apply(op, x=x, **{slot: getattr(self, n) for slot, n in names.items()})

    make.__signature__ = signature  # type: ignore[attr-defined]
    made: type[Activation] = type(
        name,
        (Activation,),
        {
            "__init__": make,
            "emit": emit,
            "op": op,
            "__module__": function.__module__,
            "__qualname__": function.__qualname__,
            "__doc__": function.__doc__ or f"{name}, elementwise.",
        },
    )
    return made
