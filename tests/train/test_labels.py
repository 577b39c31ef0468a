"""Labels as people have them: numbered at the first fit, and the same from then on."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from refusals import refused

import fastnet as fn
from fastnet.errors import DataError, HyperparameterError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3)).astype("f")
CODES = np.argmax(X, axis=1)
CODES[:3] = 2, 0, 1
TERMS = {  # the classes in order
    "strings": ["ant", "bee", "cat"],
    "other letters": ["", "Ä", "日本"],
    "integers": [-7, 3, 10**15],
    "from 1 on": [1, 2, 3],
    "uint8": np.array([1, 5, 255], "u1"),
    "big-endian": np.array([1, 5, 300], ">i2"),
    "objects": np.array([1, 5, 300], object),
}
LABEL_LOSSES = [
    fn.CrossEntropyLoss(),
    fn.CrossEntropyLoss(weight=[1.0, 2.0, 0.5], label_smoothing=0.1),
    fn.NLLLoss(),
    fn.HierarchicalSoftmaxLoss(),
    fn.MultiMarginLoss(),
    fn.OneVsRestHingeLoss(),
]
TRUTHS = (CODES == 1).astype(int)
PAIRS = {
    "strings": ["no", "yes"],
    "booleans": [False, True],
    "integers": [-1, 1],
    "1 and 2": [1, 2],
    "objects": np.array([False, True], object),
}


def trainer(loss, backend="reference", width=3, **options):
    layers = [fn.Linear(3, width)]
    layers += [fn.LogSoftmax()] * isinstance(loss, fn.NLLLoss | fn.HierarchicalSoftmaxLoss)
    layers += [fn.Sigmoid()] * isinstance(loss, fn.BCELoss)
    model = fn.Sequential(*layers, backend=backend, seed=1)
    return fn.Trainer(model, loss, fn.SGD(0.5), seed=2, **options)


def bits(made):
    return [value.tobytes() for value in made.model.state_dict().values()]


def scores(made):
    skipped = ("seconds", "samples_per_second")
    return [
        {k: v for k, v in record.items() if k not in skipped} for record in made.history.records
    ]


def trained(made, y, shown=None):
    made.fit(X[:50], y[:50], 3, validation_data=(X[50:], y[50:]), verbose=0)
    made.train_on_batch(X[:7], y[:7])
    made.train_on_batch(X[:7], y[:7])
    made.fit_full_batch(X, y, "gradient-descent", max_iter=2)
    fn.fit_many([made], X, y, rows=[np.arange(5, 60)], validation="rest", epochs=2)
    made.find_lr(X, y, steps=4)
    return made.evaluate(X, y)


@pytest.mark.parametrize("loss", LABEL_LOSSES, ids=repr)
@pytest.mark.parametrize("kind", TERMS)
def test_labels_train_to_the_bits_of_their_numbers(kind, loss, backend):
    given = np.array(TERMS[kind]) if isinstance(TERMS[kind], list) else TERMS[kind]
    one, other = trainer(loss, backend), trainer(loss, backend)
    expected = trained(one, CODES)
    assert trained(other, given[CODES]) == expected
    assert bits(other) == bits(one) != bits(trainer(loss, backend)) and scores(other) == scores(one)
    assert other.classes_.tolist() == list(given) and one.classes_.tolist() == [0, 1, 2]
    assert other.model.classes_.dtype.kind == ("U" if isinstance(given[0], str) else "i")
    named = other.model.predict_classes(X)
    assert named.tolist() == given[one.model.predict_classes(X)].tolist()
    assert trained(other, given[CODES].tolist()) == trained(one, CODES)  # a list


@pytest.mark.parametrize("loss", [fn.BCEWithLogitsLoss(), fn.BCELoss()], ids=repr)
@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("shape", [(60,), (60, 1)])
def test_two_classes_by_one_output(kind, loss, shape, backend):
    given = np.array(PAIRS[kind])
    one, other = trainer(loss, backend, 1), trainer(loss, backend, 1)
    expected = trained(one, TRUTHS.reshape(shape))
    assert trained(other, given[TRUTHS].reshape(shape)) == expected
    assert bits(other) == bits(one) and scores(other) == scores(one)
    assert other.classes_.tolist() == given.tolist() and one.classes_.tolist() == [0, 1]
    named = other.model.predict_classes(X)
    assert named.tolist() == given[one.model.predict_classes(X)].tolist()
    assert type(named[0].item()) is type(given.tolist()[0])


def test_booleans_are_two_classes(backend):
    one, other = (trainer(fn.CrossEntropyLoss(), backend, 2) for _ in range(2))
    assert trained(one, TRUTHS) == trained(other, TRUTHS == 1) and bits(one) == bits(other)
    assert other.classes_.tolist() == [False, True] and other.classes_.dtype == bool
    other.fit(X, TRUTHS, verbose=0)  # the same numbers
    three = trainer(fn.CrossEntropyLoss(), backend)
    three.fit(X, TRUTHS == 1, verbose=0)
    assert three.classes_.tolist() == [0, 1, 2]


def test_ignored_rows_stay_ignored(backend):
    y = CODES.copy()
    y[::4] = -100
    named = np.where(y == -100, -100, np.array([4, 6, 9])[CODES])
    one, other = (trainer(fn.CrossEntropyLoss(), backend) for _ in range(2))
    assert trained(one, y) == trained(other, named)
    assert bits(one) == bits(other) and other.classes_.tolist() == [4, 6, 9]


def test_numbers_that_are_classes_already_stay_what_they_are(backend):
    """Whether all of them occur or not, so that a label has the same meaning in every data set."""
    few = np.where(CODES == 0, 1, CODES)  # 1 and 2 of 0, 1, 2
    made = trainer(fn.CrossEntropyLoss(), backend)
    made.fit(X, few, verbose=0)
    assert made.classes_.tolist() == [0, 1, 2]
    made.fit(X, CODES, verbose=0)
    refused(
        lambda: made.fit(X, CODES + 1, verbose=0), DataError, "^y holds labels from 1 to 3; exp"
    )


def test_as_many_labels_as_outputs_are_needed():
    made = trainer(fn.CrossEntropyLoss())
    for y, message in {
        "ab": "^y holds 2 different labels, 'a', 'b'; expected 3, as many as the model's output",
        "abcd": "^y holds 4 different labels, 'a', 'b', 'c', 'd'; expected 3",
        "abcdefghijklmn": r"'h', … \(14 in all\); expected 3",
    }.items():
        refused(lambda y=y: made.fit(X[: len(y)], list(y), verbose=0), DataError, message)
    refused(
        lambda: made.fit(X[:4], [1, 2, 3, 4], verbose=0), DataError, "holds labels from 1 to 4; exp"
    )
    made = trainer(fn.BCEWithLogitsLoss(), width=1)
    refused(
        lambda: made.fit(X[:3], list("abc"), verbose=0), DataError, "3 different labels.*cted 2"
    )
    refused(lambda: made.fit(X[:3], [1, 2, 3], verbose=0), DataError, "takes probabilities in")
    assert made.classes_ is None and made.epoch == 0


LATER = {
    "fit": ("y", lambda t, y: t.fit(X, y, verbose=0)),
    "validation": (
        "validation y",
        lambda t, y: t.fit(X, NAMED, validation_data=(X, y), verbose=0),
    ),
    "evaluate": ("y", lambda t, y: t.evaluate(X, y)),
    "train_on_batch": ("y", lambda t, y: t.train_on_batch(X, y)),
    "find_lr": ("y", lambda t, y: t.find_lr(X, y, steps=2)),
    "fit_full_batch": ("y", lambda t, y: t.fit_full_batch(X, y, "gradient-descent")),
    "fit_many": ("y", lambda t, y: fn.fit_many([t], X, y)),
    "validation of fit_many": (
        "validation y",
        lambda t, y: fn.fit_many([t], X, NAMED, validation=(X, y)),
    ),
}
NAMED = np.array(["ant", "bee", "cat"])[CODES]


@pytest.mark.parametrize("entry", LATER)
def test_an_unknown_label_is_named_and_changes_nothing(entry):
    made = trainer(fn.CrossEntropyLoss())
    made.fit(X, NAMED, verbose=0)
    before, (name, call) = (bits(made), made.epoch, made.step), LATER[entry]
    for y, found in {
        "a string": (["ant", "wasp"] * 30, r"'wasp' in row 1"),
        "integers": (CODES, r"2 in row 0"),
        "booleans": (TRUTHS == 1, r"False in row 0"),
    }.values():
        message = rf"^{name} holds the label {found}; the model's classes are 'ant', 'bee', 'cat'$"
        refused(lambda y=y: call(made, y), DataError, message)
    refused(lambda: call(made, ["ant", None] * 30), DataError, f"^{name} holds None in row 1")
    assert (bits(made), made.epoch, made.step) == before
    call(made, np.where(NAMED == "cat", "bee", NAMED))  # fewer of them are good


@pytest.mark.parametrize("entry", LATER)
def test_an_unknown_integer_is_named(entry):
    made = trainer(fn.CrossEntropyLoss())
    made.fit(X, CODES + 1, verbose=0)
    name, call = LATER[entry]
    if "validation" in entry:
        return
    for y, found in [
        (CODES, "0"),
        (NAMED, "'cat'"),
        (CODES.astype("u8") + 2**63, "92233"),
        (TRUTHS == 1, "F"),
    ]:
        refused(lambda y=y: call(made, y), DataError, f"^{name} holds the label {found}")


def test_a_step_on_a_batch_numbers_the_labels_each_time(backend):
    """Also integers that would be numbers of classes themselves."""
    one, other = (trainer(fn.CrossEntropyLoss(), backend) for _ in range(2))
    for begin in range(0, 60, 10):
        part = slice(begin, begin + 10)
        few = np.arange(10) % 2 if begin else np.arange(10) % 3
        one.train_on_batch(X[part], few)
        other.train_on_batch(X[part], few + 1)
    assert bits(one) == bits(other) and other.classes_.tolist() == [1, 2, 3]
    other.reset()
    one.reset()
    one.train_on_batch(X, CODES)
    other.train_on_batch(X, CODES)  # numbers now
    assert bits(one) == bits(other) and other.classes_.tolist() == [0, 1, 2]
    one.train_on_batch(X, CODES)
    one.model._terms = other.model._terms
    one.reset()
    one.train_on_batch(X, NAMED)
    assert one.classes_.tolist() == ["ant", "bee", "cat"]


def test_a_second_trainer_of_a_model_uses_its_classes(backend):
    first = trainer(fn.CrossEntropyLoss(), backend)
    first.fit(X, CODES, verbose=0)
    first.train_on_batch(X, CODES)
    second = fn.Trainer(first.model, fn.NLLLoss(), fn.SGD(0.1), seed=0)
    assert second.classes_.tolist() == [0, 1, 2]
    second.reset()
    second.train_on_batch(X, CODES + 1)
    assert first.classes_.tolist() == [1, 2, 3]
    refused(lambda: first.train_on_batch(X, CODES), DataError, "^y holds the label 0 in row 1")


def test_before_a_fit_evaluate_takes_numbers():
    made = trainer(fn.CrossEntropyLoss())
    message = "^y holds the label 'ant', and the model has no classes yet; fit it first, or number"
    refused(lambda: made.evaluate(X, NAMED), DataError, message)
    refused(
        lambda: made.evaluate(X, CODES + 1), DataError, "^y holds labels from 1 to 3; expected 0"
    )
    made.evaluate(X, CODES)
    assert made.classes_ is None


def test_an_ignored_label_must_not_be_the_number_of_a_class():
    made = trainer(fn.CrossEntropyLoss(ignore_index=1))
    for y in (NAMED, np.array([4, 6, 9])[CODES]):
        message = "^ignore_index is 1 and y holds the labels .*; expected a negative ignore_index"
        refused(lambda y=y: made.fit(X, y, verbose=0), HyperparameterError, message)
    made.fit(X, CODES, verbose=0)  # as ever


def test_probabilities_as_targets_have_no_labels(backend):
    soft = np.eye(3)[CODES] * 0.7 + 0.1
    made = trainer(fn.CrossEntropyLoss(), backend)
    made.fit(X, soft, verbose=0)
    assert made.classes_ is None
    assert made.model.predict_classes(X).tolist() == made.model.predict(X).argmax(1).tolist()
    message = "^validation y holds the label 'ant', and the model has no classes yet; fit it first"
    given = {"validation_data": (X, NAMED), "verbose": 0}
    refused(lambda: made.fit(X, soft, **given), DataError, message)
    made = trainer(fn.BCEWithLogitsLoss(), backend, 1)
    made.fit(X, TRUTHS * 0.8 + 0.1, verbose=0)
    assert made.classes_ is None and set(made.model.predict_classes(X)) == {0, 1}


def test_other_losses_have_no_labels():
    made = trainer(fn.MSELoss(), width=1)
    made.fit(X, TRUTHS == 1, verbose=0)
    assert made.classes_ is None
    refused(lambda: made.fit(X, NAMED, verbose=0), DataError, "MSELoss takes numbers")
    several = trainer(fn.BCEWithLogitsLoss())
    several.fit(X, np.eye(3)[CODES], verbose=0)
    assert several.classes_ is None


COPIES = {
    "copy": lambda t, path: copy.copy(t),
    "pickle": lambda t, path: pickle.loads(pickle.dumps(t)),
    "file": lambda t, path: (t.save(path), fn.Trainer.load(path))[1],
}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("kind", TERMS)
def test_copies_and_files_keep_the_classes(how, kind, tmp_path):
    given = np.array(TERMS[kind])
    made = trainer(fn.CrossEntropyLoss())
    made.fit(X, given[CODES], verbose=0)
    found = COPIES[how](made, tmp_path / "run.safetensors")
    found.model.to("reference")  # a file says "auto"
    assert found.classes_.tolist() == made.classes_.tolist() == given.tolist()
    assert found.classes_.dtype == made.classes_.dtype
    assert found.evaluate(X, given[CODES]) == made.evaluate(X, given[CODES])
    refused(lambda: found.evaluate(X, TRUTHS == 1), DataError, "^y holds the label ")
    found.fit(X, given[CODES], verbose=0)
    made.fit(X, given[CODES], verbose=0)
    assert bits(found) == bits(made)


def test_the_classes_are_a_new_array():
    made = trainer(fn.CrossEntropyLoss())
    made.fit(X, NAMED, verbose=0)
    made.classes_[:] = "x"
    assert made.classes_.tolist() == ["ant", "bee", "cat"]
    with pytest.raises(AttributeError, match="classes_ cannot be assigned"):
        made.classes_ = ["a"]


def test_strings_with_a_zero_at_the_end_are_different_ones():
    made = trainer(fn.CrossEntropyLoss(), width=2)
    y = np.array(["a", "a\0"] * 30, object)
    made.fit(X, y, verbose=0)
    assert made.classes_.tolist() == ["a", "a\0"]


def test_nets_of_fit_many_have_the_classes_of_all_rows(backend):
    rows = [np.flatnonzero(left_out != CODES) for left_out in range(3)]
    models, others = ([trainer(fn.CrossEntropyLoss(), backend).model for _ in rows] for _ in "ab")
    given = {"losses": fn.CrossEntropyLoss(), "rows": rows, "validation": "rest", "epochs": 2}
    given |= {"optimizers": fn.SGD(0.1), "seeds": [1, 2, 3]}
    one = fn.fit_many(models, X, NAMED, **given)
    other = fn.fit_many(others, X, CODES, **given)
    assert [h.history["val_loss"] for h in one] == [h.history["val_loss"] for h in other]
    assert [m.classes_.tolist() for m in models] == [["ant", "bee", "cat"]] * 3


def test_nets_of_fit_many_with_classes_of_their_own():
    numbers, named = trainer(fn.CrossEntropyLoss()), trainer(fn.CrossEntropyLoss())
    numbers.fit(X, CODES, verbose=0)
    named.fit(X, CODES + 1, verbose=0)
    refused(lambda: fn.fit_many([named, numbers], X, CODES), DataError, "^y holds the label 0")
    refused(lambda: fn.fit_many([numbers, named], X, CODES), DataError, "^y holds the label 0")


def test_nets_of_fit_many_number_the_same_labels_each_in_its_way():
    two = np.where(CODES == 0, 2, 3)
    alone = [trainer(fn.CrossEntropyLoss()) for _ in range(2)]
    for made, first in zip(alone, (1, 2), strict=True):  # classes 1, 2, 3 and 2, 3, 4
        made.fit(X, CODES + first, verbose=0)
    together = copy.deepcopy(alone)
    for made in alone:
        made.fit(X, two, 2, validation_data=(X, two), verbose=0)
    fn.fit_many(together, X, two, epochs=2, validation=(X, two))
    assert [bits(made) for made in together] == [bits(made) for made in alone]
    assert [scores(made) for made in together] == [scores(made) for made in alone]


def test_a_fit_with_a_checkpoint_goes_on_with_its_labels(tmp_path):
    path = tmp_path / "run.safetensors"
    whole = trainer(fn.CrossEntropyLoss())
    whole.fit(X, NAMED, 4, verbose=0)
    trainer(fn.CrossEntropyLoss()).fit(X, NAMED, 2, verbose=0, checkpoint=path)
    again = trainer(fn.CrossEntropyLoss())
    again.fit(X, NAMED, 4, verbose=0, checkpoint=path)
    assert bits(again) == bits(whole) and again.classes_.tolist() == ["ant", "bee", "cat"]
    other = np.array(["ant", "bee", "dog"])[CODES]
    with pytest.warns(UserWarning, match=r"data.classes.*'dog'.* here and .*'cat'.* in the file"):
        trainer(fn.CrossEntropyLoss()).fit(X, other, 5, verbose=0, checkpoint=path)
