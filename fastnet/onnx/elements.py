"""Formulas as ONNX nodes, from the text that `fastnet.formulas` makes of them.

So an activation, also one of a user's own, needs no other description. Numbers are computed in float64 and
rounded once, as on all backends.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping

import numpy as np

from fastnet.formulas.language import PRIMITIVES, Formula, Real, exp, formula, log, where
from fastnet.formulas.portable import ERF_FAR, ERF_NEAR, horner
from fastnet.formulas.translate import Text, Translator
from fastnet.onnx.nodes import Nodes

CAST = "element"
NEAR, FAR = ERF_NEAR[::-1], ERF_FAR[::-1]


@formula
def log1p(u: Real) -> Real:
    """ln(1 + u) as u·ln(w)/(w − 1), where w is 1 + u as it is rounded (W. Kahan)."""
    w = 1 + u
    return where(w == 1, u, log(w) * where(u == u + u, 1, u / (w - 1)))


@formula
def expm1(x: Real) -> Real:
    """eˣ − 1 as (u − 1)·x/ln(u), where u is eˣ as it is rounded (W. Kahan)."""
    u = exp(x)
    plain = (u - 1 == -1) | (u == u + u)
    return where(u == 1, x, where(plain, u - 1, (u - 1) * (x / log(u))))


@formula
def log1p_exp(x: Real) -> Real:
    """ln(1 + eˣ) for x ≤ 0."""
    return log1p(exp(x))


@formula
def erf(x: Real) -> Real:
    """The error function in float64, for which onnxruntime has no operator."""
    a = abs(x)
    square = a * a
    place = (a - 2) / (a + 2)
    near = a * horner(NEAR, square)
    far = 1 - exp(-square) * horner(FAR, place) / (1 + 2 * a)
    value = where(a < 1, near, where(a >= 6, 1, far))
    return where(x < 0, -value, value)


# Primitives that are formulas of others, and those that are one node.
MADE: dict[str, Formula] = {"log1p": log1p, "expm1": expm1, "log1p_exp": log1p_exp}
OPS = {
    "cos": "Cos",
    "sin": "Sin",
    "erf": "Erf",
    "exp": "Exp",
    "exp_below_0": "Exp",
    "log": "Log",
    "sqrt": "Sqrt",
    "tanh": "Tanh",
    "sigmoid": "Sigmoid",
    "sign": "Sign",
    "abs": "Abs",
    "where": "Where",
}
OPERATORS: dict[type[ast.AST], str] = {
    ast.Add: "Add",
    ast.Sub: "Sub",
    ast.Mult: "Mul",
    ast.Div: "Div",
    ast.BitAnd: "And",
    ast.BitOr: "Or",
    ast.Lt: "Less",
    ast.LtE: "LessOrEqual",
    ast.Gt: "Greater",
    ast.GtE: "GreaterOrEqual",
    ast.Eq: "Equal",
}


class Elements:
    """Writes formulas as nodes."""

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes
        self._translator = Translator({name: name for name in PRIMITIVES})

    def results(
        self, formula: Formula, elements: Mapping[str, str], numbers: Mapping[str, float]
    ) -> list[str]:
        """The names of a formula's results for elements, by the names of values, and numbers."""
        text = self._translator.text(formula, CAST, tuple(numbers))
        return _Reader(self, text, elements, numbers).results()

    def call(self, name: str, given: list[str]) -> str:
        """The name of the value of a function of elements."""
        nodes = self.nodes
        if name == "madd":
            return nodes.add("Add", nodes.add("Mul", given[0], given[1]), given[2])
        if name in ("maximum", "minimum"):
            return nodes.add({"maximum": "Max", "minimum": "Min"}[name], *given)
        if name == "is_tiny":
            least = nodes.constant(float(np.finfo(nodes.dtype).smallest_normal))
            return nodes.add("Less", nodes.add("Abs", *given), least)
        made = MADE.get(name)
        if name == "erf" and nodes.dtype == np.float64:
            made = erf
        elif made is None and name in OPS:
            return nodes.add(OPS[name], *given)
        formula = made or self._translator.called[name]
        elements = dict(zip(formula.parameters, given, strict=True))
        return self.results(formula, elements, {})[0]


class _Reader:
    """Reads the text of one formula."""

    def __init__(
        self, of: Elements, text: Text, elements: Mapping[str, str], numbers: Mapping[str, float]
    ) -> None:
        self.of, self.nodes, self.text = of, of.nodes, text
        self.numbers, self.elements = dict(numbers), dict(elements)
        self.truths: set[str] = set()  # the names of values that are comparisons

    def results(self) -> list[str]:
        for name, expression, kind in self.text.assignments:
            if kind == "number":
                self.numbers[name] = self.number(ast.parse(expression, mode="eval"))
                continue
            self.elements[name] = self.value(_parsed(expression))
        return [self.value(_parsed(expression)) for expression in self.text.results]

    def number(self, tree: ast.Expression) -> float:
        """The float64 value of an expression of numbers alone, which a translator has written."""
        with np.errstate(all="ignore"):
            known = {name: np.float64(value) for name, value in self.numbers.items()}
            made = ast.fix_missing_locations(tree)
            return float(eval(compile(made, "<formula>", "eval"), {"__builtins__": {}}, known))

    def value(self, node: ast.expr) -> str:
        if isinstance(node, ast.Name):
            return self.elements[node.id]
        if isinstance(node, ast.UnaryOp):
            return self.nodes.add("Neg", self.value(node.operand))
        if isinstance(node, ast.BinOp):
            op = OPERATORS[type(node.op)]
            found = self.nodes.add(op, self.value(node.left), self.value(node.right))
            return self.truth(found) if op in ("And", "Or") else found
        if isinstance(node, ast.Compare):
            return self.compared(node)
        assert isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        if node.func.id == CAST:
            return self.nodes.constant(self.number(ast.Expression(node.args[0])))
        found = self.of.call(node.func.id, [self.value(a) for a in node.args])
        return self.truth(found) if node.func.id == "is_tiny" else found

    def compared(self, node: ast.Compare) -> str:
        left, (other,), (op,) = self.value(node.left), node.comparators, node.ops
        if left in self.truths and isinstance(other, ast.Constant):  # a negated comparison
            return self.truth(self.nodes.add("Not", left))
        right = self.value(other)
        if isinstance(op, ast.NotEq):
            return self.truth(self.nodes.add("Not", self.nodes.add("Equal", left, right)))
        return self.truth(self.nodes.add(OPERATORS[type(op)], left, right))

    def truth(self, name: str) -> str:
        self.truths.add(name)
        return name


def _parsed(expression: str) -> ast.expr:
    return ast.parse(expression, mode="eval").body
