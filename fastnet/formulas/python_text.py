"""Formulas as Python text, for the backends that compile Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fastnet.formulas.language import PRIMITIVES, TAIL, Formula, RowSlope, RowSum
from fastnet.formulas.translate import Text, Translator, indented
from fastnet.op import Kernel


class PythonText:
    """One kernel's formula; its variables are named like tensors and numbers, with `_` appended."""

    def __init__(self, kernel: Kernel) -> None:
        assert kernel.formula is not None
        self.kernel, self.formula = kernel, kernel.formula
        self.is_loss = isinstance(self.formula, (RowSum, RowSlope))
        self.written = kernel.op.written(kernel.phase)
        self.tensors = [name for name in self.formula.elements if name in kernel.tensors]
        numbers = tuple(name for name in self.formula.elements if name not in kernel.tensors)
        self.numbers = [f"{name}_ = {name}" for name in numbers]
        self._translator = Translator({name: f"_{name}_" for name in PRIMITIVES}, suffix="_")
        like = "y" if isinstance(self.formula, RowSum) else self.written[0]
        self._text = self._translator.text(self.formula, f"{like}.dtype.type", numbers)

    def value(self, place: Callable[[str], str], tail: str = "") -> tuple[list[str], list[str]]:
        """Assignments and results for an element, which lies at `place(name)` of each tensor."""
        read = [f"{name}_ = {place(name)}" for name in self.tensors]
        read += [f"{TAIL}_ = {tail}"] if self.formula.draws else []
        return [*read, *_assigned(self._text)], self._text.results

    def element(self, place: Callable[[str], str], tail: str = "") -> list[str]:
        """The code for an element; it computes all results before it stores the first."""
        lines, results = self.value(place, tail)
        lines += [f"result{i} = {value}" for i, value in enumerate(results)]
        return lines + [f"{place(name)} = result{i}" for i, name in enumerate(self.written)]

    def function(self, arguments: list[str], lines: list[str]) -> str:
        """The text of the kernel's function, with these arguments before the kernel's own."""
        return _function(self.kernel.name, [*arguments, *self.kernel.arguments], lines)

    def made(
        self,
        text: str,
        primitives: Mapping[str, Any],
        names: Mapping[str, Any],
        compiled: Callable[[Any], Any],
    ) -> Any:
        """The function of a text, which calls primitives, `names` and `compiled` functions of formulas."""
        known = {f"_{name}_": function for name, function in primitives.items()} | {**names}
        for name, formula in self._translator.called.items():
            exec(self._called(name, formula), known)
            known[name] = compiled(known[name])
        exec(text, known)
        return known[self.kernel.name]

    def _called(self, name: str, formula: Formula) -> str:
        arguments = [f"{parameter}_" for parameter in formula.parameters]
        text = self._translator.text(formula, f"type({arguments[0]})")
        return _function(name, arguments, [*_assigned(text), f"return {text.results[0]}"])


def _assigned(text: Text) -> list[str]:
    return [f"{name} = {value}" for name, value, _ in text.assignments]


def _function(name: str, arguments: list[str], lines: list[str]) -> str:
    return "\n".join([f"def {name}({', '.join(arguments)}):", *indented(lines)])
