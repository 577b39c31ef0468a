"""Table models: the estimators' predictions without scikit-learn, from a file that runs no code."""

from __future__ import annotations

import json

import child
import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("scipy")
pytest.importorskip("pandas")

import pandas as pd
from sklearn.exceptions import NotFittedError

import fastnet as fn
from fastnet.errors import DataError, FileError, ShapeError, UsageError
from fastnet.files import tensors
from fastnet.sklearn import TabularClassifier, TabularRegressor

PRESETS = ["small", "full", "tabm"]


def options(preset, **more):
    net = {"width": 16, "k": 3} if preset == "tabm" else {"hidden": (16, 16)}
    return {"preset": preset, "random_state": 0, "epochs": 3, "recipe_params": net, **more}


def frame(rows=120):
    rng = np.random.default_rng(1)
    X = pd.DataFrame(
        {
            "number": rng.normal(size=rows) * 1e6,
            "letter": rng.choice(list("abc"), rows),
            "flag": rng.choice([True, False], rows),
            "code": rng.integers(0, 15, rows).astype(str),
            "empty": np.full(rows, np.nan),
            "count": rng.integers(0, 5, rows),
        }
    )
    X.loc[::7, "number"] = np.nan
    X.loc[::13, "letter"] = None
    return X


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("more", [{}, {"n_cv": 2, "n_ens": 2}])
def test_a_file_predicts_to_the_bits_of_the_estimator(preset, more, tmp_path):
    X = frame()
    y = np.where(X["number"] > 0, "yes", "no")
    made = TabularClassifier(**options(preset, **more), categorical_features=["count"]).fit(X, y)
    made.save(tmp_path / "net.safetensors")
    found = fn.tabular.load(tmp_path / "net.safetensors")
    new = frame(200)
    new.loc[5, "letter"] = "unseen"
    np.testing.assert_array_equal(found.predict_proba(new), made.predict_proba(new))
    np.testing.assert_array_equal(found.predict(new), made.predict(new))
    assert found.classes.tolist() == ["no", "yes"] and found.names == list(X.columns)
    numbers = TabularRegressor(**options(preset, **more)).fit(X, X["count"])
    numbers.save(tmp_path / "net.safetensors")
    found = fn.tabular.load(tmp_path / "net.safetensors")
    np.testing.assert_array_equal(found.predict(new), numbers.predict(new))
    assert found.predict(new).max() <= 4


def test_targets_of_several_columns_without_a_clamp(tmp_path):
    X = np.random.default_rng(0).normal(size=(60, 3))
    made = TabularRegressor(**options("small", clamp=False)).fit(X, X[:, :2] * 100)
    made.save(tmp_path / "net.safetensors")
    found = fn.tabular.load(tmp_path / "net.safetensors")
    np.testing.assert_array_equal(found.predict(X * 9), made.predict(X * 9))
    assert found.predict(X).shape == (60, 2) and found.bounds is None


PREDICT = """
import json, sys
import numpy as np
import fastnet as fn

found = fn.tabular.load(sys.argv[1]).predict_proba(np.load(sys.argv[2])).tolist()
print(json.dumps([found, sorted({name.split(".")[0] for name in sys.modules})]))
"""


def test_predicting_in_a_new_process_loads_neither_scikit_learn_nor_scipy(tmp_path):
    X = np.random.default_rng(0).normal(size=(80, 4))
    made = TabularClassifier(**options("small")).fit(X, X[:, 0] > 0)
    made.save(tmp_path / "net.safetensors")
    np.save(tmp_path / "X.npy", X)
    found, loaded = child.run(PREDICT, tmp_path / "net.safetensors", tmp_path / "X.npy")
    assert found == made.predict_proba(X).tolist()
    assert {"sklearn", "scipy", "pandas", "tqdm"} & set(loaded) == set()


@pytest.fixture(scope="module")
def model():
    X = frame()
    return TabularClassifier(**options("small")).fit(X, X["count"] > 2).table_model("many")


def test_columns_are_found_by_name(model):
    X = frame()
    expected = model.predict_proba(X)
    other = X.assign(more=1)[["more", *reversed(X.columns)]]
    np.testing.assert_array_equal(model.predict_proba(other), expected)
    with pytest.raises(DataError, match=r"^X lacks 'flag', 'count'; expected"):
        model.predict(X.drop(columns=["count", "flag"]))
    with pytest.raises(DataError, match=r"^X has 'flag' more than once"):
        model.predict(pd.concat([other, X[["flag"]]], axis=1))
    with pytest.raises(ShapeError, match=r"^X has 2 columns; expected the 6 of the fit: 'number'"):
        model.predict(np.zeros((3, 2)))
    assert model.target == "many" and repr(model) == (
        "TableModel(classification, 'small', 6 columns, 1 nets)"
    )


def test_what_is_refused(model, tmp_path):
    with pytest.raises(NotFittedError):
        TabularClassifier().save(tmp_path / "net.safetensors")
    X = frame()
    numbers = TabularRegressor(**options("small")).fit(X, X["count"]).table_model()
    with pytest.raises(UsageError, match=r"^predict_proba: this model is of a regression"):
        numbers.predict_proba(X)
    odd = X.assign(letter=[b"a", b"b"] * 60)
    named = TabularClassifier(**options("small")).fit(odd, X["flag"])
    with pytest.raises(UsageError, match=r"^a category of 'letter' is b'a', which no file keeps"):
        named.save(tmp_path / "net.safetensors")
    odd = X.assign(letter=pd.Series(["a", "\ud800"] * 60, dtype=object))
    named = TabularClassifier(**options("small")).fit(odd, X["flag"])
    with pytest.raises(UsageError, match=r"with a lone surrogate"):
        named.save(tmp_path / "net.safetensors")
    assert not (tmp_path / "net.safetensors").exists()
    fn.Sequential(fn.Linear(2, 1)).save(tmp_path / "net.safetensors")
    with pytest.raises(FileError, match="holds a model; expected a table"):
        fn.tabular.load(tmp_path / "net.safetensors")


FAULTS = {
    "task": "ranking",
    "preset": None,
    "columns": {"embed": True},
    "nets": [],
    "classes": ["a", "b", "c"],
    "bounds": [[0.0, 1.0], [2.0]],
    "temperature": "warm",
}


@pytest.mark.parametrize("name", [*FAULTS, "missing", "more"])
def test_a_file_with_another_description_is_refused(name, model, tmp_path):
    path = tmp_path / "net.safetensors"
    model.save(path)
    contents = tensors.read(path)
    description = json.loads(json.dumps(contents.description))
    if name == "missing":
        del description["table"]["flat"]
    elif name == "more":
        description["table"]["more"] = 1
    else:
        description["table"][name] = FAULTS[name]
    tensors.write(path, description, contents.tensors)
    with pytest.raises(FileError, match="describes no model that can be made"):
        fn.tabular.load(path)


def test_arrays_of_other_shapes_or_missing_ones_are_refused(model, tmp_path):
    path = tmp_path / "net.safetensors"
    model.save(path)
    contents = tensors.read(path)
    for name, array in contents.tensors.items():
        for other in ({name: np.zeros((3, 3), array.dtype)}, {}):
            rest = {n: a for n, a in contents.tensors.items() if n != name}
            tensors.write(path, contents.description, {**rest, **other})
            with pytest.raises(FileError, match="describes no model that can be made"):
                fn.tabular.load(path)
