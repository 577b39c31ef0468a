"""Formulas as text: expressions that are valid both in Python and in C."""

from __future__ import annotations

import ast
import builtins
import os
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Literal

import numpy as np

from fastnet.errors import FormulaError
from fastnet.formulas.language import PRIMITIVES, RECORD, Formula, is_tiny, where
from fastnet.formulas.portable import horner

Kind = Literal["number", "element", "truth", "record"]  # float64, model's dtype, comparison, record
Value = tuple[ast.expr, Kind]
_RECORD: Value = ast.Name(RECORD), "record"


@dataclass
class Text:
    """A formula's text: assignments (name, expression) in order, and the expressions returned."""

    assignments: list[tuple[str, str, Kind]] = field(default_factory=list)
    results: list[str] = field(default_factory=list)


class Translator:
    """Translates formulas, and collects the called formulas that stay functions.

    primitives: their names in the target language. suffix: appended to names of variables.
    """

    def __init__(self, primitives: Mapping[str, str], suffix: str = "") -> None:
        self.primitives, self.suffix = primitives, suffix
        self.called: dict[str, Formula] = {}  # callees first

    def text(self, formula: Formula, cast: str, numbers: tuple[str, ...] = ()) -> Text:
        """The text of a formula; `numbers` are those of its arguments, or of its record, that are numbers.

        `cast` is the name of the function that converts a number to an element.
        """
        reader = _Reader(self, formula, cast, numbers)
        values, last = reader.read(), formula.tree.body[-1]
        reader.text.results = [ast.unparse(reader.as_element(last, value)) for value in values]
        return reader.text


class _Reader:
    """Reads a formula; inlines the formulas that it calls with numbers or for several values."""

    def __init__(
        self, translator: Translator, formula: Formula, cast: str, numbers: tuple[str, ...]
    ) -> None:
        self.translator, self.formula, self.cast, self.text = translator, formula, cast, Text()
        self.fields = {name: self.variable(name, "number") for name in numbers}
        elements = {name: self.variable(name, "element") for name in formula.parameters}
        self.known = elements | {n: v for n, v in self.fields.items() if n in elements}
        if RECORD in self.known:
            self.known[RECORD] = _RECORD
        self.taken = {*self.fields, *self.known}  # names of existing variables

    def variable(self, name: str, kind: Kind) -> Value:
        return ast.Name(name + self.translator.suffix), kind

    def read(self) -> list[Value]:
        """The values that the formula returns; adds its assignments to the text."""
        *lines, last = self.formula.tree.body
        for line in lines:
            if isinstance(line, ast.Assign) and len(line.targets) == 1:
                self.assign(line, line.targets[0])
            elif not (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)):
                raise self.error(line, "is neither an assignment nor a docstring")
        if not isinstance(last, ast.Return) or last.value is None:
            raise self.error(last, "does not return a value")
        return [self.expression(value) for value in parts(last.value)]

    def assign(self, line: ast.Assign, target: ast.expr) -> None:
        several = isinstance(target, ast.Tuple)
        values = self.several(line.value) if several else [self.expression(line.value)]
        names = [name.id for name in parts(target) if isinstance(name, ast.Name)]
        if len(names) != len(values):
            raise self.error(line, f"needs {len(values)} names")
        for name, value in zip(names, values, strict=True):
            if name in self.known:
                raise self.error(line, "assigns a name twice")
            if name != "_":
                self.known[name] = self.named(name, value) if several else self.kept(name, value)

    def kept(self, name: str, value: Value) -> Value:
        """Assign a value to a new variable, with a number after its name if the name exists."""
        new, i = name, 0
        while new in self.taken:
            new, i = f"{name}{i + 1}", i + 1
        self.taken.add(new)
        variable, kind = self.variable(new, value[1])
        self.text.assignments.append((ast.unparse(variable), ast.unparse(value[0]), kind))
        return variable, kind

    def named(self, name: str, value: Value) -> Value:
        """The same, unless the value is a variable or a constant already."""
        return value if isinstance(value[0], (ast.Name, ast.Constant)) else self.kept(name, value)

    def error(self, node: ast.AST, what: str) -> FormulaError:
        function = self.formula.function
        code, line = function.__code__, getattr(node, "lineno", 1)
        at = f"{os.path.basename(code.co_filename)}, line {code.co_firstlineno + line - 1}"
        return FormulaError(f"formula {function.__qualname__}: {ast.unparse(node)!r} {what} ({at})")

    def as_element(self, node: ast.AST, value: Value) -> ast.expr:
        """The value of a node as an element."""
        text, kind = value
        if kind not in ("number", "element"):
            raise self.error(node, "is no number")
        return call(self.cast, [text]) if kind == "number" else text

    def expression(self, node: ast.expr) -> Value:
        """The value of an expression."""
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
            return ast.Constant(float(node.value)), "number"
        if isinstance(node, ast.Name):
            return self.name(node)
        if isinstance(node, ast.Attribute):
            return self.field(node)
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
        if isinstance(node, ast.Call):
            return self.call(node)
        raise self.error(node, "is not part of the language of formulas")

    def name(self, node: ast.Name) -> Value:
        if node.id in self.known:
            if self.is_record(node):
                raise self.error(node, "is a record; take one of its numbers")
            return self.known[node.id]
        constant = constant_of(node, self.formula.names)
        if constant is None:
            raise self.error(node, "is not a number")
        return ast.Constant(constant), "number"

    def field(self, node: ast.Attribute) -> Value:
        if self.is_record(node.value) and node.attr in self.fields:
            return self.fields[node.attr]
        if RECORD in self.known and self.fields:
            raise self.error(node, f"is none of the record's numbers {(*self.fields,)}")
        constant = constant_of(node, self.formula.names)
        if constant is None:
            raise self.error(node, "is not a number")
        return ast.Constant(constant), "number"

    def is_record(self, node: ast.expr) -> bool:
        return isinstance(node, ast.Name) and self.known.get(node.id) is _RECORD

    def pair(self, a: ast.expr, b: ast.expr) -> tuple[ast.expr, ast.expr, Kind]:
        left, right = self.expression(a), self.expression(b)
        if left[1] == right[1]:
            return left[0], right[0], left[1]
        return self.as_element(a, left), self.as_element(b, right), "element"

    def binary(self, node: ast.BinOp) -> Value:
        left, right, kind = self.pair(node.left, node.right)
        logical = isinstance(node.op, (ast.BitAnd, ast.BitOr))
        arithmetic = isinstance(node.op, (ast.Add, ast.Sub, ast.Mult, ast.Div))
        if not (logical if kind == "truth" else arithmetic):
            raise self.error(node, "is not part of the language of formulas")
        return ast.BinOp(left, node.op, right), kind

    def callee(self, node: ast.Call) -> tuple[str, Any]:
        """The name and the function of a call; a primitive's own name."""
        name, function = called(node, self.formula.names)
        if not name:
            raise self.error(node, "is no call of a function by its name")
        return name, function

    def polynomial(self, node: ast.Call) -> ast.expr:
        """horner(coefficients, x), inlined."""
        names = [a.id for a in node.args if isinstance(a, ast.Name)]
        if len(names) != 2 or len(node.args) != 2 or node.keywords:
            raise self.error(node, "needs the name of a tuple of numbers and a name")
        found, x = self.formula.names.get(names[0]), node.args[1]
        if not (isinstance(found, tuple) and found and all(map(_is_number, found))):
            raise self.error(node, f"needs a tuple of numbers, which {names[0]} is not")
        first, *others = map(ast.Constant, found)
        value: ast.expr = call(self.cast, [first])
        factor = self.as_element(x, self.expression(x))
        for c in others:
            madd = self.translator.primitives["madd"]
            value = call(madd, [value, factor, call(self.cast, [c])])
        return value

    def arguments(self, node: ast.Call, callee: Any) -> list[Value]:
        """The values of a call's arguments; an argument of a formula may be a record."""
        count = len(callee.parameters) if isinstance(callee, Formula) else len(node.args)
        if node.keywords or len(node.args) != count:
            raise self.error(node, "does not give each argument by its place")
        return [_RECORD if self.is_record(a) else self.expression(a) for a in node.args]

    def several(self, node: ast.expr) -> list[Value]:
        """The values of a call of a formula."""
        callee = self.callee(node)[1] if isinstance(node, ast.Call) else None
        if not isinstance(node, ast.Call) or not isinstance(callee, Formula):
            raise self.error(node, "is no call of a formula")
        return self.written_out(callee, self.arguments(node, callee))

    def written_out(self, formula: Formula, given: list[Value]) -> list[Value]:
        """The values of a formula for these arguments; adds its assignments to the text."""
        inner = copy(self)
        inner.formula, names = formula, formula.parameters
        inner.known = {n: self.named(n, value) for n, value in zip(names, given, strict=True)}
        return inner.read()

    def call(self, node: ast.Call) -> Value:
        name, callee = self.callee(node)
        if callee is horner:
            return self.polynomial(node), "element"
        given = self.arguments(node, callee)
        kinds = [kind for _, kind in given]
        if isinstance(callee, Formula) and {"number", "record"} & {*kinds}:
            value, *others = self.written_out(callee, given)
            if others:
                raise self.error(node, f"needs {1 + len(others)} names")
            return value
        if callee is where:
            if kinds[0] != "truth" or kinds[1:] == ["number", "number"]:
                raise self.error(node, "needs a comparison, and an element among its values")
            choices = [self.as_element(node, value) for value in given[1:]]
            return call(self.translator.primitives[name], [given[0][0], *choices]), "element"
        if "element" not in kinds:
            raise self.error(node, "is a function of numbers alone")
        elements = [self.as_element(a, v) for a, v in zip(node.args, given, strict=True)]
        if name in PRIMITIVES and callee is PRIMITIVES[name]:
            kind: Kind = "truth" if callee is is_tiny else "element"
            return call(self.translator.primitives[name], elements), kind
        if not isinstance(callee, Formula):
            raise self.error(node, "calls what is not a formula")
        if name not in self.translator.called:
            results = self.translator.text(callee, self.cast).results  # its own callees come first
            if len(results) > 1:
                raise self.error(node, f"needs {len(results)} names")
            self.translator.called[name] = callee
        return call(name, elements), "element"


def constant_of(node: ast.expr, names: Mapping[str, Any]) -> float | None:
    """The number that a name, or the name of a module's number, such as math.pi, stands for; None: none."""
    found = None
    if isinstance(node, ast.Name):
        found = names.get(node.id)
    elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        module = names.get(node.value.id)
        found = getattr(module, node.attr, None) if isinstance(module, ModuleType) else None
    return float(found) if found is not None and _is_number(found) else None


def _is_number(value: Any) -> bool:
    """Whether a constant is a number that float64 holds."""
    if isinstance(value, np.generic):
        return value.dtype.kind in "fiub"
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**1000)


def called(node: ast.Call, names: Mapping[str, Any]) -> tuple[str, Any]:
    """The name and the function of a call f(…) or module.f(…); a primitive has its own name.

    names: the meanings of names. The name is "" where it is neither form.
    """
    name, function = "", None
    if isinstance(node.func, ast.Name):
        name = node.func.id
        function = names.get(name, getattr(builtins, name, None))
    elif isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
        name = node.func.attr
        function = getattr(names.get(node.func.value.id), name, None)
    for primitive, known in PRIMITIVES.items():
        if function is known or (function is np.absolute and known is abs):
            return primitive, known
    return name, function


def parts(node: ast.expr) -> list[ast.expr]:
    """The items of a tuple, or the single expression."""
    return node.elts if isinstance(node, ast.Tuple) else [node]


def call(name: str, arguments: list[ast.expr]) -> ast.expr:
    """A call of a function by its name."""
    return ast.Call(ast.parse(name, mode="eval").body, arguments, [])


def indented(lines: list[str], by: int = 1) -> list[str]:
    """The lines, indented."""
    return ["    " * by + line for line in lines]
