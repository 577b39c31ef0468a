"""A quantised net as C: one source file and its header."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fastnet.export import literals, parts
from fastnet.int8 import chain
from fastnet.int8.layer import Layer
from fastnet.int8.ranges import Entry
from fastnet.op import Array


@dataclass(frozen=True)
class Front:
    """The map from an input to its code, in float32: numbers of columns, then scale and zero point."""

    numbers: chain.Front
    entry: Entry

    def terms(self, name: str) -> tuple[list[str], tuple[str, str, str]]:
        """Definitions of constants, and what stands for those of input i; equal ones are one number."""
        arrays, texts = [], []
        for kind in ("centre", "factor", "offset"):
            values = getattr(self.numbers, kind)
            if np.all(values == values[0]):
                texts.append(literals.number(values[0], "float"))
                continue
            head = f"static const float {name}_{kind}[{len(values)}]"
            arrays.append(literals.table(head, (literals.number(v, "float") for v in values)))
            texts.append(f"{name}_{kind}[i]")
        return arrays, (texts[0], texts[1], texts[2])


def files(
    name: str, header: str, layers: list[Layer], front: Front, rows: Array
) -> tuple[str, str]:
    """The texts of the source and of the header, which has this file name.

    rows: codes of inputs for the self-test.
    """
    return _source(name, header, layers, front, rows), _header(name, layers, len(rows))


def _scratch(layers: list[Layer]) -> int:
    """The bytes between layers: two places by turns."""
    widths = [layer.w.shape[1] for layer in layers[:-1]]
    return max(widths[0::2], default=0) + max(widths[1::2], default=0)


def _header(name: str, layers: list[Layer], tests: int) -> str:
    up, first, last = name.upper(), layers[0], layers[-1]
    inputs, outputs = first.w.shape[0], last.w.shape[1]
    products = sum(layer.w.size for layer in layers)
    scratch = max(1, _scratch(layers))
    lines = [
        literals.comment(
            f"{name}: a trained net of 8-bit integers, written by fastnet.",
            "Nothing here allocates memory or keeps a state: the caller owns all memory, so that threads "
            "and interrupts may call it at once, each with scratch memory of its own. Only "
            f"{name}_quantize and {name}_dequantize have floating point; -D{up}_NO_FLOAT leaves them out.",
            "A code q of an output stands for the number "
            f"{up}_OUTPUT_SCALE * (q - {up}_OUTPUT_ZERO).",
        ),
        f"#ifndef {up}_H",
        f"#define {up}_H",
        "",
        "#include <stdint.h>",
        "",
        f"#define {up}_INPUTS {inputs}",
        f"#define {up}_OUTPUTS {outputs}",
        f"#define {up}_SCRATCH_BYTES {scratch} /* of memory for each call */",
        f"#define {up}_FLASH_BYTES {sum(layer.nbytes for layer in layers)} "
        "/* of constants; code, the map of inputs and the self-test come on top */",
        f"#define {up}_SELFTEST_BYTES {tests * (inputs + outputs)} "
        f"/* of constants; none with -D{up}_NO_SELFTEST */",
        f"#define {up}_MULTIPLY_ADDS {products} /* of integers, for a prediction */",
        f"#define {up}_OUTPUT_SCALE {literals.number(last.after.scale, 'float')}",
        f"#define {up}_OUTPUT_ZERO {last.after.zero}",
        "",
        *parts.OPENING,
        "",
        literals.comment(
            "The codes y of the outputs for the codes x of the inputs. scratch: "
            f"{up}_SCRATCH_BYTES. x stays as it is; y must be other memory."
        ),
        f"void {name}_predict(const uint8_t *x, uint8_t *y, uint8_t *scratch);",
        "",
        "/* The number of the largest output, the first of equals. */",
        f"int32_t {name}_argmax(const uint8_t *y);",
        "",
        f"#ifndef {up}_NO_FLOAT",
        "/* The codes q of inputs x; NaN has the code 0. */",
        f"void {name}_quantize(const float *x, uint8_t *q);",
        "",
        "/* The numbers y that the codes q of outputs stand for. */",
        f"void {name}_dequantize(const uint8_t *q, float *y);",
        "#endif",
        "",
        f"#ifndef {up}_NO_SELFTEST",
        "/* Predict rows that the file has; returns the largest difference of a code, which must be 0. */",
        f"int32_t {name}_selftest(uint8_t *scratch);",
        "#endif",
        "",
        *parts.CLOSING,
        "",
        "#endif",
    ]
    return "\n".join(lines) + "\n"


def _source(name: str, header: str, layers: list[Layer], front: Front, rows: Array) -> str:
    tables = [text for i, layer in enumerate(layers) for text in _tables(f"{name}_{i}", layer)]
    pieces = [
        f"/* {name}: a trained net of 8-bit integers, written by fastnet; see {header}. */\n"
        f'#include "{header}"',
        *tables,
        PRODUCT.replace("NAME", name),
        _predict(name, layers),
        parts.argmax(name, "uint8_t"),
        _floats(name, layers[-1], front),
        _selftest(name, layers, rows),
    ]
    return "\n\n".join(pieces) + "\n"


def _tables(prefix: str, layer: Layer) -> list[str]:
    """The constants of a layer; the weights of an output lie together."""
    arrays: list[tuple[str, str, Array]] = [
        ("int8_t", "w", layer.w.T),
        ("int32_t", "b", layer.bias),
        ("int32_t", "m", layer.multiplier),
        ("uint8_t", "s", layer.shift),
    ]
    if layer.table is not None:
        arrays.append(("uint8_t", "t", layer.table))
    return [
        literals.table(f"static const {kind} {prefix}_{which}[{values.size}]", _integers(values))
        for kind, which, values in arrays
    ]


def _integers(values: Array) -> Iterable[str]:
    # −2³¹ is no literal of C's.
    return (str(v) if v > -(2**31) else "(-2147483647 - 1)" for v in values.reshape(-1).tolist())


# The sum's offset keeps it from being negative: C leaves open how those are shifted.
PRODUCT = """static void NAME_product(const uint8_t *x, uint8_t *y, const int8_t *w, const int32_t *b,
                         const int32_t *m, const uint8_t *s, int32_t inputs, int32_t outputs,
                         int32_t zero, const uint8_t *table) {
    for (int32_t o = 0; o < outputs; o++) {
        const int8_t *const row = w + o * inputs;
        int32_t sum = b[o];
        for (int32_t i = 0; i < inputs; i++)
            sum += (int32_t)x[i] * (int32_t)row[i];
        const int64_t scaled = (int64_t)sum * m[o] + ((int64_t)1 << (s[o] - 1));
        const uint64_t moved = (uint64_t)scaled + ((uint64_t)1 << 62);
        int64_t q = (int64_t)(moved >> s[o]) - (int64_t)(((uint64_t)1 << 62) >> s[o]) + zero;
        q = q < 0 ? 0 : q > 255 ? 255 : q;
        y[o] = table ? table[q] : (uint8_t)q;
    }
}"""


def _predict(name: str, layers: list[Layer]) -> str:
    half = max((layer.w.shape[1] for layer in layers[:-1:2]), default=0)
    places = ["scratch", f"scratch + {half}"]
    lines = [
        f"void {name}_predict(const uint8_t *x, uint8_t *y, uint8_t *scratch) {{",
        *(["    (void)scratch;"] if len(layers) == 1 else []),
    ]
    source = "x"
    for i, layer in enumerate(layers):
        target = "y" if i == len(layers) - 1 else places[i % 2]
        p, (inputs, outputs) = f"{name}_{i}", layer.w.shape
        table = "0" if layer.table is None else f"{p}_t"
        lines.append(
            f"    {name}_product({source}, {target}, {p}_w, {p}_b, {p}_m, {p}_s, {inputs}, {outputs}, "
            f"{layer.before.zero}, {table});"
        )
        source = target
    return "\n".join([*lines, "}"])


def _floats(name: str, last: Layer, front: Front) -> str:
    """The maps from and to numbers; the two operations must not become one."""
    arrays, (centre, factor, offset) = front.terms(name)
    entry, table = front.entry, front.entry.table
    if table is not None:
        head = f"static const uint8_t {name}_table[{table.size}]"
        arrays.append(literals.table(head, _integers(table)))
    up, scale = name.upper(), literals.number(entry.codes.scale, "float")
    place = "(uint8_t)(code < 0 ? 0 : code > 255 ? 255 : code)"
    place = place if table is None else f"{name}_table[{place}]"
    return "\n".join(
        [
            f"#ifndef {up}_NO_FLOAT",
            *arrays,
            "#if defined(__clang__)",
            "#pragma STDC FP_CONTRACT OFF",
            "#elif defined(__GNUC__)",
            "#pragma GCC push_options",
            '#pragma GCC optimize("fp-contract=off")',
            "#endif",
            f"void {name}_quantize(const float *x, uint8_t *q) {{",
            f"    for (int32_t i = 0; i < {up}_INPUTS; i++) {{",
            f"        const float product = (x[i] - {centre}) * {factor};",
            f"        const float t = (product + {offset}) / {scale};",
            "        const float bounded = t > -300.0f ? t < 300.0f ? t : 300.0f : -300.0f;",
            "        /* Beside 1.5 * 2^23 a float has no fraction: this rounds, ties to even. */",
            "        const volatile float sum = bounded + 12582912.0f;",
            f"        const int32_t code = (int32_t)(sum - 12582912.0f) + {entry.codes.zero};",
            f"        q[i] = {place};",
            "    }",
            "}",
            "#if defined(__GNUC__) && !defined(__clang__)",
            "#pragma GCC pop_options",
            "#endif",
            "",
            f"void {name}_dequantize(const uint8_t *q, float *y) {{",
            f"    for (int32_t i = 0; i < {up}_OUTPUTS; i++)",
            f"        y[i] = {up}_OUTPUT_SCALE * (float)(q[i] - {up}_OUTPUT_ZERO);",
            "}",
            "#endif",
        ]
    )


def _selftest(name: str, layers: list[Layer], rows: Array) -> str:
    up, wanted = name.upper(), rows
    for layer in layers:
        wanted = layer(wanted)
    tables = [
        literals.table(
            f"static const uint8_t {name}_test_{which}[{values.size}]",
            map(str, values.reshape(-1).tolist()),
        )
        for which, values in (("x", rows), ("y", wanted))
    ]
    return "\n".join(
        [
            f"#ifndef {up}_NO_SELFTEST",
            *tables,
            "",
            f"int32_t {name}_selftest(uint8_t *scratch) {{",
            "    int32_t largest = 0;",
            f"    uint8_t y[{up}_OUTPUTS];",
            f"    for (int32_t row = 0; row < {len(rows)}; row++) {{",
            f"        {name}_predict({name}_test_x + row * {up}_INPUTS, y, scratch);",
            f"        for (int32_t i = 0; i < {up}_OUTPUTS; i++) {{",
            f"            const int32_t off = y[i] - {name}_test_y[row * {up}_OUTPUTS + i];",
            "            const int32_t distance = off < 0 ? -off : off;",
            "            largest = distance > largest ? distance : largest;",
            "        }",
            "    }",
            "    return largest;",
            "}",
            "#endif",
        ]
    )
