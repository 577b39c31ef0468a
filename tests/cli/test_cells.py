"""Cells of CSV files that are numbers, and those that look like some."""

from __future__ import annotations

import re

import numpy as np
import pytest
from command import fastnet

import fastnet as fn
from fastnet.cli.cells import Cells
from fastnet.cli.main import DONE
from fastnet.errors import HyperparameterError
from fastnet.files import tensors

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


def test_predict_reads_numbers_by_the_mark_of_the_training_where_they_do_not_tell(tmp_path, capsys):
    for package in ("sklearn", "pandas"):
        pytest.importorskip(package)
    a, b = np.random.default_rng(0).uniform(1, 3000, (2, 80))
    lines = [f"{x:.2f};{y:.2f}".replace(".", ",") for x, y in zip(a, b, strict=True)]
    (tmp_path / "x.csv").write_text("\n".join(["a;b", *lines]))
    model = tmp_path / "m.safetensors"
    out = ("--out", model, "--no-report", "--epochs", 3, "--threads", 1)
    assert fastnet(capsys, "train", tmp_path / "x.csv", "--target", "a", *out).code == DONE

    def predicted(text, *options):
        (tmp_path / "new.csv").write_text(text)
        done = fastnet(capsys, "predict", model, tmp_path / "new.csv", *options)
        assert done.code == DONE, done.err
        return done.out

    plain = predicted("b;c\n1250;1\n2125;2\n")
    assert predicted("b;c\n1.250;1\n2.125;2\n") == plain  # could be either
    assert predicted("b\n1.250\n2.125\n") == plain
    assert predicted("b;c\n1250.0;1\n2.125;2\n") != plain  # the first has a decimal point
    assert predicted("b;c\n1.250;1\n2.125;2\n", "--decimal", ".") != plain


def test_files_of_models_without_a_mark_of_decimals_are_read(tmp_path):
    sklearn = pytest.importorskip("fastnet.sklearn")
    path = tmp_path / "m.safetensors"
    x = np.random.default_rng(0).normal(size=(40, 2))
    net = sklearn.TabularRegressor("small", random_state=0, epochs=1).fit(x, x[:, 0])
    net.table_model(decimal=",").save(path)
    assert fn.tabular.load(path).decimal == ","
    with pytest.raises(HyperparameterError, match="decimal is ';'"):
        net.table_model(decimal=";")
    contents = tensors.read(path)
    description = contents.described("table")
    del description["table"]["decimal"]
    tensors.write(path, description, contents.tensors)
    assert fn.tabular.load(path).decimal == "."
