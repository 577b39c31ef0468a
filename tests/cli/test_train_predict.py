"""Train and predict by the command line, on real tables with the faults that such files have."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from datetime import date
from decimal import Decimal
from pathlib import Path

import child
import numpy as np
import pytest
from command import fastnet

pytest.importorskip("sklearn")
pytest.importorskip("pandas")
pytest.importorskip("matplotlib")

import pandas as pd
from sklearn.datasets import load_diabetes, load_iris, load_wine

import fastnet as fn
from fastnet.cli.main import DONE, FAILED, STOPPED, UNHEARD
from fastnet.errors import shown
from fastnet.files import tensors

pytestmark = pytest.mark.filterwarnings("ignore:::matplotlib")
QUICK = ("--epochs", 4, "--threads", 1)


def iris():
    """Text labels, names with blanks and units, gaps, a column of notes, and one that counts the rows."""
    X, y = load_iris(return_X_y=True, as_frame=True)
    X.insert(0, "", range(1, 151))
    X["species"] = load_iris().target_names[y]
    X["note"] = [f"plant {i}" for i in range(150)]
    X["garden"] = ["north" if i % 2 else "south" for i in range(150)]
    X.loc[::9, "petal width (cm)"] = np.nan
    X.loc[3, "species"] = None
    return X


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_text_labels_gaps_and_names_with_blanks(place, capsys):
    iris().to_csv("iris.csv", index=False)
    done = fastnet(capsys, "train", "iris.csv", "--target", "species", *QUICK)
    assert done.code == DONE, done.err
    assert "1 rows without species are left out\n" in done.err
    assert "left out: column 1 (counts the rows); note (149 different texts)\n" in done.err
    assert "written: iris.safetensors, iris.html\n" in done.err
    assert re.search(r"^data +iris.csv: 119 rows to train on, 30 held back$", done.out, re.M)
    assert re.search(
        r"^target +species, 3 classes: setosa \(39\), versicolor \(40\), v", done.out, re.M
    )
    assert re.search(r"^categories +garden$", done.out, re.M)
    accuracy = float(re.search(r"^accuracy +([\d.]+) on", done.out, re.M)[1])
    assert accuracy > 0.6 and "RealMLP-TD-S, " in done.out
    assert re.search(r"^  petal \w+ \(cm\) +-?0\.\d+ ± 0\.\d+$", done.out, re.M)
    page = Path("iris.html").read_text("utf-8")
    pictures = re.findall(r'<img alt="([^"]+)" src="data:image/png;base64,([^"]+)">', page)
    assert [name.partition(" ")[0] for name, _ in pictures] == [
        "Learning",
        "Confusion",
        "Permutation",
    ]
    assert all(base64.b64decode(text).startswith(b"\x89PNG") for _, text in pictures)
    assert "http" not in page and "<script" not in page and f"{accuracy:.4g} on the rows" in page

    done = fastnet(capsys, "predict", "iris.safetensors", "iris.csv")
    assert done.code == DONE
    assert (
        done.err
        == "fastnet: iris.csv: the model does not know, and ignores, column 1, species, note\n"
    )
    rows = rows_of(done.out)
    assert list(rows[0]) == ["species", "p(setosa)", "p(versicolor)", "p(virginica)"]
    model = fn.tabular.load("iris.safetensors")
    X = pd.read_csv("iris.csv")
    assert [row["species"] for row in rows] == model.predict(X).tolist()
    found = [[float(value) for name, value in row.items() if name != "species"] for row in rows]
    np.testing.assert_array_equal(found, model.predict_proba(X))


def test_semicolons_and_decimal_commas(place, capsys):
    X, y = load_diabetes(return_X_y=True, as_frame=True, scaled=False)
    X["progression of disease"] = y
    X.to_csv(
        "d.csv", sep=";", decimal=",", index=False, encoding="utf-8-sig", lineterminator="\r\n"
    )
    X.drop(columns=X.columns[-1]).to_csv("points.csv", index=False)
    done = fastnet(
        capsys, "train", "d.csv", "--target", "progression of disease", *QUICK, "--epochs", 30
    )
    assert done.code == DONE, done.err
    assert "fastnet: d.csv: fields end at ';', numbers have a ','\n" in done.err
    assert float(re.search(r"^R² +([\d.-]+) on", done.out, re.M)[1]) > 0.2
    assert "Predictions and residuals" in Path("d.html").read_text("utf-8")
    by_comma = fastnet(capsys, "predict", "d.safetensors", "d.csv")
    by_point = fastnet(capsys, "predict", "d.safetensors", "points.csv")
    assert by_comma.out == by_point.out and by_point.err == ""
    found = [float(row["progression of disease"]) for row in rows_of(by_point.out)]
    np.testing.assert_array_equal(found, fn.tabular.load("d.safetensors").predict(X))


@pytest.mark.parametrize("preset", ["full", "tabm"])
def test_packed_files_and_parquet_give_what_csv_gives(preset, place, capsys):
    pytest.importorskip("pyarrow")
    X, y = load_wine(return_X_y=True, as_frame=True)
    X = X.iloc[:, :3].assign(kind=y, old=X["hue"] > 1, region=[f"r{i % 11}" for i in range(len(X))])
    X.to_csv("w.csv", index=False)
    X.to_parquet("w.parquet", index=False)
    Path("w.csv.gz").write_bytes(gzip.compress(Path("w.csv").read_bytes()))
    done = fastnet(
        capsys, "train", "w.parquet", "--target", "kind", "--preset", preset, *QUICK, "--no-report"
    )
    assert done.code == DONE, done.err
    assert not Path("w.html").exists()
    expected = fastnet(capsys, "predict", "w.safetensors", "w.parquet").out
    for name in ("w.csv", "w.csv.gz"):  # True and False are texts there
        assert fastnet(capsys, "predict", "w.safetensors", name).out == expected
    assert [row["kind"] in "012" for row in rows_of(expected)] == [True] * 178


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    place = tmp_path_factory.mktemp("model")
    iris().to_csv(place / "iris.csv", index=False)
    made = child.environment()
    command = [sys.executable, "-P", "-m", "fastnet", "train", "iris.csv", "--target", "species"]
    command += ["--missing", "-999", "--no-report", *map(str, QUICK)]
    done = subprocess.run(command, cwd=place, env=made, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return place / "iris.safetensors"


def test_missing_columns_are_named(model, place, capsys):
    iris().drop(columns=["garden", "petal width (cm)"]).to_csv("x.csv", index=False)
    done = fastnet(capsys, "predict", model, "x.csv")
    assert (done.code, done.out) == (FAILED, "")
    assert (
        "error: x.csv lacks 'petal width (cm)', 'garden', which the model needs; it has" in done.err
    )


def test_a_fault_is_named_by_file_column_and_row(model, place, capsys):
    X = iris().astype({"petal width (cm)": object})
    X.loc[6, "petal width (cm)"] = "2.o"
    X.to_csv("x.csv", index=False)
    done = fastnet(capsys, "predict", model, "x.csv")
    assert (done.code, done.out) == (FAILED, "")
    assert (
        "error: x.csv: column 'petal width (cm)' has '2.o' in row 7, expected a number" in done.err
    )
    done = fastnet(capsys, "train", "x.csv", "--target", "species")
    assert done.code == FAILED and not Path("x.safetensors").exists()
    assert (
        "x.csv: column 'petal width (cm)' has '2.o' in row 7, where 131 of its 132 val" in done.err
    )
    assert "--missing TEXT" in done.err and "--category 'petal width (cm)'" in done.err
    asked = fastnet(capsys, "predict", model, "x.csv", "--missing", "2.o")
    assert asked.code == DONE and len(rows_of(asked.out)) == 150


def test_texts_for_missing_values_go_with_the_model(model, place, capsys):
    X = iris()
    X.to_csv("x.csv", index=False)
    expected = fastnet(capsys, "predict", model, "x.csv").out
    for text in ("-999", "NA", "?", " null "):
        X.to_csv("x.csv", index=False, na_rep=text)
        assert fastnet(capsys, "predict", model, "x.csv").out == expected, text


def test_an_empty_line_of_one_column_is_a_row(place, capsys):
    values = np.random.default_rng(0).normal(size=40)
    pd.DataFrame({"x": values, "y": 2 * values}).to_csv("t.csv", index=False)
    made = fastnet(capsys, "train", "t.csv", "--target", "y", "--no-report", *QUICK)
    assert made.code == DONE, made.err
    Path("x.csv").write_text("\nx\n1\n\n2\n")
    Path("na.csv").write_text("x\n1\nNA\n2\n")
    found = fastnet(capsys, "predict", "t.safetensors", "x.csv")
    assert found.code == DONE and found.out.count("\n") == 4, found
    assert found.out == fastnet(capsys, "predict", "t.safetensors", "na.csv").out


def test_unseen_categories_are_named(model, place, capsys):
    X = iris()
    X.loc[4:6, "garden"] = "west"
    X.to_csv("x.csv", index=False)
    done = fastnet(capsys, "predict", model, "x.csv")
    assert done.code == DONE
    assert (
        "column 'garden' has values that the training has not seen, in 3 rows: 'west'\n" in done.err
    )


TRAIN = ("train", "x.csv", "--target", "a")
WRONG = {
    b"": "x.csv is empty; expected a line of names",
    b"a,b\n": "x.csv has no rows",
    b"a,b\n1,2\n": r"x.csv: the target 'a' has 1 values, 1 different ones",
    b"a,b\n1,2\n2,3\n": "x.csv has 2 rows with a target; expected at least 10",
    b"a,b\n1,2\n1,2,3\n": r"x.csv: Expected 2 fields in line 3, saw 3; fields are separated by ','",
    b"a,b,a\n1,2,3\n": "x.csv has 'a' more than once in its first line",
    b"b,c\n1,2\n": "x.csv has no column 'a', which --target names; it has 'b', 'c'",
    b"a,b\n1,\xe4\n": "x.csv is not in the encoding utf-8: line 2 has the byte 0xe4; name another one",
    b"a,b\n1,4\n2,4\n"
    * 20: "x.csv: column|x.csv has no inputs beside the target; left out: b .a single",
}


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_files_that_cannot_be_trained_on(number, place, capsys):
    content, message = list(WRONG.items())[number]
    if number == len(WRONG) - 1:
        content = b"a,b\n" + b"1,4\n2,4\n" * 20
    Path("x.csv").write_bytes(content)
    done = fastnet(capsys, *TRAIN)
    assert done.code == FAILED and done.out == ""
    assert re.search(message, done.err), done.err
    assert done.err.count("\n") == 1 and os.listdir() == ["x.csv"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("predict", "none", "x.csv"), "error: none: No such file or directory"),
        (("predict", "x.csv", "x.csv"), "error: x.csv is no safetensors file"),
        (("train", "none.csv", "--target", "a"), "error: none.csv: No such file or directory"),
        (("train", "none.parquet", "--target", "a"), "error: none.parquet: No such file or dir"),
        ((*TRAIN, "--out", "no/x"), "error: --out is 'no/x', whose folder is not there"),
        ((*TRAIN, "--report", "x.safetensors"), "--report and --out are both 'x.safetensors'"),
        ((*TRAIN, "--category", "z"), "x.csv has no column 'z', which --category names"),
        ((*TRAIN, "--encoding", "klingon"), "--encoding is 'klingon', which Python does not know"),
        ((*TRAIN, "--epochs", "0"), "argument --epochs: '0'; expected an integer ≥ 1"),
        ((*TRAIN, "--test", "1"), r"argument --test: '1'; expected a number in [0, 1)"),
        ((*TRAIN, "--separator", "ab"), "argument --separator: 'ab'; expected one character"),
        ((*TRAIN, "--separator", "\n"), r"argument --separator: '\n'; expected one character"),
        ((*TRAIN, "--separator", "\r"), r"argument --separator: '\r'; expected one character"),
        ((*TRAIN, "--separator", "é"), "argument --separator: 'é'; expected one character"),
        ((*TRAIN, "--separator", '"'), "argument --separator: '\"'; expected one character"),
        (
            (*TRAIN, "--encoding", "undefined"),
            "--encoding is 'undefined', by which Python cannot read x.csv: ",
        ),
        (
            (*TRAIN, "--encoding", "punycode"),
            "--encoding is 'punycode', by which Python cannot read x.csv: ",
        ),
        ((*TRAIN, "--threads", "65"), r"argument --threads: '65'; expected an integer in [1, 64]"),
    ],
    ids=lambda value: "-".join(value[-2:]) if isinstance(value, tuple) else "",
)
def test_arguments_that_are_wrong(arguments, message, place, capsys):
    Path("x.csv").write_text("a,b\n1,2\n2,3\n")
    done = fastnet(capsys, *arguments)
    assert done.code in (FAILED, 2) and done.out == "" and "Traceback" not in done.err
    assert message in done.err, done.err


@pytest.mark.parametrize("option", ["--out", "--report"])
def test_a_file_that_is_read_is_not_replaced(option, place, capsys):
    iris().to_csv("x.csv", index=False)
    before = Path("x.csv").read_bytes()
    os.link("x.csv", "y.csv")
    for name in ("x.csv", "./x.csv", "y.csv"):
        done = fastnet(capsys, "train", "x.csv", "--target", "species", *QUICK, option, name)
        assert done.code == FAILED and f"{option} is " in done.err, done.err
        assert "which the command reads and would replace" in done.err
    assert Path("x.csv").read_bytes() == before and len(os.listdir()) == 2


def test_whole_numbers_are_classes_where_they_are_few_unless_told(place, capsys):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"a": rng.integers(3, 9, 60), "b": rng.normal(size=60)})
    table.to_csv("x.csv", index=False)
    done = fastnet(capsys, *TRAIN, *QUICK, "--no-report")
    assert "a, 6 classes: 3 (" in done.out
    done = fastnet(capsys, *TRAIN, *QUICK, "--no-report", "--task", "regression", "--test", "0")
    assert re.search(r"^target +a, numbers$", done.out, re.M) and "RMSE" not in done.out
    assert fn.tabular.load("x.safetensors").task == "regression"


def test_a_seed_and_settings_give_the_same_model(place, capsys):
    iris().to_csv("iris.csv", index=False)
    files = []
    for seed in (1, 1, 2):
        fastnet(
            capsys,
            "train",
            "iris.csv",
            "--target",
            "species",
            *QUICK,
            "--seed",
            seed,
            "--no-report",
        )
        found = tensors.read("iris.safetensors")  # safetensors writes metadata in any order
        files.append(tensors.digest(json.dumps(found.description), found.tensors))
    assert files[0] == files[1] != files[2]


def test_the_page_shows_names_as_text(place, capsys):
    table = iris().rename(columns={"garden": "<b>&"})
    table.to_csv("x.csv", index=False)
    assert fastnet(capsys, "train", "x.csv", "--target", "species", *QUICK).code == DONE
    page = Path("x.html").read_text("utf-8")
    assert "&lt;b&gt;&amp;" in page and "<b>" not in page


def test_ctrl_c_leaves_no_file(place, heeding_ctrl_c):
    rng = np.random.default_rng(0)
    pd.DataFrame(rng.normal(size=(4000, 4)), columns=list("abcd")).to_csv("x.csv", index=False)
    command = [sys.executable, "-P", "-m", "fastnet", *TRAIN, "--preset", "full"]
    environment = child.environment(PYTHONUNBUFFERED="1")
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr.readline() == "fastnet: training RealMLP-TD on 3,200 rows\n"
        time.sleep(0.5)
        timer = threading.Timer(5, process.send_signal, [signal.SIGINT])
        timer.start()  # Python drops a Ctrl-C that comes where it frees garbage: another one follows
        process.send_signal(signal.SIGINT)
        err = process.communicate(timeout=60)[1]
        timer.cancel()
    assert process.returncode == STOPPED and err.endswith("fastnet: stopped by Ctrl-C\n"), err
    assert os.listdir() == ["x.csv"]


@pytest.mark.parametrize(
    "place_of",
    ["sklearn.inspection.permutation_importance", "fastnet.plot.confusion_matrix"],
)
def test_ctrl_c_during_the_report_leaves_no_file(place_of, place, capsys, monkeypatch):
    iris().to_csv("x.csv", index=False)
    monkeypatch.setattr(place_of, lambda *_, **__: signal.raise_signal(signal.SIGINT))
    done = fastnet(capsys, "train", "x.csv", "--target", "species", *QUICK)
    assert (done.code, done.out) == (STOPPED, "") and "stopped by Ctrl-C" in done.err
    assert os.listdir() == ["x.csv"]


@pytest.mark.parametrize("kind", [date, Decimal, list])
def test_categories_that_no_file_keeps_are_refused_before_the_training(kind, place, capsys):
    pytest.importorskip("pyarrow")
    some = {date: date(2024, 1, 1), Decimal: Decimal("0.25"), list: [1, 2]}[kind]
    values = [some, *[None] * 10, *[some] * 139]
    iris().assign(**{"a day": values}).to_parquet("x.parquet", index=False)
    command = ("train", "x.parquet", "--target", "species", *QUICK, "--no-report")
    done = fastnet(capsys, *command)
    assert done.code == FAILED and "training" not in done.err, done.err
    told = "an array of shape (2,) and dtype int64" if kind is list else shown(some)
    assert f"x.parquet: column 'a day' has {told} in row 1, which no " in done.err
    assert done.err.endswith("give it as numbers or text, or write --drop 'a day'\n")
    done = fastnet(capsys, *command, "--drop", "a day")
    assert done.code == DONE, done.err


@pytest.mark.parametrize("task", [[], ["--task", "regression"]])
def test_a_target_of_lists_is_refused(task, place, capsys):
    pytest.importorskip("pyarrow")
    pd.DataFrame({"a": range(20), "b": [[1, 2]] * 20}).to_parquet("x.parquet", index=False)
    done = fastnet(capsys, "train", "x.parquet", "--target", "b", *task, *QUICK, "--no-report")
    assert (done.code, done.out) == (FAILED, "") and os.listdir() == ["x.parquet"]
    assert done.err.endswith(
        "x.parquet: column 'b' has an array of shape (2,) and dtype int64 in row 1, which is no target; "
        "expected a number or a text in each row: name another --target\n"
    )


def test_a_reader_that_has_enough_ends_it_quietly(model, place):
    pd.concat([iris()] * 40).to_csv("x.csv", index=False)
    command = [sys.executable, "-P", "-m", "fastnet", "predict", model, "x.csv"]
    with subprocess.Popen(
        command, env=child.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline().startswith("species,p(setosa)")
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()
        assert process.wait(60) == UNHEARD


def test_an_output_that_lacks_a_letter_has_it_escaped(place):
    X = iris().replace({"species": {"setosa": "ü"}})
    X.to_csv("x.csv", index=False)
    command = [sys.executable, "-P", "-m", "fastnet"]
    train = [*command, "train", "x.csv", "--target", "species", "--no-report", *map(str, QUICK)]
    environment = child.environment(PYTHONIOENCODING="ascii")
    subprocess.run(train, env=environment, check=True, capture_output=True)
    predict = [*command, "predict", "x.safetensors", "x.csv"]
    done = subprocess.run(predict, env=environment, capture_output=True, text=True)
    assert done.returncode == DONE and "Traceback" not in done.stderr, done.stderr
    rows = rows_of(done.stdout)
    assert list(rows[0])[1:] == ["p(versicolor)", "p(virginica)", r"p(\xfc)"]
    labels = fn.tabular.load("x.safetensors").predict(pd.read_csv("x.csv"))
    assert [row["species"] for row in rows] == [text.replace("ü", r"\xfc") for text in labels]


def test_predicting_needs_no_scikit_learn_and_no_matplotlib(model, place):
    iris().to_csv("x.csv", index=False)
    code = (
        "import sys, json; sys.modules.update(sklearn=None, scipy=None, matplotlib=None)\n"
        "from fastnet.cli.main import main\n"
        "code = main(['predict', *sys.argv[1:]])\nprint(json.dumps(code))"
    )
    assert child.run(code, model, "x.csv") == DONE
