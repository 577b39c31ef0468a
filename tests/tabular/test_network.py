"""The network of a table model: the same predictions from numbers and codes alone."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("scipy")
pytest.importorskip("pandas")

import pandas as pd
from test_table_model import frame, options

import fastnet as fn
from fastnet.errors import DataError, UsageError
from fastnet.sklearn import TabularClassifier, TabularRegressor


def rows_of(model, X):
    """What the network gets for rows of a table."""
    columns = []
    for one in model.inputs:
        if one.is_gap:
            columns.append(X[one.name.removesuffix(" is missing")].isna().to_numpy(float))
        elif one.categories is None:
            columns.append(
                X[one.name].fillna(0.0 if one.fill is None else one.fill).to_numpy(float)
            )
        else:
            codes = {category: i for i, category in enumerate(one.categories)}
            columns.append(np.array([codes.get(value, -1) for value in X[one.name]], float))
    return np.stack(columns, 1)


@pytest.mark.parametrize("preset", ["small", "full", "tabm"])
@pytest.mark.parametrize("left", [[], ["number", "empty", "count"], ["letter", "flag", "code"]])
def test_a_network_predicts_what_the_model_does(preset, left, tmp_path):
    X = frame(150).drop(columns=left)
    new = frame(60).drop(columns=left)
    if "letter" in new:
        new.loc[3, "letter"] = "unseen"
    told = pd.factorize(X.iloc[:, -1])[0] % 5  # what the nets can learn
    y = np.array(["a", "b", "c"])[told % 3]
    classifier = TabularClassifier(**options(preset, epochs=20)).fit(X, y)
    classifier.save(tmp_path / "table")
    for model in (classifier.table_model(), fn.tabular.load(tmp_path / "table")):
        net = model.network()
        np.testing.assert_array_equal(model.rows(new), rows_of(model, new))
        p = net.predict_proba(rows_of(model, new))
        mixed = (1 - model.mixed) * p + model.mixed / 3
        np.testing.assert_allclose(mixed, model.predict_proba(new), rtol=2e-4, atol=1e-6)
        assert list(net.feature_names_in_) == [one.name for one in model.inputs]
        assert net.classes_.tolist() == ["a", "b", "c"]
    numbers = TabularRegressor(**options(preset, epochs=20)).fit(X, told * 100.0)
    model = numbers.table_model()
    found = model.network().predict(rows_of(model, new))[:, 0]
    np.testing.assert_allclose(found, model.predict(new), rtol=2e-4, atol=0.1)
    assert np.ptp(found) > 1


def test_inputs_tell_categories_and_gaps():
    X = frame()
    model = TabularClassifier(**options("small")).fit(X, X["flag"]).table_model()
    names = [*X.columns, "number is missing", "empty is missing"]
    assert [one.name for one in model.inputs] == names
    assert model.inputs[1].categories == ("a", "b", "c") and model.inputs[0].categories is None
    assert model.inputs[0].fill == pytest.approx(X["number"].iloc[model.nets[0].train].mean())
    assert model.inputs[5].fill is None and model.inputs[6].is_gap


def test_text_in_place_of_numbers_has_no_rows():
    X = frame()
    model = TabularClassifier(**options("small")).fit(X, X["flag"]).table_model()
    for text in (X.assign(count="many"), X.assign(count=[None, *"b" * 119])):
        for method in (model.rows, model.predict):
            with pytest.raises(
                DataError, match=r"^X holds '\w+' in 'count'; expected numbers, as in"
            ):
                method(text)
    rows = model.rows(X.assign(count=np.full(len(X), None)))
    np.testing.assert_array_equal(rows[:, 5], model.rows(X.assign(count=np.nan))[:, 5])


def test_several_nets_make_no_network():
    X = frame()
    model = TabularClassifier(**options("small"), n_cv=2).fit(X, X["flag"]).table_model()
    with pytest.raises(UsageError, match=r"^this model averages 2 nets; .* n_cv=1 and n_ens=1"):
        model.network()


@pytest.mark.parametrize("preset", ["small", "full", "tabm"])
def test_columns_that_float32_is_too_coarse_for_make_no_network(preset):
    rng = np.random.default_rng(0)
    near, other = rng.uniform(-50, 50, 200), rng.normal(size=200)
    for offset, coarse in ((0.0, False), (-1e5, False), (1e7, True), (-1.7e9, True)):
        X = pd.DataFrame({"letter": ["a", "b"] * 100, "other": other, "when": near + offset})
        X["same"] = 1.7e9
        made = TabularRegressor(**options(preset, epochs=20)).fit(X, near)
        model = made.table_model()
        if coarse:
            with pytest.raises(
                UsageError, match=r"column 'when' varies by about \d+.*; subtract an offset"
            ):
                model.network()
        else:
            found = model.network().predict(model.rows(X))[:, 0]
            np.testing.assert_allclose(found, model.predict(X), atol=0.01 * near.std())


def test_columns_of_few_large_numbers_make_a_network():
    X = pd.DataFrame({"year": [1.7e9] * 90 + [1.8e9] * 10, "b": np.arange(100.0)})
    for preset in ("small", "tabm"):
        model = TabularRegressor(**options(preset)).fit(X, X["year"] / 1e9).table_model()
        found = model.network().predict(model.rows(X))[:, 0]
        np.testing.assert_allclose(found, model.predict(X), rtol=1e-5)
