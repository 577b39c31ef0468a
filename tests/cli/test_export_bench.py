"""`fastnet export` and `fastnet bench`: other programs predict what `fastnet predict` prints."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from command import fastnet

import fastnet as fn
from fastnet.cli import bench
from fastnet.cli.export import _comment
from fastnet.cli.main import DONE, FAILED, MISUSED


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A folder with a table that has gaps and categories, and a model of it."""
    pytest.importorskip("sklearn")
    pd = pytest.importorskip("pandas")
    from sklearn.datasets import load_wine

    from fastnet.sklearn import TabularClassifier

    X, y = load_wine(return_X_y=True, as_frame=True)
    X = X.iloc[:, :4].assign(place=[f"/*{i % 3}*/ é" for i in range(len(X))])
    X.loc[::7, "ash"] = np.nan
    labels = np.array(["red", "rosé", "white"])[y]
    folder = tmp_path_factory.mktemp("table")
    X.to_csv(folder / "x.csv", index=False)
    made = TabularClassifier("small", epochs=20, random_state=0).fit(
        X.astype({"place": object}), labels
    )
    made.table_model("kind").save(folder / "wine.safetensors")
    return folder, pd


def coded(model, X):
    """What the list of inputs asks for."""
    columns = []
    for one in model.inputs:
        if one.is_gap:
            columns.append(X[one.name.removesuffix(" is missing")].isna())
        elif one.categories is None:
            columns.append(X[one.name].fillna(one.fill or 0.0))
        else:
            columns.append(X[one.name].map({c: i for i, c in enumerate(one.categories)}))
    return np.stack([column.to_numpy(np.float32) for column in columns], 1)


def predicted(capsys, folder):
    done = fastnet(capsys, "predict", folder / "wine.safetensors", folder / "x.csv")
    rows = list(csv.reader(io.StringIO(done.out)))[1:]
    return np.array([row[1:] for row in rows], float), [row[0] for row in rows]


LISTED = [
    "input 2, ash: a number; where it is missing ",
    "input 4, place: a category: /*0*/ é = 0, /*1*/ é = 1, /*2*/ é = 2; any other, or none = -1",
    "input 5, ash is missing: 1 where it is, else 0",
    "output 1: the logit of kind = rosé",
]


def test_onnx_predicts_what_the_command_prints(table, capsys):
    onnxruntime = pytest.importorskip("onnxruntime")
    folder, pd = table
    done = fastnet(capsys, "export", folder / "wine.safetensors", "--to", "onnx")
    assert done.code == DONE and done.err == f"fastnet: written: {folder / 'wine.onnx'}\n"
    assert [line for line in LISTED if line not in done.out] == []
    session = onnxruntime.InferenceSession(str(folder / "wine.onnx"))
    model = fn.tabular.load(folder / "wine.safetensors")
    names = [one.name for one in session.get_outputs()]
    rows = coded(model, pd.read_csv(folder / "x.csv"))
    found = dict(zip(names, session.run(names, {"input": rows}), strict=True))
    p, labels = predicted(capsys, folder)
    mixed = (1 - model.mixed) * found["probabilities"] + model.mixed / 3
    np.testing.assert_allclose(mixed, p, rtol=1e-4, atol=1e-6)
    assert found["classes"].tolist() == labels
    told = session.get_modelmeta().custom_metadata_map
    assert json.loads(told["inputs"]) == done.out.splitlines()


C_PROGRAM = """
#include <stdio.h>
#include "wine.h"

int main(void) {
    static float x[NET_INPUTS], y[NET_OUTPUTS];
    static unsigned char scratch[NET_SCRATCH_BYTES + 64];
    while (1) {
        for (int i = 0; i < NET_INPUTS; i++)
            if (scanf("%f", &x[i]) != 1) return 0;
        net_predict(x, y, (void *)(((size_t)scratch + 63) / 64 * 64));
        for (int i = 0; i < NET_OUTPUTS; i++) printf("%.9g ", (double)y[i]);
        printf("\\n");
    }
}
"""


def test_c_predicts_what_the_command_prints(table, capsys):
    if (compiler := shutil.which("gcc") or shutil.which("cc")) is None:
        pytest.skip("there is no C compiler")
    folder, pd = table
    done = fastnet(capsys, "export", folder / "wine.safetensors", "--to", "c")
    assert done.code == DONE, done.err
    header = (folder / "wine.h").read_text("utf-8")
    for line in LISTED:
        assert line in done.out and line.replace("/*", "/ *").replace("*/", "* /") in header
    (folder / "main.c").write_text(C_PROGRAM)
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-o", "main"]
    subprocess.run([compiler, *flags, "main.c", "wine.c", "-lm"], cwd=folder, check=True)
    model = fn.tabular.load(folder / "wine.safetensors")
    rows = coded(model, pd.read_csv(folder / "x.csv"))
    text = "\n".join(" ".join(f"{value:.9g}" for value in row) for row in rows)
    ran = subprocess.run([folder / "main"], input=text, capture_output=True, text=True, check=True)
    logits = np.array([line.split() for line in ran.stdout.splitlines()], float)
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    mixed = (1 - model.mixed) * p / p.sum(axis=1, keepdims=True) + model.mixed / 3
    np.testing.assert_allclose(mixed, predicted(capsys, folder)[0], rtol=1e-4, atol=1e-6)


ENDING = ["x*\\\n/", "*/", "/*", "a\\", "b??/", "c\r\n//", "*??/\n/", "d\u2028\x0c"]


@pytest.mark.parametrize("options", [(), ("-std=c99", "-pedantic")])
def test_no_category_ends_the_comment(options, tmp_path):
    if (compiler := shutil.which("gcc") or shutil.which("cc")) is None:
        pytest.skip("there is no C compiler")
    comment = _comment([f"output {i}: {text}" for i, text in enumerate(ENDING)])
    assert comment.count("\n") == len(ENDING) + 2
    (tmp_path / "x.c").write_text(f"{comment}int x = 1;\n", "utf-8")
    flags = ["-Wall", "-Wextra", "-Werror", *options, "-c", "-o", "x.o"]
    done = subprocess.run([compiler, *flags, "x.c"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("form", ["c", "onnx"])
def test_other_models_are_exported_too(form, tmp_path, capsys):
    model = fn.Sequential(fn.Linear(3, 2), fn.ReLU(), seed=0)
    model.save(tmp_path / "net.safetensors")
    out = tmp_path / f"other.{form}"
    done = fastnet(capsys, "export", tmp_path / "net.safetensors", "--to", form, "--out", out)
    assert done.code == DONE and done.out == "inputs of shape (3,)\n" and out.stat().st_size > 100


def test_int8_classifies_mostly_as_the_command_does(table, capsys):
    if (compiler := shutil.which("gcc") or shutil.which("cc")) is None:
        pytest.skip("there is no C compiler")
    from fastnet.sklearn import TabularClassifier

    folder, pd = table
    X = pd.read_csv(folder / "x.csv").drop(columns=["place", "ash"])
    X.to_csv(folder / "numbers.csv", index=False)
    labels = predicted(capsys, folder)[1]
    made = TabularClassifier("small", epochs=60, random_state=0).fit(X, labels)
    made.save(folder / "small.safetensors")
    command = ("export", folder / "small.safetensors", "--to", "int8")
    done = fastnet(capsys, *command)
    assert done.code == FAILED and "--to int8 needs --data DATA" in done.err
    done = fastnet(capsys, *command, "--data", folder / "numbers.csv")
    assert done.code == DONE, done.err
    assert (folder / "small.h").read_text("utf-8").startswith("/*\n * input 0, alcohol: a number\n")
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-c", "-o", "small.o"]
    subprocess.run([compiler, *flags, "small.c"], cwd=folder, check=True)
    model = fn.tabular.load(folder / "small.safetensors")
    found = fn.quantize(model.network(), model.rows(X)).predict_classes(model.rows(X))
    assert np.mean(np.asarray(found) == made.predict(X)) > 0.95


def test_what_cannot_be_exported(tmp_path, capsys):
    done = fastnet(capsys, "export", tmp_path / "none", "--to", "onnx")
    assert done.code == FAILED and "No such file or directory" in done.err
    done = fastnet(capsys, "export", tmp_path / "none", "--to", "xml")
    assert done.code == MISUSED and "invalid choice: 'xml'" in done.err
    fn.Sequential(fn.Linear(3, 2)).save(tmp_path / "net")
    out = tmp_path / "no" / "net.onnx"
    done = fastnet(capsys, "export", tmp_path / "net", "--to", "onnx", "--out", out)
    assert done.code == FAILED and "whose folder is not there" in done.err
    assert [path.name for path in Path(tmp_path).iterdir()] == ["net"]


@pytest.mark.parametrize(
    ("form", "given", "message"),
    [
        ("c", ("--data", "x.csv"), "--data is 'x.csv', which --to int8 alone reads"),
        ("onnx", ("--data", "x.csv"), "--data is 'x.csv', which --to int8 alone reads"),
        ("onnx", ("--name", "net"), "--name is 'net', which begins names in C; --to onnx has none"),
        ("c", ("--separator", ";"), "--separator is ';', which is of the file of --data"),
        ("c", ("--decimal", ","), "--decimal is ',', which is of the file of --data"),
        ("onnx", ("--missing", "-9"), "--missing is ['-9'], which is of the file of --data"),
        ("onnx", ("--encoding", "utf-8"), "--encoding is 'utf-8', which is of the file of --data"),
    ],
)
def test_arguments_of_other_forms_are_refused(form, given, message, tmp_path, capsys):
    fn.Sequential(fn.Linear(3, 2)).save(tmp_path / "net")
    done = fastnet(capsys, "export", tmp_path / "net", "--to", form, *given)
    assert done.code == FAILED and message in done.err, done.err
    assert [path.name for path in Path(tmp_path).iterdir()] == ["net"]


@pytest.mark.parametrize(("form", "name"), [("onnx", "net.onnx"), ("c", "net.c")])
def test_an_export_does_not_replace_its_model(form, name, tmp_path, capsys):
    fn.Sequential(fn.Linear(3, 2)).save(tmp_path / name)
    before = (tmp_path / name).read_bytes()
    done = fastnet(capsys, "export", tmp_path / name, "--to", form)
    assert done.code == FAILED and "which the command reads and would replace" in done.err
    assert (tmp_path / name).read_bytes() == before


def test_an_export_has_no_threads(tmp_path, capsys):
    done = fastnet(capsys, "export", tmp_path / "net", "--to", "c", "--threads", 1)
    assert done.code == MISUSED and "unrecognized arguments: --threads 1" in done.err


def test_names_in_c_begin_as_told(tmp_path, capsys):
    fn.Sequential(fn.Linear(3, 2)).save(tmp_path / "net")
    for given, name in (((), "net"), (("--name", "wine"), "wine")):
        out = tmp_path / f"{name}.c"
        done = fastnet(capsys, "export", tmp_path / "net", "--to", "c", "--out", out, *given)
        assert done.code == DONE and f"void {name}_predict(" in out.read_text("utf-8"), done.err


def test_a_benchmark_has_a_row_for_each_net(monkeypatch, capsys):
    monkeypatch.setattr(bench, "SECONDS", 0.0)
    monkeypatch.setattr(bench, "REPEATS", 1)
    monkeypatch.setattr(bench, "CASES", bench.CASES[:2])
    done = fastnet(capsys, "bench", "--backend", "reference")
    head, *rows = done.out.splitlines()
    assert done.code == DONE and head.startswith("backend reference, ")
    assert rows[0].split("  ")[0] == "net" and len(rows) == 3
    for row, case in zip(rows[1:], bench.CASES, strict=True):
        numbers = row.removeprefix(case.name).split()
        assert numbers[0] == str(case.batch) and all(float(text) > 0 for text in numbers[1:])


def test_a_benchmark_of_a_backend_that_is_missing(monkeypatch, capsys):
    if fn.backends()["cuda"].available:
        pytest.skip("cuda is available")
    done = fastnet(capsys, "bench", "--backend", "cuda")
    assert done.code == FAILED
    assert re.match(r"fastnet: error: backend 'cuda' is not available: ", done.err)


def test_the_flops_of_a_step():
    case = bench.Case("", (2, 3, 4), True, 8, 8)
    assert case.flops() == 2 * 8 * (6 + 12) + 2 * 8 * (6 + 12) + 2 * 8 * 12  # forward, dw, dx
