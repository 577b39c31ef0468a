"""Derivatives of formulas, as formulas.

The derivative of straight-line code is straight-line code: each value has a tangent, its derivative times a
seed. So what comes out is a formula again, from which every backend makes its kernel, and which has a
derivative itself. A value that is used twice is computed once.

Where f jumps or has a kink, the derivative follows the branch that f takes: `where(x > 0, x, a * x)` has
the slope a at 0, as PyTorch's LeakyReLU has. `maximum(x, b)` and `minimum(x, b)` take x where both are
equal, as PyTorch's clamp does. `abs` has the slope 0 at 0, and `sign` and comparisons have the slope 0.
Where kinks of a formula cancel, as in max(x, 0) + ln(1 + e^−|x|) at 0, the derivative does not know it.
"""

from __future__ import annotations

import ast
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastnet.formulas.language import PRIMITIVES, RECORD, Formula, is_tiny, sign
from fastnet.formulas.portable import horner
from fastnet.formulas.translate import call, called, constant_of, indented, parts

TWO_OVER_ROOT_PI = 2.0 / math.sqrt(math.pi)
_LEAVES = ("name", "field", "number")


@dataclass(eq=False)
class _Value:
    """A value of a formula: what computes it, and from which values. Equal values are one object."""

    kind: str  # a leaf's, or the name of a primitive or of one of ast's operators
    of: tuple[Any, ...]  # values; of a leaf its name or number
    name: str = ""  # a variable's, in the formula's text


@dataclass
class _Values:
    """The values of one derivation."""

    known: dict[Any, _Value] = field(default_factory=dict)

    def make(self, kind: str, *of: Any) -> _Value:
        if kind == "USub" and of[0].kind == "number":
            return self.number(-of[0].of[0])
        key = kind, *(id(v) if isinstance(v, _Value) else v for v in of)
        return self.known.setdefault(key, _Value(kind, of))

    def number(self, value: float) -> _Value:
        return self.make("number", value)

    def add(self, a: _Value | None, b: _Value | None) -> _Value | None:
        """The sum of two tangents; None is zero."""
        return self.make("Add", a, b) if a and b else a or b

    def minus(self, a: _Value | None) -> _Value | None:
        return a and self.make("USub", a)

    def times(self, a: _Value, b: _Value | None) -> _Value | None:
        """A slope times a tangent."""
        if a.kind == "number" and not a.of[0]:
            return None
        return b and self.make("Mult", a, b)

    def over(self, a: _Value | None, b: _Value) -> _Value | None:
        return a and self.make("Div", a, b)

    def choice(self, condition: _Value, a: _Value | None, b: _Value | None) -> _Value | None:
        if a is b:
            return a
        none = self.number(0.0)
        return self.make("where", condition, a or none, b or none)


class _Reader:
    """Reads a formula's values; formulas that it calls are read in their places."""

    def __init__(self, values: _Values, formula: Formula, known: dict[str, _Value]) -> None:
        self.values, self.formula, self.known = values, formula, known

    def read(self) -> list[_Value]:
        """The values that the formula returns."""
        *lines, last = self.formula.tree.body
        for line in lines:
            if isinstance(line, ast.Assign):
                self.assign(line)
        assert isinstance(last, ast.Return) and last.value is not None
        return [self.value(node) for node in parts(last.value)]

    def assign(self, line: ast.Assign) -> None:
        (target,) = line.targets
        if isinstance(target, ast.Tuple):
            assert isinstance(line.value, ast.Call)
            found = self.results(line.value)
        else:
            found = [self.value(line.value)]
        for name, value in zip(parts(target), found, strict=True):
            assert isinstance(name, ast.Name)
            self.known[name.id] = value
            if value.kind not in _LEAVES:
                value.name = value.name or name.id.rstrip("_")

    def results(self, node: ast.Call) -> list[_Value]:
        """The values of a call of a formula."""
        _, callee = called(node, self.formula.names)
        assert isinstance(callee, Formula)
        given = dict(zip(callee.parameters, map(self.value, node.args), strict=True))
        return _Reader(self.values, callee, given).read()

    def value(self, node: ast.expr) -> _Value:
        make = self.values.make
        if isinstance(node, ast.Constant):
            return make("number", float(node.value))  # type: ignore[arg-type]
        if isinstance(node, ast.Name) and node.id in self.known:
            return self.known[node.id]
        if isinstance(node, (ast.Name, ast.Attribute)):
            constant = constant_of(node, self.formula.names)
            if constant is not None:
                return make("number", constant)
            assert isinstance(node, ast.Attribute)  # of the record
            return make("field", node.attr)
        if isinstance(node, ast.UnaryOp):
            return make(type(node.op).__name__, self.value(node.operand))
        if isinstance(node, ast.BinOp):
            return make(type(node.op).__name__, self.value(node.left), self.value(node.right))
        if isinstance(node, ast.Compare):
            (op,), (other,) = node.ops, node.comparators
            return make(type(op).__name__, self.value(node.left), self.value(other))
        assert isinstance(node, ast.Call)
        name, callee = called(node, self.formula.names)
        if isinstance(callee, Formula):
            (found,) = self.results(node)
            return found
        if callee is horner:
            coefficients, x = node.args
            assert isinstance(coefficients, ast.Name)
            return make("horner", tuple(self.formula.names[coefficients.id]), self.value(x))
        return make(name, *map(self.value, node.args))


class _Tangents:
    """The tangents of values, for seeds that are the tangents of some of them; None: zero everywhere."""

    def __init__(self, values: _Values, seeds: Mapping[_Value, _Value]) -> None:
        self.values = values
        self.known: dict[_Value, _Value | None] = {**seeds}

    def of(self, value: _Value) -> _Value | None:
        if value not in self.known:
            rule = _RULES.get(value.kind)
            self.known[value] = rule(self, value, *value.of) if rule else None
        return self.known[value]

    # A rule for each primitive and operator that has a slope: of y, the value, from what it is made of.

    def add(self, y: _Value, a: _Value, b: _Value) -> _Value | None:
        return self.values.add(self.of(a), self.of(b))

    def subtract(self, y: _Value, a: _Value, b: _Value) -> _Value | None:
        da, db = self.of(a), self.of(b)
        return self.values.make("Sub", da, db) if da and db else da or self.values.minus(db)

    def multiply(self, y: _Value, a: _Value, b: _Value) -> _Value | None:
        v = self.values
        if a is b:
            return v.times(v.make("Mult", v.number(2.0), a), self.of(a))
        return v.add(v.times(b, self.of(a)), v.times(a, self.of(b)))

    def divide(self, y: _Value, a: _Value, b: _Value) -> _Value | None:
        v, da, db = self.values, self.of(a), self.of(b)
        back = v.times(y, db)  # (a/b)′ = (a′ − y·b′)/b
        return v.over(v.make("Sub", da, back) if da and back else da or v.minus(back), b)

    def negate(self, y: _Value, a: _Value) -> _Value | None:
        return self.values.minus(self.of(a))

    def absolute(self, y: _Value, x: _Value) -> _Value | None:
        return self.values.times(self.values.make("sign", x), self.of(x))

    def itself(self, y: _Value, x: _Value) -> _Value | None:
        return self.values.times(y, self.of(x))

    def expm1(self, y: _Value, x: _Value) -> _Value | None:
        return self.values.times(self.values.make("exp", x), self.of(x))

    def log(self, y: _Value, x: _Value) -> _Value | None:
        return self.values.over(self.of(x), x)

    def log1p(self, y: _Value, x: _Value) -> _Value | None:
        return self.values.over(self.of(x), self.values.make("Add", self.values.number(1.0), x))

    def sqrt(self, y: _Value, x: _Value) -> _Value | None:
        return self.values.over(self.of(x), self.values.make("Mult", self.values.number(2.0), y))

    def sin(self, y: _Value, x: _Value) -> _Value | None:
        return self.values.times(self.values.make("cos", x), self.of(x))

    def cos(self, y: _Value, x: _Value) -> _Value | None:
        return self.values.minus(self.values.times(self.values.make("sin", x), self.of(x)))

    def tanh(self, y: _Value, x: _Value) -> _Value | None:
        v = self.values
        return v.times(v.make("Sub", v.number(1.0), v.make("Mult", y, y)), self.of(x))

    def sigmoid(self, y: _Value, x: _Value) -> _Value | None:
        v = self.values
        return v.times(v.make("Mult", y, v.make("Sub", v.number(1.0), y)), self.of(x))

    def erf(self, y: _Value, x: _Value) -> _Value | None:
        v = self.values
        bell = v.make("exp_below_0", v.make("USub", v.make("Mult", x, x)))
        return v.times(v.make("Mult", v.number(TWO_OVER_ROOT_PI), bell), self.of(x))

    def log1p_exp(self, y: _Value, x: _Value) -> _Value | None:
        return self.values.times(self.values.make("sigmoid", x), self.of(x))

    def madd(self, y: _Value, a: _Value, b: _Value, c: _Value) -> _Value | None:
        total = self.of(c)
        for slope, tangent in ((a, self.of(b)), (b, self.of(a))):
            if tangent and total:
                total = self.values.make("madd", slope, tangent, total)
            else:
                total = self.values.times(slope, tangent) or total
        return total

    def horner(self, y: _Value, coefficients: tuple[float, ...], x: _Value) -> _Value | None:
        powers = range(len(coefficients) - 1, 0, -1)
        slopes = tuple(c * k for c, k in zip(coefficients, powers, strict=False))
        if not slopes:
            return None
        v = self.values
        slope = v.make("horner", slopes, x) if len(slopes) > 1 else v.number(slopes[0])
        return v.times(slope, self.of(x))

    def where(self, y: _Value, condition: _Value, a: _Value, b: _Value) -> _Value | None:
        return self.values.choice(condition, self.of(a), self.of(b))

    def maximum(self, y: _Value, a: _Value, bound: _Value) -> _Value | None:
        da, db = self.of(a), self.of(bound)
        return self.values.choice(self.values.make("Gt", bound, a), db, da)

    def minimum(self, y: _Value, a: _Value, bound: _Value) -> _Value | None:
        da, db = self.of(a), self.of(bound)
        return self.values.choice(self.values.make("Lt", bound, a), db, da)


_RULES: dict[str, Callable[..., _Value | None]] = {
    "Add": _Tangents.add,
    "Sub": _Tangents.subtract,
    "Mult": _Tangents.multiply,
    "Div": _Tangents.divide,
    "USub": _Tangents.negate,
    "abs": _Tangents.absolute,
    "exp": _Tangents.itself,
    "exp_below_0": _Tangents.itself,
    **{
        rule.__name__: rule
        for rule in (
            *(_Tangents.expm1, _Tangents.log, _Tangents.log1p, _Tangents.sqrt, _Tangents.tanh),
            *(
                _Tangents.sin,
                _Tangents.cos,
                _Tangents.sigmoid,
                _Tangents.erf,
                _Tangents.log1p_exp,
                _Tangents.madd,
            ),
            *(_Tangents.horner, _Tangents.where, _Tangents.maximum, _Tangents.minimum),
        )
    },
}
FLAT = (sign.__name__, is_tiny.__name__)  # primitives without slope


class _Writer:
    """Writes values as the text of a function."""

    def __init__(self, taken: Iterable[str]) -> None:
        self.taken = {*taken, *PRIMITIVES, "horner"}
        self.names: dict[str, Any] = {**PRIMITIVES, "horner": horner}
        self.assigned: dict[_Value, ast.expr] = {}
        self.lines: list[str] = []
        self.uses: Counter[_Value] = Counter()

    def count(self, value: _Value) -> None:
        self.uses[value] += 1
        if self.uses[value] == 1:
            for part in value.of:
                if isinstance(part, _Value):
                    self.count(part)

    def free(self, name: str) -> str:
        """A name that is not taken yet, from now on taken."""
        new, i = name, 0
        while new in self.taken:
            i += 1
            new = f"{name}{i}"
        self.taken.add(new)
        return new

    def text(self, value: _Value) -> ast.expr:
        """The expression of a value; one that is used again becomes a variable."""
        if value in self.assigned:
            return self.assigned[value]
        made = self.expression(value)
        if self.uses[value] > 1 and value.kind not in _LEAVES:
            made = self.assign(value, value.name or "v", made)
        return made

    def assign(self, value: _Value, name: str, made: ast.expr) -> ast.expr:
        """Assign the expression of a value to a variable."""
        variable = self.assigned[value] = ast.Name(self.free(name))
        self.lines.append(f"{variable.id} = {ast.unparse(made)}")
        return variable

    def expression(self, value: _Value) -> ast.expr:
        kind, of = value.kind, value.of
        if kind == "name":
            return ast.Name(of[0])
        if kind == "field":
            return ast.Attribute(ast.Name(RECORD), of[0])
        if kind == "number":
            return ast.Constant(of[0])
        if kind == "horner":
            coefficients, name = of[0], self.free("coefficients")
            self.names[name] = coefficients
            x = self.text(of[1])
            if not isinstance(x, ast.Name):  # `horner` takes a name
                x = self.assign(of[1], of[1].name or "x", x)
            return call("horner", [ast.Name(name), x])
        texts = [self.text(part) for part in of]
        if kind in PRIMITIVES:
            return call(kind, texts)
        op = getattr(ast, kind)()
        if isinstance(op, ast.unaryop):
            return ast.UnaryOp(op, *texts)
        if isinstance(op, ast.cmpop):
            return ast.Compare(texts[0], [op], texts[1:])
        return ast.BinOp(texts[0], op, texts[1])


def derivative(formula: Formula, by: str, seed: str = "seed") -> Formula:
    """seed·∂f/∂by of each value that a formula f returns, as a formula of the seed and f's arguments.

    by: the name of an argument that is an element. seed: the name of the new, first argument. The product
    is what chain rules need, and keeps every value an element. The derivative of a derivative is the
    second.
    """
    values, results, given = _values(formula)
    if by not in formula.elements:
        raise TypeError(f"formula {_name(formula)}: {by!r} is not one of {formula.elements}")
    tangents = _Tangents(values, {given[by]: values.make("name", seed)})
    found = [tangents.of(result) for result in results]
    none = values.make("Mult", values.number(0.0), values.make("name", seed))
    arguments = [seed, *formula.parameters]
    written = [t or none for t in found]
    return _written(f"{_name(formula)}_by_{by}", arguments, written, formula.function.__module__)


def tangent_of(
    formula: Formula,
    seeds: Mapping[str, str],
    name: str,
    computed: tuple[Sequence[str], Formula] | None = None,
) -> Formula | None:
    """The tangent of the one value that a formula f returns: Σ ∂f/∂a·ȧ over some of its arguments a.

    seeds: the name of ȧ for each of these. name: the new formula's; it takes those arguments that it needs.
    computed: names of f's arguments that another formula computes, and that formula, whose arguments then
    take their places. None: the tangent is zero everywhere.
    """
    values, given, names = _Values(), dict[str, _Value](), list(formula.parameters)
    if computed is not None:
        outputs, other = computed
        names = [*(n for n in other.parameters if n not in names), *names]
    given = {n: values.make("name", n) for n in names}
    if computed is not None:
        made = dict(zip(outputs, _Reader(values, other, dict(given)).read(), strict=True))
        given |= {n: v for n, v in made.items() if n in formula.parameters}
    known = {n: given[n] for n in formula.parameters}
    (result,) = _Reader(values, formula, known).read()
    made_seeds = {given[a]: values.make("name", seed) for a, seed in seeds.items()}
    found = _Tangents(values, made_seeds).of(result)
    if found is None:
        return None
    used = _parts(found)
    arguments = [n for n in (*seeds.values(), *names) if values.make("name", n) in used]
    return _written(name, arguments, [found], formula.function.__module__)


def vjp_of(forward: Formula, outputs: Sequence[str], by: str) -> Formula:
    """The vector-Jacobian product of an elementwise op, from its forward: d·∂f/∂by for the first output.

    outputs: the names of the values that `forward` returns. The formula takes the first one's gradient d,
    and only what it needs: the outputs where these spare it the input, else the input; and numbers.
    """
    if forward.draws:
        raise TypeError(f"formula {_name(forward)} draws; expected a vjp of its own")
    values, results, given = _values(forward)
    seed = values.make("name", f"d{outputs[0]}")
    slope = _Tangents(values, {given[by]: seed}).of(results[0])
    found = slope or values.make("Mult", values.number(0.0), seed)
    kept = {v: values.make("name", n) for v, n in zip(results, outputs, strict=True)}
    short = _with(values, found, kept)
    if given[by] not in _parts(short):
        found = short
    names, used = [f"d{outputs[0]}", *outputs, *forward.parameters], _parts(found)
    arguments = [n for n in names if values.make("name", n) in used]
    return _written(f"{_name(forward)}_vjp", arguments, [found], forward.function.__module__)


def spelled_out(formula: Formula, arguments: Sequence[str]) -> Formula:
    """The formula with these names of its arguments; its constants and what it calls are written out.

    It depends on no name outside it; two formulas of equal arithmetic have equal texts.
    """
    values = _Values()
    given = [values.make("name", name) for name in arguments]
    results = _Reader(values, formula, dict(zip(formula.parameters, given, strict=True))).read()
    return _written("formula", arguments, results, formula.function.__module__)


def _name(formula: Formula) -> str:
    return formula.function.__name__.strip("<>")


def _values(formula: Formula) -> tuple[_Values, list[_Value], dict[str, _Value]]:
    """A formula's results, and its arguments by name."""
    values = _Values()
    names = [n for n in formula.parameters if n != RECORD]
    given = {name: values.make("name", name) for name in names}
    if RECORD in formula.parameters:
        given[RECORD] = values.make("name", RECORD)
    return values, _Reader(values, formula, dict(given)).read(), given


def _with(values: _Values, value: _Value, kept: dict[_Value, _Value]) -> _Value:
    """The value with others in place of parts of it."""
    if value in kept:
        return kept[value]
    of = [_with(values, p, kept) if isinstance(p, _Value) else p for p in value.of]
    kept[value] = values.make(value.kind, *of)
    kept[value].name = value.name
    return kept[value]


def _parts(value: _Value) -> set[_Value]:
    """The value and all from which it is computed."""
    found, left = {value}, [value]
    while left:
        new = {p for p in left.pop().of if isinstance(p, _Value)} - found
        found |= new
        left += new
    return found


def _written(
    name: str, arguments: Sequence[str], results: Sequence[_Value], module: str
) -> Formula:
    """The formula of these results, as a function of a module."""
    writer = _Writer(arguments)
    writer.names["__name__"] = module
    for result in results:
        writer.count(result)
    texts = [writer.text(result) for result in results]
    value = texts[0] if len(texts) == 1 else ast.Tuple(texts)
    lines = [*writer.lines, f"return {ast.unparse(value)}"]
    text = "\n".join([f"def {name}({', '.join(arguments)}):", *indented(lines)])
    (tree,) = ast.parse(text).body
    assert isinstance(tree, ast.FunctionDef)
    return Formula.of(tree, writer.names)
