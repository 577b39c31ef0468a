"""Where and with what was measured."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

import fastnet
from fastnet.backends import registry

LIBRARIES = ["numpy", "numba", "torch", "jax", "keras", "scikit-learn", "onnxruntime", "numba-cuda"]


def versions() -> dict[str, str]:
    """The libraries that take part."""
    found = {"Python": platform.python_version(), "fastnet": fastnet.__version__}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def simulated() -> bool:
    """Whether Numba's simulator takes a GPU's place, whose times say nothing."""
    return os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")


def backends() -> list[str]:
    """The backends of fastnet that run here, and not in the simulator."""
    found = [name for name, info in fastnet.backends().items() if info.available]
    return [name for name in found if name != "cuda" or not simulated()]


def describe() -> str:
    """The processor, the number of its cores, and the instruction set of the C backend."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line]
        about = {key.strip(): value.strip() for key, value in lines}
        model = about.get("model name", model)
        if "cpu family" in about and "model" in about:  # some name no more than their maker
            model += f" (family {about['cpu family']}, model {about['model']})"
    text = f"{model}, {os.cpu_count()} cores, {platform.system()}"
    if "c" in backends():
        native = registry.get("c")
        text += f"; the C backend at level {native.levels()[native.level()]}"  # type: ignore[attr-defined]
    return text
