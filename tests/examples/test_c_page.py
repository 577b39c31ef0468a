"""docs/c.md, followed to the letter: its Python, its C files, its commands."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from c_files import have, run

import fastnet as fn

PAGE = Path(__file__).parents[2] / "docs" / "c.md"
NAMES = {"digits.h": "main.c", "learner.h": "learn.c"}  # of the C files, by the header they include


def blocks() -> list[tuple[str, str]]:
    found = re.findall(r"^```(python|c|sh)\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.M)
    assert [kind for kind, _ in found] == ["python", "c", "sh", "sh", "python", "c", "sh"]
    return found


@pytest.mark.skipif(not have("gcc"), reason="no gcc")
def test_the_page_works_as_it_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    printed: list[str] = []
    said = ""
    text = PAGE.read_text("utf-8")
    for kind, block in blocks():
        if kind == "python":
            exec(block, {**names, "print": lambda value: printed.append(str(value))}, names)
            names |= {"print": lambda value: printed.append(str(value))}
        elif kind == "c":
            (header,) = re.findall(r'#include "(\w+\.h)"', block)
            assert f"`{NAMES[header]}`" in text
            (tmp_path / NAMES[header]).write_text(block)
        elif "qemu" not in block or have("aarch64-linux-gnu-gcc", "qemu-aarch64"):
            said = run("bash", "-e", "-o", "pipefail", "-c", block, cwd=tmp_path).stdout or said
    told = re.findall(r"^print\(.*\)  # (.*)$", text, re.M)
    assert [float(p) for p in printed] == pytest.approx([float(t) for t in told], abs=0.02)
    (_, _), (x, _) = fn.datasets.digits()
    want = (tmp_path / "classes.txt").read_text().split()
    for answers in tmp_path.glob("answers*.txt"):
        lines = answers.read_text().splitlines()
        assert [line.split()[0] for line in lines] == want and len(lines) == len(x)
        p = [float(line.split()[-1]) for line in lines]
        best = names["model"].predict_proba(x).max(axis=1)
        np.testing.assert_allclose(p, best, rtol=0, atol=6e-4)
    assert (tmp_path / "answers.txt").exists()
    assert re.fullmatch(r"650 numbers trained, last loss \d\.\d{3}\n", said)


@pytest.mark.skipif(not have("arm-linux-gnueabihf-gcc", "qemu-arm"), reason="no cross compiler")
def test_digits_from_standard_input_on_an_arm_processor(tmp_path):
    """The page's program, without Python about."""
    (x, y), (x_test, _) = fn.datasets.digits()
    model = fn.Sequential(fn.Linear(64, 32), fn.ReLU(), fn.Linear(32, 10), seed=0)
    fn.Trainer(model, fn.CrossEntropyLoss(), seed=0).fit(x, y, epochs=2, verbose=0)
    model.export_c(tmp_path / "digits.c", "digits")
    block = next(block for kind, block in blocks() if kind == "c")
    (tmp_path / "main.c").write_text(block)
    sources = tmp_path / "main.c", tmp_path / "digits.c"
    command = "arm-linux-gnueabihf-gcc", "-std=c99", "-O2", "-static"
    run(*command, *sources, "-o", tmp_path / "digits", "-lm")
    rows = "\n".join(" ".join(f"{v:g}" for v in row) for row in x_test[:100])
    emulator = shutil.which("qemu-arm")
    lines = run(emulator, tmp_path / "digits", input=rows, env={}).stdout.splitlines()
    assert [int(line.split()[0]) for line in lines] == model.predict_classes(x_test[:100]).tolist()
