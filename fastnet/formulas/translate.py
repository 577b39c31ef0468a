"""Formulas as source text, for Numba and for C: Python's expressions are written alike in both."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from fastnet.formulas.language import PRIMITIVES, Formula, is_tiny, where
from fastnet.formulas.portable import horner

Kind = Literal["number", "element", "truth"]  # float64; the model's dtype; of comparisons


@dataclass
class Text:
    """A formula's text: assignments (name, expression) in order, and the expressions returned."""

    assignments: list[tuple[str, str, Kind]] = field(default_factory=list)
    results: list[str] = field(default_factory=list)


class Translator:
    """Translates formulas, and collects the functions that they call.

    primitives: how the language calls them. suffix: of variables' names.
    """

    def __init__(self, primitives: Mapping[str, str], suffix: str = "") -> None:
        self.primitives, self.suffix = primitives, suffix
        self.called: dict[str, Formula] = {}  # formulas that are called, callees first

    def text(self, formula: Formula, cast: str, numbers: tuple[str, ...] = ()) -> Text:
        """The text of a formula; `numbers` are those among its arguments that are no elements.

        `cast` is the name of what makes a number an element.
        """
        return _Reader(self, formula, cast, numbers).read()


class _Reader:
    def __init__(
        self, translator: Translator, formula: Formula, cast: str, numbers: tuple[str, ...]
    ) -> None:
        self.translator, self.formula, self.cast = translator, formula, cast
        self.kinds: dict[str, Kind] = {
            name: "number" if name in numbers else "element" for name in formula.parameters
        }

    def read(self) -> Text:
        tree, text = self.formula.tree, Text()
        for line in tree.body:
            if isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant):
                continue  # the docstring
            if isinstance(line, ast.Return) and line.value is not None:
                several = isinstance(line.value, ast.Tuple)
                values = line.value.elts if isinstance(line.value, ast.Tuple) else [line.value]
                assert several == (len(values) > 1)
                text.results = [ast.unparse(self.element(value)) for value in values]
            elif isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
                name = line.targets[0].id
                if name in self.kinds or len(line.targets) > 1:
                    raise self.error(line, "assigns a name twice")
                value, kind = self.expression(line.value)
                self.kinds[name] = kind
                text.assignments.append((self.variable(name), ast.unparse(value), kind))
            else:
                raise self.error(line, "is neither an assignment nor a return")
        if not text.results:
            raise self.error(tree, "returns nothing")
        return text

    def variable(self, name: str) -> str:
        return name + self.translator.suffix

    def error(self, node: ast.AST, what: str) -> TypeError:
        return TypeError(
            f"formula {self.formula.function.__qualname__}: {ast.unparse(node)!r} {what}"
        )

    def element(self, node: ast.expr) -> ast.expr:
        """An expression as an element."""
        value, kind = self.expression(node)
        if kind == "truth":
            raise self.error(node, "is no number")
        return call(self.cast, [value]) if kind == "number" else value

    def expression(self, node: ast.expr) -> tuple[ast.expr, Kind]:
        """The translation of an expression, and its kind."""
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
            return ast.Constant(float(node.value)), "number"
        if isinstance(node, ast.Name):
            return self.name(node)
        if isinstance(node, ast.UnaryOp):
            operand, kind = self.expression(node.operand)
            if isinstance(node.op, ast.Invert) and kind == "truth":
                return ast.Compare(operand, [ast.Eq()], [ast.Constant(0)]), kind
            if isinstance(node.op, ast.USub) and kind != "truth":
                return ast.UnaryOp(node.op, operand), kind
        if isinstance(node, ast.BinOp):
            return self.binary(node)
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            left, right, _ = self.pair(node.left, node.comparators[0])
            return ast.Compare(left, node.ops, [right]), "truth"
        if isinstance(node, ast.Call) and not node.keywords:
            return self.call(node), "truth" if self.callee(node)[1] is is_tiny else "element"
        raise self.error(node, "is not part of the language of formulas")

    def name(self, node: ast.Name) -> tuple[ast.expr, Kind]:
        if node.id in self.kinds:
            return ast.Name(self.variable(node.id)), self.kinds[node.id]
        constant = self.formula.names.get(node.id)
        if not isinstance(constant, (int, float)):
            raise self.error(node, "is not a number")
        return ast.Constant(float(constant)), "number"

    def pair(self, a: ast.expr, b: ast.expr) -> tuple[ast.expr, ast.expr, Kind]:
        (left, of_left), (right, of_right) = self.expression(a), self.expression(b)
        if of_left == of_right:
            return left, right, of_left
        return self.element(a), self.element(b), "element"

    def binary(self, node: ast.BinOp) -> tuple[ast.expr, Kind]:
        left, right, kind = self.pair(node.left, node.right)
        logical = isinstance(node.op, (ast.BitAnd, ast.BitOr))
        arithmetic = isinstance(node.op, (ast.Add, ast.Sub, ast.Mult, ast.Div))
        if not (logical if kind == "truth" else arithmetic):
            raise self.error(node, "is not part of the language of formulas")
        return ast.BinOp(left, node.op, right), kind

    def callee(self, node: ast.Call) -> tuple[str, Any]:
        """The name and the function that a call means: f(…), or module.f(…)."""
        names = self.formula.names
        if isinstance(node.func, ast.Name):
            name = node.func.id
            return name, abs if name == "abs" else names.get(name)
        if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
            return node.func.attr, getattr(names.get(node.func.value.id), node.func.attr, None)
        raise self.error(node, "is no call of a function by its name")

    def polynomial(self, node: ast.Call) -> ast.expr:
        """horner(coefficients, x), written out."""
        coefficients, x = node.args
        assert isinstance(coefficients, ast.Name)
        if not isinstance(x, ast.Name):
            raise self.error(node, "needs a name")
        first, *others = map(ast.Constant, self.formula.names[coefficients.id])
        value: ast.expr = call(self.cast, [first])
        for c in others:
            value = call(
                self.translator.primitives["madd"], [value, self.element(x), call(self.cast, [c])]
            )
        return value

    def call(self, node: ast.Call) -> ast.expr:
        if self.callee(node)[1] is horner:
            return self.polynomial(node)
        kinds = [self.expression(a)[1] for a in node.args]
        name, other = self.callee(node)
        if other is where:
            if kinds[0] != "truth" or kinds[1:] == ["number", "number"]:
                raise self.error(node, "needs a comparison, and an element among its values")
            values = [self.expression(node.args[0])[0], *map(self.element, node.args[1:])]
            return call(self.translator.primitives[name], values)
        if "element" not in kinds:
            raise self.error(node, "is a function of numbers alone")
        values = [self.element(a) for a in node.args]
        if name in PRIMITIVES and other is PRIMITIVES[name]:
            return call(self.translator.primitives[name], values)
        if not isinstance(other, Formula):
            raise self.error(node, "calls what is not a formula")
        if name not in self.translator.called:
            self.translator.text(other, self.cast)  # its own callees come first
            self.translator.called[name] = other
        return call(name, values)


def call(name: str, arguments: list[ast.expr]) -> ast.expr:
    """A call of a function by its name."""
    return ast.Call(ast.parse(name, mode="eval").body, arguments, [])


def indented(lines: list[str], by: int = 1) -> list[str]:
    """Lines, further to the right."""
    return ["    " * by + line for line in lines]
