"""Exported C files: compiled, and called through a program or a shared library."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

POINTER = ctypes.c_void_p
STRICT = ("-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror")
CPU = Path("/proc/cpuinfo")
# The flag for fused multiply-adds; other processors than x86 need none.
FMA = "-mfma" if CPU.exists() and " fma " in CPU.read_text("utf-8") else "-Wall"


def run(*command: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command; a failure shows what it said."""
    found = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, **options
    )
    assert found.returncode == 0, f"{' '.join(map(str, command))}\n{found.stderr[-4000:]}"
    return found


def macro(header: Path, name: str) -> int:
    """The number of a macro in a header."""
    found = re.search(rf"#define {name} (\d+)", header.read_text("utf-8"))
    assert found, name
    return int(found[1])


class Compiled:
    """A net as a shared library."""

    def __init__(self, source: Path, *flags: str, compiler: str = "gcc", also: Any = ()) -> None:
        name = source.stem
        number = len(list(source.parent.glob("*.so")))
        library = source.parent / f"{name}{number}.so"
        run(compiler, *flags, "-shared", "-fPIC", source, *also, "-o", library, "-lm")
        self.library, header = ctypes.CDLL(str(library)), source.with_suffix(".h")
        text, up = header.read_text("utf-8"), name.upper()
        self.dtype = np.dtype("float64" if "const double *x" in text else "float32")
        self.kind = ctypes.c_double if self.dtype == np.float64 else ctypes.c_float
        self.inputs, self.outputs = macro(header, f"{up}_INPUTS"), macro(header, f"{up}_OUTPUTS")
        self.scratch_bytes = macro(header, f"{up}_SCRATCH_BYTES")
        self.name = name

    def scratch(self) -> Any:
        """Scratch memory of the stated size, with NaN in it and guards around it."""
        count = self.scratch_bytes // self.dtype.itemsize
        whole = np.full(count + 32, 12345, self.dtype)
        whole[16:-16] = np.nan
        return whole

    def predict(self, x: Any) -> Any:
        """The outputs for rows."""
        x = np.ascontiguousarray(x, self.dtype).reshape(len(x), -1)
        assert x.shape[1] == self.inputs
        y, whole = np.empty((len(x), self.outputs), self.dtype), self.scratch()
        function = getattr(self.library, f"{self.name}_predict")
        for row, to in zip(x, y, strict=True):
            function(*(ctypes.c_void_p(a.ctypes.data) for a in (row, to, whole[16:])))
        assert (whole[:16] == 12345).all() and (whole[-16:] == 12345).all()
        return y

    def selftest(self) -> float:
        """The largest difference that the self-test finds."""
        function = getattr(self.library, f"{self.name}_selftest")
        function.restype = self.kind
        return float(function(ctypes.c_void_p(self.scratch()[16:].ctypes.data)))


def have(*tools: str) -> bool:
    """Whether all these programs are installed."""
    return all(map(shutil.which, tools))
