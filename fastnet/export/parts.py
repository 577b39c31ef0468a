"""The parts of an exported C file around its kernels: header, preamble, entry points, self-test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fastnet.export import literals
from fastnet.export.training import Learning
from fastnet.losses import links
from fastnet.op import Array

# What lets a header serve C++ too, around its declarations.
OPENING = "#ifdef __cplusplus", 'extern "C" {', "#endif"
CLOSING = "#ifdef __cplusplus", "}", "#endif"


@dataclass(frozen=True)
class Vectors:
    """Rows of inputs and the outputs that they must give, for the self-test."""

    x: Array
    y: Array


@dataclass(frozen=True)
class Meaning:
    """What inputs and outputs stand for: names of columns, labels of classes, link to probabilities."""

    columns: Sequence[str] = ()
    classes: Sequence[Any] = ()
    link: str | None = None


@dataclass(frozen=True)
class Net:
    """What the parts tell of an exported net.

    name: the prefix. real: float or double. scratch, flash: bytes. output: the address of the outputs when
    all kernels have run.
    """

    name: str
    header: str
    real: str
    inputs: int
    outputs: int
    scratch: int
    flash: int
    multiply_adds: int
    output: str
    vectors: Vectors
    meaning: Meaning
    learning: Learning | None = None
    needs: list[str] = field(default_factory=list)  # functions of libm

    @property
    def capitals(self) -> str:
        """The prefix of macros."""
        return self.name.upper()

    @property
    def state(self) -> str:
        """The first parameter of functions of a net that learns."""
        return f"const {self.name}_state *state, " if self.learning else ""

    @property
    def link(self) -> str | None:
        """The link, where C has functions for it."""
        return self.meaning.link if self.meaning.link in links.OF_CLASSES else None

    @property
    def one_of_classes(self) -> bool:
        """Whether an input has one class."""
        return self.link in links.ONE_OF_CLASSES or (self.link is not None and self.outputs == 1)

    @property
    def probabilities(self) -> int:
        """How many probabilities there are; 0: none."""
        if self.link not in links.OF_PROBABILITIES:
            return 0
        return 2 if self.outputs == 1 and self.link in links.OF_TRUTHS else self.outputs

    @property
    def label_type(self) -> str:
        """The C type of a class's label."""
        return "char *const" if isinstance(self.meaning.classes[0], str) else "long long"


def header(net: Net) -> str:
    """The text of the header."""
    p, up, real = net.name, net.capitals, net.real
    item = 4 if real == "float" else 8
    selftest = (net.vectors.x.size + net.vectors.y.size) * item
    lines = [
        literals.comment(*_told(net)),
        f"#ifndef {up}_H",
        f"#define {up}_H",
        "",
        "#include <stdint.h>",
        "",
        f"#define {up}_INPUTS {net.inputs}",
        f"#define {up}_OUTPUTS {net.outputs}",
        f"#define {up}_SCRATCH_BYTES {net.scratch} /* of memory, aligned for {real}, for each call */",
        f"#define {up}_FLASH_BYTES {net.flash} /* of constants; code and self-test come on top */",
        f"#define {up}_SELFTEST_BYTES {selftest} /* of constants; none with -D{up}_NO_SELFTEST */",
        f"#define {up}_MULTIPLY_ADDS {net.multiply_adds} /* of matrix products, for a prediction */",
        *(net.learning.macros() if net.learning else []),
        *_columns(net),
        *_class_macros(net),
        "",
        *OPENING,
        "",
        *(net.learning.types(real) if net.learning else []),
        literals.comment(
            "The outputs y for the inputs x, as model.predict computes them. scratch: "
            f"{up}_SCRATCH_BYTES. x stays as it is; y may be x."
        ),
        f"void {p}_predict({net.state}const {real} *x, {real} *y, {real} *scratch);",
        "",
        "/* The number of the largest output, the first of equals. */",
        f"int32_t {p}_argmax(const {real} *y);",
        *_declared(net),
        *(net.learning.declared(real) if net.learning else []),
        "",
        literals.comment(
            "Predict rows that the file has with their outputs; returns the largest difference. 0: all "
            "have the bits that they must have."
        ),
        f"#ifndef {up}_NO_SELFTEST",
        f"{real} {p}_selftest({net.state}{real} *scratch);",
        "#endif",
        "",
        *CLOSING,
        "",
        "#endif",
    ]
    return "\n".join(lines) + "\n"


def _told(net: Net) -> list[str]:
    """What users of the files must know."""
    p = net.name
    return [
        f"{p}: a trained net, written by fastnet.",
        "Nothing here allocates memory or keeps a state: the caller owns all memory, so that threads and "
        "interrupt handlers may call these functions at once, each with scratch memory of its own. "
        "Inputs must be finite.",
        "Compile with -ffp-contract=off, or in a dialect of the C standard such as -std=c99, and without "
        "-ffast-math: then outputs have the bits of fastnet's C backend. Name the FMA instructions of "
        "the processor, by -march=native or -mfma: otherwise fmaf is a function, which may be slow. "
        f"There -D{net.capitals}_NO_FMA rounds products by themselves, and outputs differ in their last "
        f"digits. {p}_selftest tells.",
        "Of other libraries it takes what compilers put in, memcpy, memmove, memset and arithmetic of "
        f"processors without floating point, {_needs(net)}.",
    ]


def _needs(net: Net) -> str:
    if not net.needs:
        return "and nothing of libm"
    return f"and of libm {', '.join(net.needs)} (link with -lm)"


def _columns(net: Net) -> list[str]:
    if not net.meaning.columns:
        return []
    names = [f" *   {i} {literals.in_comment(n)}" for i, n in enumerate(net.meaning.columns)]
    return ["", "/* The inputs:", *names, " */"]


def _class_macros(net: Net) -> list[str]:
    lines = []
    if net.meaning.classes:
        lines.append(f"#define {net.capitals}_CLASSES {len(net.meaning.classes)}")
    if net.probabilities:
        lines.append(f"#define {net.capitals}_PROBABILITIES {net.probabilities}")
    return ["", *lines] if lines else []


def _declared(net: Net) -> list[str]:
    p, lines = net.name, []
    if net.one_of_classes:
        lines += [
            "",
            "/* The number of the class that outputs y stand for, as model.predict_classes finds it. */",
            f"int32_t {p}_class(const {net.real} *y);",
        ]
    if net.probabilities:
        lines += [
            "",
            literals.comment(
                f"The {net.capitals}_PROBABILITIES probabilities p that outputs y stand for, within "
                "1e-6 of those of model.predict_proba; p may be y."
            ),
            f"void {p}_probabilities(const {net.real} *y, {net.real} *p);",
        ]
    if net.meaning.classes:
        lines += [
            "",
            "/* The labels of the classes, by number. */",
            f"extern const {net.label_type} {p}_labels[{net.capitals}_CLASSES];",
        ]
    return lines


def preamble(net: Net, includes: str) -> str:
    """The beginning of a source file: macros of compilers."""
    up = net.capitals
    return f"""/* {net.name}: a trained net, written by fastnet; see {net.header}. */
#include "{net.header}"

{includes}
#ifdef __FAST_MATH__
#error "compile this file without -ffast-math: it changes results, and NaN and infinity"
#endif

/* Only madd may fuse a product with a sum. GCC fuses them in its own dialects unless told otherwise. */
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC push_options
#pragma GCC optimize("fp-contract=off")
#endif

#if defined(__GNUC__)
#define {up}_INLINE static inline __attribute__((always_inline))
#define {up}_RESTRICT __restrict__
#else
#define {up}_INLINE static inline
#define {up}_RESTRICT
#endif
{aligned(up)}
#if defined(__GNUC__) && !defined(__clang__)
#define {up}_UNROLLED _Pragma("GCC unroll 20")
#else
#define {up}_UNROLLED
#endif

/* How many sums of a matrix product the registers hold, at least 4. */
#ifndef {up}_BLOCK
#if defined(__AVX__) || defined(__aarch64__) || defined(__riscv_vector)
#define {up}_BLOCK 64
#elif defined(__SSE__)
#define {up}_BLOCK 16
#else
#define {up}_BLOCK 4
#endif
#endif
"""


def aligned(up: str) -> str:
    """The macro that begins an array with a cache line, where vectors are so wide that it matters."""
    return (
        f"#if defined(__GNUC__) && defined(__AVX__)\n#define {up}_ALIGNED __attribute__((aligned(64)))\n"
        f"#else\n#define {up}_ALIGNED\n#endif"
    )


def ending() -> str:
    """The end of a source file."""
    return """
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC pop_options
#endif
"""


def external(up: str, declarations: Sequence[str], definitions: Sequence[str]) -> list[str]:
    """The definitions of a file of their own, with C's names in C++ too."""
    both = "\n".join(declarations)
    head = '#include <stdint.h>\n\n#ifdef __cplusplus\nextern "C" {\n#endif'
    return [head, aligned(up), both, *definitions, "#ifdef __cplusplus\n}\n#endif"]


def run(net: Net, statements: str) -> str:
    """The function that runs all kernels and returns the address of the outputs."""
    p, real = net.name, net.real
    index = "    int32_t i;\n" if "i = 0" in statements else ""
    unused = "" if "scratch" in statements else "    (void)scratch;\n"
    return (
        f"static const {real} *{p}_run({net.state}const {real} *x, {real} *scratch) {{\n"
        f"{index}{unused}{statements}\n    return {net.output};\n}}"
    )


def argmax(name: str, kind: str) -> str:
    """The function that finds the largest of outputs of a type."""
    return f"""int32_t {name}_argmax(const {kind} *y) {{
    int32_t most = 0;
    for (int32_t i = 1; i < {name.upper()}_OUTPUTS; i++)
        if (y[i] > y[most])
            most = i;
    return most;
}}"""


def entries(net: Net) -> str:
    """The functions that the header declares."""
    p, up, real = net.name, net.capitals, net.real
    given = "state, " if net.learning else ""
    copy = "memmove" if net.output == "x" else "memcpy"  # y may be x
    texts = [
        f"""void {p}_predict({net.state}const {real} *x, {real} *y, {real} *scratch) {{
    {copy}(y, {p}_run({given}x, scratch), {up}_OUTPUTS * sizeof *y);
}}""",
        argmax(p, real),
        *_classes(net),
        selftest(net),
    ]
    return "\n\n".join(texts)


def _classes(net: Net) -> list[str]:
    p, real, texts = net.name, net.real, []
    if net.one_of_classes:
        bound = "0" if net.link == links.SIGMOID else literals.number(0.5, real)
        value = f"y[0] >= {bound}" if net.link in links.OF_TRUTHS else f"{p}_argmax(y)"
        texts.append(f"int32_t {p}_class(const {real} *y) {{\n    return {value};\n}}")
    if net.probabilities:
        texts.append(
            f"void {p}_probabilities(const {real} *y, {real} *p) {{\n{_probabilities(net)}\n}}"
        )
    if net.meaning.classes:
        labels = net.meaning.classes
        of_text = isinstance(labels[0], str)
        shown = [literals.string(label) if of_text else _integer(int(label)) for label in labels]
        head = f"const {net.label_type} {p}_labels[{net.capitals}_CLASSES]"
        texts.append(literals.table(head, shown))
    return texts


def _integer(value: int) -> str:
    # The constant −2⁶³ has no sign: C knows no such literal.
    return f"(-{2**63 - 1}LL - 1)" if value == -(2**63) else f"{value}LL"


ELEMENT_OF_LINK = {
    links.SIGMOID: "sigmoid",
    links.EXP: "exp",
}


def functions_of_link(net: Net) -> list[str]:
    """The functions of the library that the probabilities need."""
    if not net.probabilities:
        return []
    if net.link == links.SOFTMAX:
        return ["softmax_forward"]
    return [f"real_{ELEMENT_OF_LINK[net.link]}"] if net.link in ELEMENT_OF_LINK else []


def _probabilities(net: Net) -> str:
    p, up = net.name, net.capitals
    if net.link == links.SOFTMAX:
        return f"    {p}_softmax_forward(p, y, {up}_OUTPUTS);"
    function = ELEMENT_OF_LINK.get(net.link or "")
    value = "{}" if function is None else f"{p}_{function}({{}})"
    if net.probabilities > net.outputs:
        sides = (
            ["1 - y[0]", "y[0]"]
            if function is None
            else [f"{p}_sigmoid(-y[0])", f"{p}_sigmoid(y[0])"]
        )
        return (
            f"    const {net.real} first = {sides[0]}, second = {sides[1]};\n"
            "    p[0] = first;\n    p[1] = second;"
        )
    return f"    for (int32_t i = 0; i < {up}_OUTPUTS; i++)\n        p[i] = {value.format('y[i]')};"


def selftest(net: Net) -> str:
    """The self-test with its rows."""
    p, up, real, rows = net.name, net.capitals, net.real, len(net.vectors.x)
    tables = [
        literals.table(
            f"static const {real} {p}_test_{name}[{rows} * {up}_{size}]",
            (literals.number(value, real) for value in values.reshape(-1)),
        )
        for name, size, values in (("x", "INPUTS", net.vectors.x), ("y", "OUTPUTS", net.vectors.y))
    ]
    infinite, given = f"({real})INFINITY", "state, " if net.learning else ""
    return f"""#ifndef {up}_NO_SELFTEST
{tables[0]}
{tables[1]}

{real} {p}_selftest({net.state}{real} *scratch) {{
    {real} largest = 0;
    for (int32_t row = 0; row < {rows}; row++) {{
        const {real} *const found = {p}_run({given}{p}_test_x + row * {up}_INPUTS, scratch);
        for (int32_t i = 0; i < {up}_OUTPUTS; i++) {{
            const {real} wanted = {p}_test_y[row * {up}_OUTPUTS + i];
            const {real} difference = found[i] > wanted ? found[i] - wanted : wanted - found[i];
            if (!(difference <= largest) && found[i] != wanted)
                largest = difference == difference ? difference : {infinite};
        }}
    }}
    return largest;
}}
#endif"""
