"""Cells of CSV files that are numbers, and those that look like some."""

from __future__ import annotations

import re

import numpy as np
import pytest
from command import fastnet

from fastnet.cli.cells import Cells
from fastnet.cli.main import DONE

NUMBERS = {
    ".": {"1,250": 1250.0, "-12,345,678.5": -12345678.5, "+7": 7.0, "0.125": 0.125, ".5": 0.5},
    ",": {"1.250": 1250.0, "-12.345.678,5": -12345678.5, "0,125": 0.125, "1e-3": 0.001},
}
OTHERS = {
    ".": ["0,125", "-0,126", "00,125", "012,500", "1,25", "1,2500", ",125", "0,125.5"],
    ",": ["0.125", "+0.125", "1.25", "0.125,5"],
}


@pytest.mark.parametrize("decimal", NUMBERS)
def test_groups_of_three_digits_are_no_decimals(decimal):
    cells = Cells(decimal, frozenset())
    assert {text: cells.number(text) for text in NUMBERS[decimal]} == NUMBERS[decimal]
    assert [cells.number(text) for text in OTHERS[decimal]] == [None] * len(OTHERS[decimal])


def test_points_among_decimal_commas_are_told(tmp_path, capsys):
    for package in ("sklearn", "pandas"):
        pytest.importorskip(package)
    a, b = np.random.default_rng(0).normal(size=(2, 80))
    lines = [f"{x:.5f};{y:.5f}".replace(".", ",") for x, y in zip(a, b, strict=True)]
    text = "\n".join(f"{line};0.{125 + i}" for i, line in enumerate(lines))
    (tmp_path / "x.csv").write_text(f"a;b;c\n{text}\n")
    out = ("--out", tmp_path / "m.safetensors", "--no-report", "--epochs", 1, "--threads", 1)
    done = fastnet(capsys, "train", tmp_path / "x.csv", "--target", "a", *out)
    assert done.code == DONE, done.err
    assert "left out: c (80 different texts)" in done.err
    assert re.search(r"^numbers +b$", done.out, re.M)
