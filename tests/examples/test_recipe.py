"""The recipe "Add a layer" of CONTRIBUTING.md, followed in a copy of the package."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import child
import pytest

ROOT = Path(__file__).parents[2]
WITHOUT = shutil.ignore_patterns("__pycache__", ".*", "*.so")


def recipe():
    """The steps of the recipe, by number."""
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    section = text.partition("## Add a layer\n")[2].partition("\n## ")[0]
    steps = re.split(r"^\d\. ", section, flags=re.MULTILINE)
    assert [bool(re.match(r"\*\*\w+", step)) for step in steps] == [False] + [True] * 5
    return steps


def code(step):
    (block,) = re.findall(r"^ *```python\n(.*?)^ *```", step, re.DOTALL | re.MULTILINE)
    return textwrap.dedent(block)


def named(step, pattern):
    """What a step names in backticks, which fits a pattern."""
    return re.findall(rf"`({pattern})`", step)[0]


CHECK = """
import json
import numpy as np
import fastnet as fn

x, h = np.linspace(-2, 2, 41).reshape(-1, 1), 1e-6
found = []
for backend in ("reference", "numba"):
    if not fn.backends()[backend].available:
        continue
    model = fn.Sequential(fn.Cube(), dtype="float64", backend=backend)
    model.forward(x)
    dx = model.backward(np.ones_like(x))
    slope = (model.predict(x + h) - model.predict(x - h)) / (2 * h)
    found.append([float(abs(model.predict(x) - x**3).max()), float(abs(dx - slope).max())])
print(json.dumps([fn.__file__, repr(fn.layers.base.Layer and fn.Cube()), found]))
"""


@pytest.fixture
def copy(tmp_path):
    for name in ("fastnet", "csrc", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=WITHOUT)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def run(command, copy):
    words = [sys.executable if word == "python" else word for word in shlex.split(command)]
    environment = child.environment(copy, FASTNET_TEST_BACKENDS="reference,numba")
    done = subprocess.run(
        words, cwd=copy, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_recipe_makes_a_layer(copy):
    _, layer, kernels, export, tests, _ = recipe()
    path = copy / named(layer, r"fastnet/layers/\w+\.py")
    path.write_text(f"{path.read_text('utf-8')}\n\n{code(layer)}", "utf-8")
    written = run(named(kernels, "python csrc/generate.py"), copy).split()
    assert written == ["activations.c", "curves.c"]  # forward and vjp, and the second derivative
    text = (copy / "csrc/generated/activations.c").read_text("utf-8")
    assert "cube_forward" in text and "cube_vjp" in text
    path = copy / named(export, r"fastnet/layers/__init__\.py")
    text = path.read_text("utf-8").replace("    GELU,\n", "    GELU,\n    Cube,\n", 1)
    path.write_text(text.replace("__all__ = [\n", '__all__ = [\n    "Cube",\n', 1), "utf-8")
    run(named(export, r"python csrc/late_names\.py"), copy)
    file, shown, found = child.run(CHECK, path=(copy,))
    assert Path(file).is_relative_to(copy) and shown == "Cube()"
    assert found and all(value < 1e-14 and slope < 1e-8 for value, slope in found)
    printed = run(named(tests, "python -m pytest [^`]+") + " -q -p no:cacheprovider", copy)
    assert int(re.findall(r"(\d+) passed", printed)[0]) >= 18, printed
