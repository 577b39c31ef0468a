"""Steps as C statements."""

from __future__ import annotations

import numpy as np

from fastnet.errors import UsageError
from fastnet.export import literals
from fastnet.export.program import Operand, Program, Step, Trained
from fastnet.export.text import NAME, Library
from fastnet.formulas.c_text import Source, helpers_of, within

# Ops that multiply each of their weights once with a number of each row.
PRODUCTS = ("linear", "transposed_linear", "grouped_linear", "gaussian_basis", "linear_ensemble")


class Constants:
    """The arrays of an exported file."""

    def __init__(self, name: str, real: str, *, separate: bool) -> None:
        self.name, self.real = name, real
        self.head = "const" if separate else "static const"
        self.places: dict[tuple[str, int], str] = {}  # names
        self.arrays: list[str] = []  # definitions
        self.bytes = 0

    def of(self, program: Program, operand: Operand) -> str:
        """The name of the array of a parameter, a buffer or a derived tensor."""
        key = operand.segment, operand.offset
        if key not in self.places:
            self.places[key] = self.add(program.values(operand))
        return self.places[key]

    def add(self, values: np.ndarray) -> str:
        """The name of an array of these numbers; integers are int32_t."""
        kind = "int32_t" if values.dtype.kind == "i" else self.real
        name = f"{self.name}_constant_{len(self.arrays)}"
        texts = [literals.number(value, kind) for value in values]
        head = f"{self.head} {kind} {name}[{len(texts)}] {self.name.upper()}_ALIGNED"
        self.arrays.append(literals.table(head, texts))
        self.bytes += len(texts) * (8 if kind == "double" else 4)
        return name


class Statements:
    """The statements of a program's steps; notes which functions of a library they call.

    trained: the parameters that lie in memory, at `state`; None: all are constants.
    """

    def __init__(
        self, program: Program, library: Library, constants: Constants, trained: Trained | None
    ) -> None:
        self.program, self.library = program, library
        self.constants, self.trained = constants, trained
        self.real = constants.real
        self.called: dict[str, None] = {}
        self.doubles: dict[int, int] = {}  # by byte of the workspace: the places of losses
        self.double_count = 0
        self.lines = [line for step in program.steps for line in self._of(step)]

    @property
    def multiply_adds(self) -> int:
        """Those of matrix products, for a row of inputs."""
        total = 0
        for step in self.program.steps:
            if step.kernel.phase == "forward" and step.kernel.op.name in PRODUCTS:
                w = step.operands.get("w") or step.operands["mu"]
                assert w is not None
                total += w.size * (1 if step.kernel.op.name == "linear_ensemble" else step.rows)
        return total

    def output(self) -> str:
        """The address of the output when all steps are done."""
        segment, offset = self.program.output
        return "x" if segment == "x" else f"scratch + {offset}"

    def _of(self, step: Step) -> list[str]:
        kernel = step.kernel
        comment = f"    /* {literals.in_comment(step.place)} */"
        if kernel.formula is not None and not kernel.formula.draws:
            return [comment, *self._elementwise(step)]
        if kernel.name in self.library.found:
            return [comment, *self._function(step)]
        way = " of its gradient" if kernel.phase == "vjp" else ""
        raise UsageError(
            f"{step.place} has no C text{way} for its op {kernel.op.name}; leave the layer out of the "
            "exported model, or write its arithmetic as a formula by fn.elementwise"
        )

    def _elementwise(self, step: Step) -> list[str]:
        """A loop over a formula. A prediction needs its first output alone."""
        source = Source(step.kernel)
        functions = source.functions()
        wanted = source.written if self.program.trains else source.written[:1]
        outputs = {name: operand for name in wanted if (operand := step.operands[name])}
        if not outputs:
            return []
        for name in outputs:
            function, text = functions[name]
            for one in (*helpers_of(source.called).values(), _using(text, source)):
                self.library.add(within(step.kernel.name, one, [source]))
            self.called.setdefault(function)
        reads = [self._present(step, name) for name in source.tensors]
        given = [self._at(operand) for operand in reads]
        given += [literals.number(step.numbers[name], "double") for name in source.numbers]
        values = [f"{functions[name][0]}({', '.join(given)})" for name in outputs]
        places = [self._at(operand) for operand in outputs.values()]
        count = step.rows * next(iter(outputs.values())).size
        loop = f"    for (i = 0; i < {count}; i++)"
        if len(outputs) == 1:
            return [loop, f"        {places[0]} = {values[0]};"]
        # An output may lie where an input lies.
        results = [
            f"        const {self.real} result{k} = {value};" for k, value in enumerate(values)
        ]
        stores = [f"        {place} = result{k};" for k, place in enumerate(places)]
        return [f"{loop} {{", *results, *stores, "    }"]

    def _present(self, step: Step, name: str) -> Operand:
        operand = step.operands[name]
        assert operand is not None, (step.place, name)
        return operand

    def _function(self, step: Step) -> list[str]:
        """A call of the kernel's function, for each row unless it takes all `rows`."""
        name = step.kernel.name
        self.called.setdefault(name)
        parameters = self.library.found[name].parameters
        numbers = {**step.numbers, "rows": float(step.rows)}
        by_row = step.rows > 1 and "rows" not in {parameter for _, parameter in parameters}
        given = []
        for kind, parameter in parameters:
            if parameter in numbers:
                kind = self.real if kind == "real" else kind
                given.append(literals.number(numbers[parameter], kind))
            else:
                operand = step.operands[parameter]
                each = operand.size if operand and operand.by_rows and by_row else 0
                given.append("NULL" if operand is None else self._pointer(operand, each))
        call = f"{name}({', '.join(given)});"
        if not by_row:
            return [f"    {call}"]
        return [f"    for (i = 0; i < {step.rows}; i++)", f"        {call}"]

    def _place(self, operand: Operand) -> tuple[str, int]:
        """The array that holds an operand, and where it begins there."""
        place = None if self.trained is None else self.trained.place(operand)
        if place is not None:
            return ("gradients" if operand.segment == "grads" else "state->parameters"), place
        if operand.segment == "y":
            return "t", operand.offset
        if operand.segment == "x":
            return "x", operand.offset
        if operand.segment != "workspace":
            return self.constants.of(self.program, operand), 0
        if operand.is_loss:  # the workspace of the backward would overwrite it
            if operand.begin not in self.doubles:
                self.doubles[operand.begin] = self.double_count
                count = self.program.rows if operand.by_rows else 1
                self.double_count += count * operand.size
            return "numbers", self.doubles[operand.begin]
        return "scratch", operand.offset

    def _pointer(self, operand: Operand, each: int = 0) -> str:
        """The address of an operand; `each`: elements from one row to the next, for row i."""
        base, offset = self._place(operand)
        more = [f"i * {each}"] if each else []
        return " + ".join([base, *([str(offset)] if offset else []), *more])

    def _at(self, operand: Operand) -> str:
        """Element i of an operand."""
        base, offset = self._place(operand)
        return f"{base}[{offset} + i]" if offset else f"{base}[i]"


def _using(text: str, source: Source) -> str:
    """A function's text that uses all of its parameters, as one of several results may not."""
    head, _, body = text.partition("\n")
    used = NAME.findall(body)
    unused = [name for name in (*source.tensors, *source.numbers) if name not in used]
    return "\n".join([head, *(f"    (void){name};" for name in unused), body])
