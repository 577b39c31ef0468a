"""Training steps in exported C: a forward, a backward and an update of SGD in fixed memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fastnet.export import literals
from fastnet.export.program import Program, Trained
from fastnet.export.statements import Constants, Statements
from fastnet.export.text import Library, resolved
from fastnet.formulas.c_text import Source, helpers_of, statements, within
from fastnet.op import Kernel
from fastnet.plan.graph import Structure
from fastnet.plan.segments import Storage

RATE = "lr"  # the number of a rule that the caller of a step gives


@dataclass(frozen=True)
class Training:
    """What a device trains, and how.

    structure: up to the loss. rows: of a minibatch. labels: whether targets are numbers of classes. rule:
    the kernel of the update, with its numbers but for the learning rate.
    """

    structure: Structure
    storage: Storage
    rows: int
    labels: bool
    rule: Kernel
    numbers: Mapping[str, float]

    @property
    def trained(self) -> Trained:
        """The parameters that it changes."""
        return Trained(self.storage)

    def statements(self, library: Library, constants: Constants) -> Learning:
        """The statements of a step."""
        program, trained = Program(self.structure, self.storage, self.rows), self.trained
        made = Statements(program, library, constants, trained)
        source = Source(self.rule)
        name = self.rule.name
        for text in helpers_of(source.called).values():
            library.add(within(name, text, [source]))
        update = within(name, "\n".join(statements(source.text)), [source])
        results = [within(name, text, [source]) for text in source.text.results]
        double = library.double
        loss = self.structure.loss
        assert loss is not None and program.plan.loss is not None
        place = made.doubles[program.plan.loss[1]]
        begin = constants.add(trained.values)
        called = {**made.called, "madd": None} | {
            f"{name}_{helper}": None for helper in source.called
        }
        return Learning(
            name=constants.name,
            made=made,
            called=called,
            parameters=trained.size,
            rows=self.rows,
            labels=self.labels,
            targets=program.outputs,
            scratch=(program.workspace + trained.size) * (8 if double else 4),
            begin=begin,
            loss=f"numbers[{place}]",
            momentum="v" in source.tensors,
            update=resolved(update, double=double).splitlines(),
            results=dict(
                zip(source.written, (resolved(r, double=double) for r in results), strict=True)
            ),
            numbers=self.numbers,
        )


@dataclass(frozen=True)
class Learning:
    """A net's training step, and the memory that it needs."""

    name: str
    made: Statements
    called: Mapping[str, None]
    parameters: int
    rows: int
    labels: bool
    targets: int  # of a row, where they are no labels
    scratch: int  # bytes
    begin: str  # the array of the first values
    loss: str
    momentum: bool
    update: list[str]
    results: Mapping[str, str]
    numbers: Mapping[str, float]

    def macros(self) -> list[str]:
        """Those of the header."""
        up = self.name.upper()
        return [
            f"#define {up}_PARAMETERS {self.parameters} /* numbers that training changes */",
            f"#define {up}_TRAIN_ROWS {self.rows} /* of a training step */",
            f"#define {up}_TRAIN_SCRATCH_BYTES {self.scratch} /* for a training step */",
        ]

    def types(self, real: str) -> list[str]:
        """The type of what training changes."""
        p, up = self.name, self.name.upper()
        velocity = [f"    {real} velocity[{up}_PARAMETERS];"] if self.momentum else []
        return [
            "/* What training changes. */",
            f"typedef struct {{\n    {real} parameters[{up}_PARAMETERS];",
            *velocity,
            f"}} {p}_state;",
            "",
        ]

    def head(self, real: str) -> str:
        """The declaration of the step."""
        target = "int32_t" if self.labels else real
        p = self.name
        return (
            f"double {p}_train_step({p}_state *state, const {real} *x, const {target} *t, double lr, "
            f"{real} *scratch)"
        )

    def declared(self, real: str) -> list[str]:
        """The declarations of the header."""
        p, up = self.name, self.name.upper()
        kind = "class numbers t" if self.labels else f"targets t, {self.targets} each"
        return [
            "",
            "/* Start from the exported parameters, at rest. */",
            f"void {p}_start({p}_state *state);",
            "",
            literals.comment(
                f"A step of SGD on {up}_TRAIN_ROWS rows x with their {kind}; returns the mean loss before "
                f"it. lr: the learning rate. scratch: {up}_TRAIN_SCRATCH_BYTES. Where the loss is not "
                "finite, the step changes nothing."
            ),
            f"{self.head(real)};",
        ]

    def text(self, real: str) -> str:
        """The functions."""
        p, up, made = self.name, self.name.upper(), self.made
        constants = [
            f"    const double {name}_ = {literals.number(value, 'double')};"
            for name, value in self.numbers.items()
        ]
        array = {"w": "state->parameters", "v": "state->velocity", "g": "gradients"}
        names = ["w", *(["v"] if self.momentum else []), "g"]
        reads = [f"        const real {n}_ = {array[n]}[i];" for n in names]
        stores = [f"        {array[n]}[i] = new_{n};" for n in self.results]
        results = [f"        const real new_{n} = {value};" for n, value in self.results.items()]
        velocity = ["        state->velocity[i] = 0;"] if self.momentum else []
        lines = [
            f"void {p}_start({p}_state *state) {{",
            f"    for (int32_t i = 0; i < {up}_PARAMETERS; i++) {{",
            f"        state->parameters[i] = {self.begin}[i];",
            *velocity,
            "    }",
            "}",
            "",
            f"{self.head(real)} {{",
            f"    real *const gradients = scratch + {made.program.workspace};",
            f"    double numbers[{made.double_count}]; /* losses */",
            *constants,
            "    const double lr_ = lr;",
            "    int32_t i;",
            *made.lines,
            f"    if (!({self.loss} - {self.loss} == 0))",
            f"        return {self.loss};",
            f"    for (i = 0; i < {up}_PARAMETERS; i++) {{",
            *reads,
            *(f"        {line}" for line in self.update),
            *results,
            *stores,
            "    }",
            f"    return {self.loss};",
            "}",
        ]
        return "\n".join(lines)
