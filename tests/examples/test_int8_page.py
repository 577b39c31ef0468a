"""The C program of docs/int8.md, with the files that its Python writes."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from c_files import run

import fastnet as fn

PAGE = Path(__file__).parents[2] / "docs" / "int8.md"


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")
def test_the_program_says_what_python_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    blocks = re.findall(r"^```(python|c)\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.M)
    assert [kind for kind, _ in blocks] == ["python", "python", "c"]
    for kind, text in blocks:
        if kind == "python":
            exec(text, names)
        else:
            Path("main.c").write_text(text)
    run("gcc", "-std=c99", "-O2", "-Wall", "-Werror", "main.c", "digits8.c", "-o", "digits8")
    _, (x, _) = fn.datasets.digits()
    rows = "\n".join(" ".join(f"{v:g}" for v in row) for row in x)
    done = subprocess.run(["./digits8"], input=rows, capture_output=True, text=True, check=True)
    said = np.array(done.stdout.split(), int)
    assert np.array_equal(said, names["small"].predict_codes(x).argmax(axis=1))
