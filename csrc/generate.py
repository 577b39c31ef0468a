"""Writes csrc/generated: the C kernels of formulas, a file for each family that has any.

Writes fastnet/export/elements.h too: the functions of elements for exported C files.
"""

import sys
from pathlib import Path

CSRC = Path(__file__).parent
GENERATED = CSRC / "generated"
sys.path.insert(0, str(CSRC.parent))

import fastnet  # noqa: E402
from fastnet.export.elements import elements_of  # noqa: E402
from fastnet.formulas.c_text import files  # noqa: E402
from fastnet.tangents import curves  # noqa: E402

curves.every()  # second derivatives are ops too

for name, text in files().items():
    path = GENERATED / name
    if not path.exists() or path.read_text("utf-8") != text:  # what is as it was is not rebuilt
        path.write_text(text, encoding="utf-8")
        print(name)

ROOT = Path(fastnet.__file__).parents[1]
elements = ROOT / "fastnet" / "export" / "elements.h"
text = elements_of(ROOT / "csrc" / "lib")
if not elements.exists() or elements.read_text("utf-8") != text:
    elements.write_text(text, encoding="utf-8")
    print(elements.name)
