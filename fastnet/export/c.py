"""A trained model as C: one source file and its header."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fastnet.export import parts
from fastnet.export.parts import Meaning, Net, Vectors
from fastnet.export.program import Program
from fastnet.export.statements import Constants, Statements
from fastnet.export.text import Library, renamed
from fastnet.export.training import Training

# The functions of libm that definitions call; compilers have instructions for most of them.
LIBM = ("copysign", "fabs", "fma", "sqrt")
INCLUDES = "#include <math.h>\n#include <stddef.h>\n#include <string.h>\n"


@dataclass
class Files:
    """The texts of an exported net; `weights` is None where the source has them."""

    header: str
    source: str
    weights: str | None = None


def files(
    program: Program,
    training: Training | None,
    name: str,
    header: str,
    vectors: Vectors,
    meaning: Meaning,
    *,
    separate: bool = False,
) -> Files:
    """The texts of a net with this prefix, whose header has this file name.

    program: of predictions. training: what the net does to train; None: it does not. separate: whether
    constants are in a file of their own.
    """
    double = program.storage.dtype == np.float64
    real = "double" if double else "float"
    library = Library.of_package(double=double)
    constants = Constants(name, real, separate=separate)
    trained = None if training is None else training.trained
    predicting = Statements(program, library, constants, trained)
    learning = None if training is None else training.statements(library, constants)
    net = Net(
        name=name,
        header=header,
        real=real,
        inputs=program.inputs,
        outputs=program.outputs,
        scratch=max(program.workspace, 1) * (8 if double else 4),
        flash=constants.bytes,
        multiply_adds=predicting.multiply_adds,
        output=predicting.output(),
        vectors=vectors,
        meaning=meaning,
        learning=learning,
    )
    called = {**predicting.called, **(learning.called if learning else {})}
    definitions = library.needed([*called, *parts.functions_of_link(net)])
    names = [found for d in definitions for found in d.names]
    of_libm = {f if double else f"{f}f" for f in LIBM}
    net.needs.extend(sorted(of_libm & {use for d in definitions for use in d.used}))

    def named(texts: Iterable[str], between: str) -> str:
        return renamed(between.join(texts), names, name, double=double)

    arrays = constants.arrays
    pieces = [
        parts.preamble(net, INCLUDES),
        *(externs(arrays) if separate else arrays),
        named((d.text for d in definitions), "\n\n"),
        parts.run(net, named(predicting.lines, "\n")),
        parts.entries(net),
        named([learning.text(net.real)], "") if learning else "",
    ]
    weights = None
    if separate:
        head = f"/* The constants of {name}, written by fastnet. */"
        weights = "\n\n".join([head, *parts.external(net.capitals, externs(arrays), arrays)]) + "\n"
    source = "\n\n".join(filter(None, pieces)) + parts.ending()
    return Files(parts.header(net), source, weights)


def is_name(text: str) -> bool:
    """Whether a text may be the prefix of names in C and C++."""
    return re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,40}", text) is not None


def externs(arrays: Iterable[str]) -> list[str]:
    """The declarations of arrays that are defined elsewhere."""
    return [f"extern {array.partition(' =')[0]};" for array in arrays]
