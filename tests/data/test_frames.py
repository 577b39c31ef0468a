"""Frames of pandas, polars and pyarrow wherever data go in, and the names of their columns."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest
from refusals import refused

import fastnet as fn
from fastnet.data.frames import names_of, only_column
from fastnet.errors import DataError, FileError
from fastnet.files import tensors

pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")
pa = pytest.importorskip("pyarrow")

RNG = np.random.default_rng(0)
NAMES = ("age", "height", "weight")
X = RNG.normal(size=(40, 3))
Y = X @ [1.0, -2.0, 0.5]
W = RNG.uniform(0.5, 2.0, 40)
FRAMES = {"pandas": pd.DataFrame, "polars": pl.DataFrame, "pyarrow": pa.table}
SERIES = {"pandas": pd.Series, "polars": pl.Series, "pyarrow": pa.array}
library = pytest.mark.parametrize("kind", FRAMES)


def frame(kind, names=NAMES, values=X):
    return FRAMES[kind]({name: values[:, i] for i, name in enumerate(names)})


def by_names(kind, *names):
    """The frame with some of the columns, or others, of any values."""
    return frame(kind, names, RNG.normal(size=(40, len(names))))


def trainer(backend="reference", loss=None, width=1, **options):
    layers = fn.Linear(3, 4), fn.Tanh(), fn.Linear(4, width)
    model = fn.Sequential(*layers, dtype="float64", backend=backend, seed=1)
    return fn.Trainer(model, loss or fn.MSELoss(), fn.SGD(0.05), seed=2, **options)


def bits(made):
    return [value.tobytes() for value in made.model.state_dict().values()]


CALLS = {
    "fit": lambda t, X, y, w: t.fit(
        X, y, 2, 8, (X, y, w), sample_weight=w, verbose=0, restore_best=True
    ),
    "fit with a split": lambda t, X, y, w: t.fit(
        X, y, 2, 8, sample_weight=w, verbose=0, validation_split=0.25
    ),
    "train_on_batch": lambda t, X, y, w: t.train_on_batch(X, y, sample_weight=w),
    "fit_full_batch": lambda t, X, y, w: t.fit_full_batch(
        X, y, "gradient-descent", max_iter=3, sample_weight=w
    ),
    "find_lr": lambda t, X, y, w: t.find_lr(X, y, 8, steps=12),
    "fit_many": lambda t, X, y, w: fn.fit_many(
        [t], X, y, sample_weight=w, validation=(X, y, w), rows=[np.arange(30)]
    ),
}


@library
@pytest.mark.parametrize("call", CALLS)
def test_a_frame_trains_to_the_bits_of_its_values(kind, call, backend):
    one, other = trainer(backend), trainer(backend)
    CALLS[call](one, X, Y, W)
    CALLS[call](other, frame(kind), SERIES[kind](Y), SERIES[kind](W))
    assert bits(one) == bits(other) and (call == "find_lr" or bits(one) != bits(trainer(backend)))
    assert [r["loss"] for r in one.history.records] == [r["loss"] for r in other.history.records]
    given = other.evaluate(frame(kind), SERIES[kind](Y), sample_weight=SERIES[kind](W))
    assert given == one.evaluate(X, Y, sample_weight=W)
    assert other.model.predict(frame(kind)).tobytes() == one.model.predict(X).tobytes()


@library
def test_targets_may_be_a_frame_of_one_column(kind, backend):
    y = frame(kind, ["target"], Y[:, None])
    one, other = trainer(backend), trainer(backend)
    one.fit(X, Y, verbose=0)
    other.fit(X, y, verbose=0)
    assert bits(one) == bits(other)


@library
@pytest.mark.parametrize("call", CALLS)
def test_the_first_training_keeps_the_names(kind, call):
    made = trainer()
    assert made.model.feature_names_in_ is None
    CALLS[call](made, frame(kind), Y, W)
    if call == "find_lr":  # which undoes all
        assert made.model.feature_names_in_ is None
        return
    assert made.model.feature_names_in_.tolist() == list(NAMES)
    with pytest.raises(DataError, match="columns of X are in another order"):
        CALLS[call](made, frame(kind, NAMES[::-1]), Y, W)


USES = {
    "X": lambda t, f: t.evaluate(f, Y),
    "x": lambda t, f: t.model.predict(f),
    "x of predict with a batch size": lambda t, f: t.model.predict(f, 7),
    "x of forward": lambda t, f: t.model.forward(f),
    "x of value_and_grad": lambda t, f: t.model.value_and_grad(fn.MSELoss(), f, Y),
    "X of fit": lambda t, f: t.fit(f, Y, verbose=0),
    "X of fit_many": lambda t, f: fn.fit_many([t], f, Y),
    "validation X": lambda t, f: t.fit(X, Y, validation_data=(f, Y), verbose=0),
    "validation X of fit_many": lambda t, f: fn.fit_many([t], X, Y, validation=(f, Y)),
    "X of train_on_batch": lambda t, f: t.train_on_batch(f, Y),
    "X of find_lr": lambda t, f: t.find_lr(f, Y, steps=3),
    "X of fit_full_batch": lambda t, f: t.fit_full_batch(f, Y, "gradient-descent"),
}


@library
@pytest.mark.parametrize("use", USES)
def test_other_columns_are_named_and_change_nothing(kind, use):
    made = trainer()
    made.fit(frame(kind), Y, verbose=0)
    before, name = bits(made), use.partition(" of ")[0]
    for names, message in {
        ("height", "age", "weight"): "are in another order than in the fit: column 0 is 'height', "
        "expected 'age'; select them by name",
        ("age", "height", "wait"): "are not those of the fit: it lacks 'weight' and has 'wait' "
        "besides; expected 'age', 'height', 'weight'",
        ("age", "weight"): "are not those of the fit: it lacks 'height'; expected",
        (*NAMES, "more"): "are not those of the fit: it has 'more' besides; expected",
    }.items():
        refused(
            lambda n=names: USES[use](made, by_names(kind, *n)),
            DataError,
            f"^the columns of {name} {message}",
        )
    assert bits(made) == before and made.epoch == 1
    USES[use](made, frame("polars"))  # another library, the same names
    USES[use](made, X)


def test_validation_data_have_the_names_of_the_first_fit():
    made = trainer()
    given = {"validation_data": (by_names("pandas", "a", "b", "c"), Y), "verbose": 0}
    refused(
        lambda: made.fit(frame("polars"), Y, **given), DataError, "^the columns of validation X"
    )
    assert made.model.feature_names_in_ is None and made.epoch == 0
    made.fit(X, Y, **given)  # arrays have no names


@library
def test_after_a_fit_on_arrays_all_names_are_good(kind):
    made = trainer()
    made.fit(X, Y, verbose=0)
    for names in (NAMES, NAMES[::-1]):
        for _ in range(2):
            made.fit(frame(kind, names), Y, verbose=0)
            made.evaluate(frame(kind, names), Y)
    assert made.model.feature_names_in_ is None
    made.reset()
    made.fit(frame(kind), Y, verbose=0)
    assert made.model.feature_names_in_ is not None


def test_names_that_are_no_strings_are_none():
    numbered = pd.DataFrame(X)
    mixed = pd.DataFrame(X, columns=["a", 1, "b"])
    levels = pd.DataFrame(X, columns=pd.MultiIndex.from_tuples([("a", "b")] * 3))
    for given in (numbered, mixed, levels, X, X.tolist(), pd.Series(Y), pl.DataFrame(X).lazy()):
        assert names_of(given) is None
    made = trainer()
    made.fit(numbered, Y, verbose=0)
    assert made.model.feature_names_in_ is None
    made.model.predict(frame("pandas"))
    made = trainer()
    made.fit(frame("pandas"), Y, verbose=0)
    assert made.model.predict(numbered).tobytes() == made.model.predict(X).tobytes()


@library
def test_only_the_column_of_one_is_taken_out(kind):
    assert np.asarray(only_column(frame(kind, ["t"], X[:, :1]))).tolist() == X[:, 0].tolist()
    for given in (frame(kind), X, [1, 2]):
        assert only_column(given) is given


WORDS = ["ant", "bee", "cat"]
CODES = np.argmax(X, axis=1)
WORDED = np.array(WORDS)[CODES]
LABELS = {  # as libraries keep them, with the labels themselves
    "pandas str": (pd.Series(WORDED), WORDS),
    "pandas object": (pd.Series(WORDED.astype(object), dtype=object), WORDS),
    "pandas string": (pd.Series(WORDED, dtype="string"), WORDS),
    "pandas pyarrow": (pd.Series(WORDED, dtype=pd.ArrowDtype(pa.string())), WORDS),
    "pandas category": (pd.Series(WORDED, dtype="category"), WORDS),
    "pandas other order": (pd.Series(pd.Categorical(WORDED, WORDS[::-1])), WORDS),
    "pandas category of integers": (pd.Series(CODES * 5, dtype="category"), [0, 5, 10]),
    "pandas Int64": (pd.Series(CODES * 5, dtype="Int64"), [0, 5, 10]),
    "pandas int8": (pd.Series(CODES - 1, dtype="int8"), [-1, 0, 1]),
    "pandas other index": (pd.Series(WORDED, index=np.arange(40)[::-1]), WORDS),
    "pandas Index": (pd.Index(WORDED), WORDS),
    "pandas Categorical": (pd.Categorical(WORDED), WORDS),
    "polars String": (pl.Series(WORDED), WORDS),
    "polars Categorical": (pl.Series(WORDED.tolist(), dtype=pl.Categorical), WORDS),
    "polars Enum": (pl.Series(WORDED.tolist(), dtype=pl.Enum(WORDS)), WORDS),
    "polars Int16": (pl.Series(CODES * 5, dtype=pl.Int16), [0, 5, 10]),
    "pyarrow string": (pa.array(WORDED.tolist()), WORDS),
    "pyarrow large_string": (pa.array(WORDED.tolist(), pa.large_string()), WORDS),
    "pyarrow dictionary": (pa.array(WORDED.tolist()).dictionary_encode(), WORDS),
    "pyarrow chunks": (pa.chunked_array([WORDED[:9].tolist(), WORDED[9:].tolist()]), WORDS),
    "pyarrow int8": (pa.array((CODES * 5).tolist(), pa.int8()), [0, 5, 10]),
    "frame of pandas": (pd.DataFrame({"kind": WORDED}), WORDS),
    "frame of polars": (pl.DataFrame({"kind": WORDED}), WORDS),
    "table of pyarrow": (pa.table({"kind": WORDED.tolist()}), WORDS),
    "frame of integers": (pd.DataFrame({"kind": CODES * 5}), [0, 5, 10]),
    "numpy StringDType": (WORDED.astype(np.dtypes.StringDType()), WORDS),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_libraries(kind):
    y, names = LABELS[kind]
    one, other = (trainer(loss=fn.CrossEntropyLoss(), width=3) for _ in range(2))
    one.fit(X, CODES, 2, validation_data=(X, CODES), verbose=0)
    other.fit(X, y, 2, validation_data=(X, y), verbose=0)
    assert other.classes_.tolist() == names and bits(one) == bits(other)
    assert other.evaluate(X, y) == one.evaluate(X, CODES)
    wanted = np.array(names)[one.model.predict_classes(X)]
    assert other.model.predict_classes(frame("pandas")).tolist() == wanted.tolist()


BOOLEANS = {
    "pandas bool": pd.Series(CODES == 1),
    "pandas boolean": pd.Series(CODES == 1, dtype="boolean"),
    "polars Boolean": pl.Series(CODES == 1),
    "pyarrow bool": pa.array((CODES == 1).tolist()),
    "frame of pandas": pd.DataFrame({"kind": CODES == 1}),
    "frame of polars": pl.DataFrame({"kind": CODES == 1}),
}


@pytest.mark.parametrize("kind", BOOLEANS)
def test_booleans_of_libraries(kind):
    one, other = (trainer(loss=fn.BCEWithLogitsLoss()) for _ in range(2))
    one.fit(X, CODES == 1, 2, verbose=0)
    other.fit(X, BOOLEANS[kind], 2, verbose=0)
    assert bits(one) == bits(other) and other.classes_.tolist() == [False, True]


GAPS = {
    "pandas str": pd.Series(["a", None] * 20),
    "pandas object": pd.Series(["a", np.nan] * 20, dtype=object),
    "pandas string": pd.Series(["a", None] * 20, dtype="string"),
    "pandas category": pd.Series(["a", None] * 20, dtype="category"),
    "pandas Int64": pd.Series([1, None] * 20, dtype="Int64"),
    "pandas boolean": pd.Series([True, None] * 20, dtype="boolean"),
    "pandas times": pd.Series([pd.NaT, pd.NaT] * 20, dtype=object),
    "polars String": pl.Series(["a", None] * 20),
    "polars Boolean": pl.Series([True, None] * 20),
    "pyarrow string": pa.array(["a", None] * 20),
    "pyarrow dictionary": pa.array(["a", None] * 20).dictionary_encode(),
    "list": ["a", None] * 20,
}


@pytest.mark.parametrize("kind", GAPS)
def test_missing_labels_are_named(kind):
    made = trainer(loss=fn.CrossEntropyLoss(), width=2)
    message = "^y (holds .* in row [01], a missing label; fill it|has dtype .* and missing values)"
    refused(lambda: made.fit(X, GAPS[kind], verbose=0), DataError, message)


def _file(model, path):
    model.save(path)
    return fn.load(path)


COPIES = {
    "copy": lambda t, path: copy.copy(t).model,
    "model's copy": lambda t, path: copy.deepcopy(t.model),
    "pickle": lambda t, path: pickle.loads(pickle.dumps(t)).model,
    "model's file": lambda t, path: _file(t.model, path),
    "model in a trainer's file": lambda t, path: (t.save(path), fn.load(path))[1],
    "trainer's file": lambda t, path: (t.save(path), fn.Trainer.load(path))[1].model,
    "averages": lambda t, path: t.averaged_model(),
    "other backend": lambda t, path: t.model.to("reference"),
}


@pytest.mark.parametrize("how", COPIES)
def test_copies_and_files_keep_the_names(how, tmp_path):
    made = trainer(averaging=fn.EMA(0.5))
    made.fit(frame("pandas"), Y, verbose=0)
    found = COPIES[how](made, tmp_path / "run.safetensors")
    assert found.feature_names_in_.tolist() == list(NAMES)
    refused(lambda: found.predict(frame("polars", NAMES[::-1])), DataError, "another order")
    found.predict(frame("pyarrow"))


def test_many_columns_are_not_all_listed():
    names = [f"c{i}" for i in range(500)]
    model = fn.Sequential(fn.Linear(500, 1), seed=0)
    values = np.zeros((4, 500))
    fn.Trainer(model, fn.MSELoss()).fit(frame("pandas", names, values), np.zeros(4), verbose=0)
    with pytest.raises(DataError, match=r"it lacks 'c0', .*, … \(500 in all\)") as caught:
        model.predict(frame("pandas", [f"d{i}" for i in range(500)], values))
    assert len(str(caught.value)) < 400


def test_a_name_that_no_file_keeps_is_refused_when_it_is_saved(tmp_path):
    made = trainer()
    columns = pd.Index(["a", "b", "\ud800"], dtype=object)
    made.fit(pd.DataFrame(X, columns=columns), Y, verbose=0)
    refused(lambda: made.model.save(tmp_path / "m"), fn.errors.UsageError, "lone surrogate")
    assert not (tmp_path / "m").exists()


BAD = {
    "no object": ["a"],
    "a name more": {"columns": None, "classes": None, "link": None, "more": 1},
    "too few columns": {"columns": ["a"], "classes": None, "link": None},
    "columns that are no texts": {"columns": [1, 2, 3], "classes": None, "link": None},
    "columns that are no list": {"columns": "abc", "classes": None, "link": None},
    "one class": {"columns": None, "classes": ["a"], "link": None},
    "too many classes": {"columns": None, "classes": ["a", "b", "c"], "link": None},
    "classes of two kinds": {"columns": None, "classes": [1, "b"], "link": None},
    "bools and integers": {"columns": None, "classes": [False, 1], "link": None},
    "real classes": {"columns": None, "classes": [0.5, 1.5], "link": None},
    "large classes": {"columns": None, "classes": [1, 2**63], "link": None},
    "a class twice": {"columns": None, "classes": ["b", "b"], "link": None},
    "classes that are not sorted": {"columns": None, "classes": ["b", "a"], "link": None},
    "classes that are no list": {"columns": None, "classes": {"a": 1, "b": 2}, "link": None},
    "a link nobody knows": {"columns": None, "classes": None, "link": "probit"},
    "a link that is no name": {"columns": None, "classes": None, "link": ["softmax"]},
}


@pytest.mark.parametrize("case", BAD)
def test_a_file_with_bad_names_loads_nothing(case, tmp_path):
    path = tmp_path / "net.safetensors"
    made = trainer(loss=fn.BCEWithLogitsLoss())
    made.fit(frame("pandas"), Y > 0, verbose=0)
    made.save(path)
    found = tensors.read(path)
    description = json.loads(json.dumps(found.description))
    assert description["terms"] == {
        "columns": list(NAMES),
        "classes": [False, True],
        "link": "sigmoid",
    }
    description["terms"] = BAD[case]
    tensors.write(path, description, found.tensors)
    for load in (fn.load, fn.Trainer.load):
        with pytest.raises(FileError, match="describes no model that can be made"):
            load(path)


def test_a_model_that_no_trainer_has_told_anything_has_a_file_as_before(tmp_path):
    path = tmp_path / "net.safetensors"
    fn.Sequential(fn.Linear(3, 2), seed=0).save(path)
    assert "terms" not in tensors.read(path).description
