"""Formulas as C: `Source` is the text of one kernel, `files` the text of all kernels, by family."""

from __future__ import annotations

import re
from collections.abc import Mapping

from fastnet.formulas.language import PRIMITIVES, TAIL, Formula, RowSlope, RowSum
from fastnet.formulas.translate import Text, Translator, indented
from fastnet.late import load_ops
from fastnet.op import KERNELS, Kernel

# Compilers do not vectorise the last elements; for slow functions the kernel pads them to a vector.
SLOW = (
    "exp",
    "exp_below_0",
    "expm1",
    "log",
    "log1p",
    "log1p_exp",
    "tanh",
    "sigmoid",
    "erf",
    "cos",
    "sin",
)
TYPES = {"element": "real", "number": "double", "truth": "int"}
NAMES = {p: p if p in ("madd", "where", "is_tiny") else f"real_{p}" for p in PRIMITIVES}
CAST = "R"
LANE = "EACH_LANE(l)"
INTERLEAVED = (
    "adam_update",
    "sgd_update",
)  # the updates that products of gradients do beside their own work


def statements(text: Text) -> list[str]:
    """Assignments as declarations."""
    return [f"const {TYPES[kind]} {name} = {value};" for name, value, kind in text.assignments]


def function(name: str, parameters: list[str], text: Text, result: int = 0) -> str:
    """A C function of elements, for one of a formula's results."""
    head = f"ELEMENT {name}({', '.join(parameters)}) {{"
    return "\n".join([head, *indented([*statements(text), f"return {text.results[result]};"]), "}"])


class Source:
    """One kernel's formula in C, with the code around it."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel, op, formula = kernel, kernel.op, kernel.formula
        assert formula is not None
        self.draws = formula.draws
        is_tensor = {name: name in kernel.tensors for name in formula.elements}
        self.tensors = [name for name, is_one in is_tensor.items() if is_one]
        self.numbers = [name for name, is_one in is_tensor.items() if not is_one]
        self.place = {name: f"call->scalar[{i}]" for i, name in enumerate(op.scalars)}
        self.place |= {name: f"call->hyper[{i}]" for i, name in enumerate(op.hyper)}
        self.written = op.written(kernel.phase)
        self.suffix = "_" if kernel.phase == "update" else ""  # the tensors use the bare names
        translator = Translator(NAMES, self.suffix)
        self.text = translator.text(formula, CAST, tuple(self.numbers))
        self.called = translator.called

    def declarations(self) -> list[str]:
        """Declarations of the numbers, read from the call."""
        return [f"const double {n}{self.suffix} = {self.place[n]};" for n in self.numbers]

    def values(self) -> list[str]:
        """Every expression of the formula and of the formulas that it calls."""
        translator = Translator(NAMES)
        texts = [self.text, *(translator.text(f, CAST) for f in self.called.values())]
        return [v for t in texts for v in [*(a[1] for a in t.assignments), *t.results]]

    def is_slow(self) -> bool:
        """Whether an element takes so long that padding the last ones to a vector pays."""
        return any(f"{NAMES[name]}(" in value for name in SLOW for value in self.values())

    def is_cheap(self) -> bool:
        """Whether it reads two arrays and computes so little that memory bounds it outside the caches."""
        dear = self.is_slow() or any(" / " in value for value in self.values())
        return len(self.tensors) > 1 and not dear

    def functions(self) -> dict[str, tuple[str, str]]:
        """For each tensor that it writes, the name and the text of a function of its elements."""
        name, out = self.kernel.name, self.written
        parameters = [f"real {n}" for n in self.tensors] + [f"double {n}" for n in self.numbers]
        parameters += [f"real {TAIL}"] if self.draws else []
        names = [f"{name}_of" if n == out[0] else f"{name}_{n}_of" for n in out]
        texts = [function(of, parameters, self.text, i) for i, of in enumerate(names)]
        return dict(zip(out, zip(names, texts, strict=True), strict=True))

    def map(self) -> str:
        """An elementwise kernel whose first output may overwrite its first input."""
        name, out = self.kernel.name, self.written
        mark = {**dict.fromkeys(out, "OUT"), **dict.fromkeys(self.tensors, "IN_UNDER")}
        mark[out[0]] = "OUT_OVER"
        operands = [f"{mark[n]}({n})" for n in self.kernel.tensors]
        functions = self.functions()

        def value(n: str, suffix: str) -> str:
            at = {"[i]": "[i - begin]", "_at[l]": "[i - begin + l]"}[suffix]
            drawn = [TAIL + at] if self.draws else []
            elements = [f"{t}_" if len(out) > 1 else f"{t}{suffix}" for t in self.tensors]
            return f"{functions[n][0]}({', '.join([*elements, *self.numbers, *drawn])})"

        def loop(head: str, suffix: str, to: dict[str, str]) -> list[str]:
            lines = indented([f"{to[n]} = {value(n, suffix)};" for n in out])
            if len(out) == 1:
                return [head, *lines]
            # An output may overwrite an input, so the kernel reads it only once.
            reads = indented([f"const real {n}_ = {n}{suffix};" for n in self.tensors])
            return [head + " {", *reads, *lines, "}"]

        body = loop("ELEMENTS(i)", "[i]", {n: f"{n}[i]" for n in out})
        if self.is_slow():
            body = [
                "for (int64_t i = begin; i < end; i += LANES) {",
                *(f"    INPUT_LANES({n}, i, end);" for n in self.tensors),
                *(f"    OUTPUT_LANES({n}, i, end);" for n in out),
                *indented(loop(LANE, "_at[l]", {n: f"{n}_at[l]" for n in out})),
                *(f"    STORE_REST({n}, i, end);" for n in out),
                "}",
            ]
        form = "CHEAP_ELEMENTWISE" if self.is_cheap() else "ELEMENTWISE"
        head = f"{'DRAWN' if self.draws else form}({name}, {', '.join(operands)}) {{"
        kernel = "\n".join([head, *indented([*self.declarations(), *body]), "}"])
        return "\n\n".join([*(text for _, text in functions.values()), kernel])

    def loss(self) -> str:
        """A loss of elements, or its gradient: the values of a block, then sums or products by rows."""
        name, columns = self.kernel.name, self.kernel.columns
        parameters = [f"real {n}" for n in self.tensors] + [f"double {n}" for n in self.numbers]
        operands = [f"IN({n})" for n in self.tensors]
        if isinstance(self.kernel.formula, RowSum):
            operands.insert(0, "OUT_AS(double, row_loss)")
            last = "add_rows(row_loss, value, x, N, call->scalar[0]);"
        else:
            operands[:0] = ["OUT(dy)", "IN_AS(double, drow_loss)"]
            last = "scale_rows(dy, value, drow_loss, x, call->scalar[0]);"

        def value() -> str:
            at = {n: f"{n}_[i + l]" if n in columns else f"{n}_at[l]" for n in self.tensors}
            return f"{name}_of({', '.join([*at.values(), *self.numbers])})"

        rows = [n for n in self.tensors if n not in columns]
        body = [
            "real value[BLOCK];",
            *(f"real {n}_[BLOCK];" for n in columns),
            *(f"repeat({n}_, {n}, x);" for n in columns),
            "for (int64_t i = 0; i < x.n; i += LANES) {",
            *(f"    INPUT_LANES({n}, x.at + i, x.at + x.n);" for n in rows),
            f"    {LANE}",
            f"        value[i + l] = {value()};",
            "}",
            last,
        ]
        head = f"KERNEL({name}, {', '.join(operands)}) {{"
        lines = [*self.declarations(), "BLOCKS(x, call) {", *indented(body), "}"]
        kernel = "\n".join([head, *indented(lines), "}"])
        return function(f"{name}_of", parameters, self.text) + "\n\n" + kernel

    def update(self) -> str:
        """An optimizer's pass over flat vectors."""
        state = self.kernel.op.state
        operands = ", ".join(f"{'INOUT' if n in state else 'IN'}({n})" for n in self.kernel.tensors)
        body = [
            *(f"const real {n}_ = {n}[i];" for n in self.tensors),
            *statements(self.text),
            *(
                f"const real new_{n} = {v};"
                for n, v in zip(self.written, self.text.results, strict=True)
            ),
            *(f"{n}[i] = new_{n};" for n in self.written),
        ]
        head = f"KERNEL({self.kernel.name}, {operands}) {{"
        loop = ["EACH_PARAMETER(i) {", *indented(body), "}"]
        if self.draws:
            body.insert(0, f"const real {TAIL}_ = {TAIL}[i - begin];")
            each = ["for (int64_t i = begin; i < end; i++) {", *indented(body), "}"]
            loop = [f"DRAWN_PARAMETERS({TAIL}, begin, end) {{", *indented(each), "}"]
        return "\n".join([head, *indented([*self.declarations(), *loop]), "}"])

    def interleaved(self) -> str:
        """An update's formula for one element, with its numbers computed in advance."""
        name = self.kernel.name
        parameters = [
            f"real *{n}" if n in self.written else f"const real *{n}" for n in self.tensors
        ]
        lines = [f"const real {n}_ = *{n};" for n in self.tensors] + statements(self.text)
        lines += [f"*{n} = {v};" for n, v in zip(self.written, self.text.results, strict=True)]
        body = "\n".join(indented(lines))
        ready = list(dict.fromkeys(re.findall(rf"{CAST}\(([^()]*_[^()]*)\)", body)))
        for i, number in enumerate(ready):
            body = body.replace(f"{CAST}({number})", f"number[{i}]")
        to = [f"number[{i}] = {CAST}({number});" for i, number in enumerate(ready)]
        given = [n.replace("call->", "") for n in self.declarations()]
        numbers = "\n".join(indented([*given, *to]))
        return (
            f"enum {{ {name.upper()}_NUMBERS = {len(ready)} }};\n\n"
            f"static inline void {name}_numbers(real number[], const double *hyper) {{\n{numbers}\n}}\n\n"
            f"static inline __attribute__((always_inline)) void\n"
            f"{name}_element({', '.join(parameters)}, const real *number) {{\n{body}\n}}"
        )

    def __str__(self) -> str:
        if isinstance(self.kernel.formula, (RowSum, RowSlope)):
            return self.loss()
        return self.update() if self.kernel.phase == "update" else self.map()


def within(family: str, text: str, sources: list[Source]) -> str:
    """The text with functions of formulas named after the family: files are compiled together."""
    names = sorted({name for source in sources for name in source.called})
    return re.sub(rf"\b({'|'.join(names)})\(", rf"{family}_\1(", text) if names else text


def parts(module: str, sources: list[Source]) -> tuple[str, list[str]]:
    """The first line of a file of formulas, and the functions that they call."""
    called: dict[str, Formula] = {}
    for source in sources:
        called |= source.called
    origin = module.replace(".", "/")
    return (
        f"/* Written by csrc/generate.py from the formulas in {origin}.py: change those. */",
        list(helpers_of(called).values()),
    )


def helpers_of(called: Mapping[str, Formula]) -> dict[str, str]:
    """The texts of the formulas that formulas call, by name."""
    translator, texts = Translator(NAMES), {}
    for name, f in called.items():
        parameters = [f"real {p}" for p in f.parameters]
        texts[name] = function(name, parameters, translator.text(f, CAST))
    return texts


def file(module: str, sources: list[Source]) -> str:
    """The text of a family's file."""
    head, helpers = parts(module, sources)
    header = "lib/drawn.h" if any(source.draws for source in sources) else "lib/formula.h"
    if any(isinstance(source.kernel.formula, (RowSum, RowSlope)) for source in sources):
        header = "lib/pointwise.h"
    text = "\n\n".join([f'{head}\n#include "{header}"', *helpers, *map(str, sources)]) + "\n"
    return within(module.rpartition(".")[2], text, sources)


def header(module: str, source: Source) -> str:
    """The text of the header with an update's formula, which products do beside their own work."""
    head, helpers = parts(module, [source])
    guard = f"FASTNET_{source.kernel.name.upper()}_H"
    opening = f'{head}\n#ifndef {guard}\n#define {guard}\n\n#include "lib/formula.h"'
    text = "\n\n".join([opening, *helpers, source.interleaved(), "#endif"]) + "\n"
    return within(source.kernel.name, text, [source])


def files() -> dict[str, str]:
    """The text of every file of kernels of formulas, by its name in csrc/generated."""
    load_ops()
    families: dict[str, list[Source]] = {}
    for kernel in KERNELS.values():
        if kernel.formula is not None:
            families.setdefault(kernel.op.__module__, []).append(Source(kernel))
    names = {module: f"{module.rpartition('.')[2]}.c" for module in families}
    texts = {names[module]: file(module, sources) for module, sources in families.items()}
    for name in INTERLEAVED:
        rule = Source(KERNELS[name])
        texts[f"{name}.h"] = header(rule.kernel.op.__module__, rule)
    return texts
