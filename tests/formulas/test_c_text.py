"""Formulas in C: that the kernels are those of the ops."""

from __future__ import annotations

from pathlib import Path

from fastnet.formulas.c_text import files
from fastnet.op import KERNELS

CSRC = Path(__file__).parents[2] / "csrc"


def test_the_c_files_are_what_the_generator_writes():
    texts = files()
    assert sum(text.count(f"{name},") for name in KERNELS for text in texts.values()) >= 10
    for name, text in texts.items():
        assert (CSRC / name).read_text("utf-8") == text, f"run python csrc/generate.py ({name})"
