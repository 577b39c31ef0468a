"""Hierarchical softmax: trees, losses against all probabilities, steps of touched rows, predictions."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest

import fastnet as fn
from fastnet.errors import DataError, HyperparameterError, ShapeError
from fastnet.layers.class_tree import ClassTree, huffman, two_levels

# A root with 3 children: a class; a node that has a single child, which has 2; a node with 4 children.
UNUSUAL = [8, 9, 9, 10, 10, 10, 10, 11, 11, 8, 11, -1]  # node 8 is 2 classes' and 9's
CHAIN = [
    *range(8, 15),
    14,
    9,
    10,
    11,
    12,
    13,
    14,
    -1,
]  # each inner node has a class and the next node
TREES = {
    "two classes": {"n_classes": 2},
    "three": {"n_classes": 3},
    "a square": {"n_classes": 9},
    "no square": {"n_classes": 23, "frequencies": np.arange(23)[::-1] % 7},
    "two levels": {"n_classes": 17, "frequencies": [0.0, *[2.5] * 15, 9.0]},
    "huffman": {"n_classes": 11, "frequencies": [0, 0, *range(9)], "tree": "huffman"},
    "unusual": {"n_classes": 8, "tree": UNUSUAL},
    "chain": {"n_classes": 8, "tree": CHAIN},
    "one decision": {"n_classes": 5, "tree": [5, 5, 5, 5, 5, -1]},
}
every_tree = pytest.mark.parametrize("tree", TREES)
dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])
WIDTH = 5


def layer(tree, **options):
    return fn.HierarchicalSoftmax(WIDTH, **TREES[tree], **options)


def net(tree, backend, dtype="float64", **options):
    layers = fn.Linear(3, WIDTH), fn.Tanh(), layer(tree, **options)
    return fn.Sequential(*layers, dtype=dtype, backend=backend, seed=4)


def data(tree, rows=40):
    random = np.random.default_rng(rows)
    return random.normal(size=(rows, 3)), random.integers(0, TREES[tree]["n_classes"], rows)


def explicit(last, h):
    """The probability of each class, as a product over the nodes from the class upwards, in float64."""
    given = last.tree
    if given is None or isinstance(given, str):
        frequencies = None if last.frequencies is None else np.asarray(last.frequencies)
        given = two_levels(last.n_classes, frequencies) if given is None else huffman(frequencies)
    parents, classes = list(given), last.n_classes
    children = {
        p: [c for c, q in enumerate(parents) if q == p] for p in range(classes, len(parents))
    }

    def deciding(node):
        while node in children and len(children[node]) == 1:
            (node,) = children[node]
        return node

    rows, level, at = {}, [deciding(parents.index(-1))], 0
    while level:  # level by level, as `weight` has them
        following = []
        for node in level:
            found = [deciding(child) for child in children[node]]
            rows[node] = found, at
            at += 1 if len(found) == 2 else len(found)
            following += [child for child in found if child in children]
        level = following
    assert at == last.logits
    z = h @ np.asarray(last.weight, "d").T
    z = z if last.bias is None else z + np.asarray(last.bias, "d")
    p = {deciding(parents.index(-1)): np.ones(len(h))}
    for node, (found, first) in rows.items():
        if len(found) == 2:
            one = 1 / (1 + np.exp(-z[:, first]))
            shares = np.stack([one, 1 - one], axis=1)
        else:
            e = np.exp(z[:, first : first + len(found)])
            shares = e / e.sum(axis=1, keepdims=True)
        p |= {child: p[node] * share for child, share in zip(found, shares.T, strict=True)}
    return np.stack([p[c] for c in range(classes)], axis=1)


@every_tree
@pytest.mark.parametrize("bias", [True, False])
def test_log_probabilities_are_those_of_the_explicit_product(backend, tree, bias):
    model = net(tree, backend, bias=bias)
    x, _ = data(tree)
    p = explicit(model[2], np.tanh(x @ np.asarray(model[0].weight).T + model[0].bias))
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-14)
    np.testing.assert_allclose(np.exp(model.predict(x)), p, rtol=1e-12, atol=1e-15)


@every_tree
@dtypes
@pytest.mark.parametrize("rows", [1, 40, 600])
def test_the_loss_by_decisions_is_that_of_all_classes(backend, tree, dtype, rows):
    """Value and gradients; the two ways share neither kernels nor the order of additions."""
    model = net(tree, backend, dtype)
    x, y = data(tree, rows)
    found = []
    for loss in (fn.HierarchicalSoftmaxLoss(), fn.NLLLoss()):
        value = model.value_and_grad(loss, x, y)
        found.append({"loss": value, **{n: g.copy() for n, g in model.grads.items()}})
    tol = {"float32": 2e-5, "float64": 1e-12}[dtype]
    for name, want in found[1].items():
        scale = np.max(np.abs(want))
        np.testing.assert_allclose(found[0][name], want, rtol=tol, atol=tol * scale, err_msg=name)
    p = explicit(model[2], np.tanh(x @ np.asarray(model[0].weight).T + model[0].bias))
    assert found[0]["loss"] == pytest.approx(-np.log(p[range(rows), y]).mean(), rel=tol)


@pytest.mark.parametrize("optimizer", [fn.SGD, lambda lr: fn.SGD(lr, weight_decay=0.1), fn.Adam])
@every_tree
@dtypes
def test_steps_are_those_of_stored_gradients(backend, tree, optimizer, dtype):
    """A fit, whose update a kernel may take over, and a loop that stores all gradients."""
    model, x, y = net(tree, backend, dtype), *data(tree)
    fitted = copy.deepcopy(model)
    fn.Trainer(fitted, fn.HierarchicalSoftmaxLoss(), optimizer(lr=0.1), seed=3).fit(
        x, y, 3, 7, verbose=0
    )
    stepped, loss = optimizer(lr=0.1), fn.HierarchicalSoftmaxLoss()
    for epoch in range(3):
        for xb, yb in fn.batches(x, y, batch_size=7, seed=3, epoch=epoch):
            model.value_and_grad(loss, xb, yb)
            stepped.step(model)
    for name, want in model.state_dict().items():
        np.testing.assert_array_equal(fitted.state_dict()[name], want, err_msg=name)


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_and_chunks_change_no_bit(threads):
    before = fn.get_num_threads()
    random = np.random.default_rng(0)
    x, y = random.normal(size=(3000, 40)), random.integers(0, 3000, 3000)
    found = []
    try:
        for count, size in ((1, 3000), (threads, 3000)):
            fn.set_num_threads(count)
            last = fn.HierarchicalSoftmax(40, 3000, np.arange(3000), "huffman")
            model = fn.Sequential(last, backend="c", seed=1)
            fn.Trainer(model, fn.HierarchicalSoftmaxLoss(), fn.SGD(0.5), seed=0).fit(
                x, y, 2, size, verbose=0
            )
            found.append(model.state_dict())
    finally:
        fn.set_num_threads(before)
    for name, want in found[0].items():
        np.testing.assert_array_equal(found[1][name], want, err_msg=name)


def test_more_decisions_than_a_thread_sorts_at_once():
    """12,000 rows with 13 decisions each: the C kernel adds up parts of the gradient."""
    random = np.random.default_rng(0)
    x, y = random.normal(size=(12_000, 3)), random.integers(0, 4000, 12_000)
    found = []
    for backend in ("c", "reference"):
        last = fn.HierarchicalSoftmax(3, 4000, np.ones(4000), "huffman")
        model = fn.Sequential(last, dtype="float64", backend=backend, seed=1)
        fn.Trainer(model, fn.HierarchicalSoftmaxLoss(), fn.SGD(50.0), seed=0).fit(
            x, y, 3, 12_000, verbose=0
        )
        found.append(model.state_dict())
    for name, want in found[1].items():
        np.testing.assert_allclose(found[0][name], want, rtol=1e-11, atol=1e-12, err_msg=name)


@every_tree
def test_ignored_rows_add_nothing(backend, tree):
    model, (x, y) = net(tree, backend), data(tree)
    loss = fn.HierarchicalSoftmaxLoss(ignore_index=-7)
    y = y.copy()
    y[::3] = -7
    kept = y != -7
    value = model.value_and_grad(loss, x, y)
    grads = {n: g.copy() for n, g in model.grads.items()}
    assert value == pytest.approx(model.value_and_grad(loss, x[kept], y[kept]), rel=1e-12)
    for name, grad in model.grads.items():
        np.testing.assert_allclose(grads[name], grad, rtol=1e-10, atol=1e-14)


def test_weights_of_samples(backend):
    model, (x, y) = net("unusual", backend), data("unusual")
    w = np.random.default_rng(1).uniform(0, 2, len(x))
    losses = [
        model.value_and_grad(loss, x, y, sample_weight=w)
        for loss in (fn.HierarchicalSoftmaxLoss(), fn.NLLLoss())
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


@every_tree
def test_check_gradients(tree, backend):
    model, (x, y) = net(tree, backend), data(tree, 6)
    fn.check.gradients(model, fn.HierarchicalSoftmaxLoss(), x, y)  # raises where they differ


@every_tree
def test_probabilities_of_some_classes_and_the_most_probable(backend, tree):
    model, (x, y) = net(tree, backend), data(tree)
    count = TREES[tree]["n_classes"]
    with model.edit() as values:
        values["2.weight"][...] *= 9
    fn.Trainer(model, fn.HierarchicalSoftmaxLoss(), fn.SGD(0.1), seed=0).fit(x, y, 1, verbose=0)
    every = model.predict_proba(x)
    some = [count - 1, 0, 0]
    found = model.predict_proba(x, classes=some, batch_size=7)
    np.testing.assert_allclose(found, every[:, some], rtol=1e-12)
    assert found.dtype == model.dtype
    np.testing.assert_array_equal(model.predict_classes(x), every.argmax(axis=1))
    np.testing.assert_array_equal(model.predict_classes(x[:0]), [])


def test_labels_of_classes_name_columns(backend):
    x, y = data("unusual")
    model, names = net("unusual", backend), np.array(list("abcdefgh"))
    trainer = fn.Trainer(
        model, fn.HierarchicalSoftmaxLoss(), fn.SGD(0.1), seed=0, metrics=["accuracy"]
    )
    history = trainer.fit(x, names[np.arange(40) % 8], 2, validation_data=(x, names[y]), verbose=0)
    every = model.predict_proba(x)
    np.testing.assert_allclose(model.predict_proba(x, classes=["c", "a"]), every[:, [2, 0]])
    assert set(model.predict_classes(x)) <= set(names)
    right = np.mean(model.predict_classes(x) == names[y])
    assert history.records[-1]["val_accuracy"] == pytest.approx(right)


def test_classes_of_other_models(backend):
    x, y = data("three")
    model = fn.Sequential(fn.Linear(3, 3), backend=backend, seed=0)
    fn.Trainer(model, fn.CrossEntropyLoss(), seed=0).fit(x, y, 1, verbose=0)
    np.testing.assert_array_equal(
        model.predict_proba(x, classes=[2, 1]), model.predict_proba(x)[:, [2, 1]]
    )
    single = fn.Sequential(fn.Linear(3, 1), backend=backend, seed=0)
    fn.Trainer(single, fn.BCEWithLogitsLoss(), seed=0).fit(x, y > 1, 1, verbose=0)
    np.testing.assert_array_equal(
        single.predict_proba(x, classes=[True]), single.predict_proba(x)[:, 1:]
    )


@pytest.mark.parametrize("bad", [[], 3, [[0]], [8], [-1], ["a"], [0.5], [None], [[0], [1, 2]]])
def test_other_classes_are_refused(bad):
    model, (x, y) = net("unusual", "reference"), data("unusual")
    fn.Trainer(model, fn.HierarchicalSoftmaxLoss(), seed=0).fit(x, y, 1, verbose=0)
    with pytest.raises(HyperparameterError, match=r"^classes "):
        model.predict_proba(x, classes=bad)


@pytest.mark.parametrize("tree", ["two levels", "huffman", "unusual"])
def test_save_load_and_resume(tree, backend, tmp_path):
    x, y = data(tree)

    def trainer(model):
        return fn.Trainer(model, fn.HierarchicalSoftmaxLoss(), fn.Adam(0.05), seed=2)

    whole = net(tree, backend)
    trainer(whole).fit(x, y, 4, 8, verbose=0)
    first = trainer(net(tree, backend))
    first.fit(x, y, 2, 8, verbose=0)
    first.save(tmp_path / "checkpoint")
    again = fn.Trainer.load(tmp_path / "checkpoint")
    again.model.to(backend)
    again.fit(x, y, 2, 8, verbose=0)
    again.model.save(tmp_path / "net.safetensors")
    loaded = fn.load(tmp_path / "net.safetensors")
    for model in (again.model, loaded, copy.deepcopy(loaded)):
        for name, want in whole.state_dict().items():
            np.testing.assert_array_equal(model.state_dict()[name], want, err_msg=name)
        np.testing.assert_array_equal(model.to(backend).predict(x), whole.predict(x))


def test_a_frozen_layer_stays(backend):
    model, (x, y) = net("no square", backend), data("no square")
    model.freeze("2.*")
    before = model.state_dict()
    fn.Trainer(model, fn.HierarchicalSoftmaxLoss(), fn.SGD(0.1), seed=0).fit(x, y, 2, 8, verbose=0)
    for name, value in model.state_dict().items():
        assert np.array_equal(value, before[name]) == name.startswith("2."), name


def test_labels_out_of_range_are_refused(backend):
    model, (x, y) = net("a square", backend), data("a square")
    trainer = fn.Trainer(model, fn.HierarchicalSoftmaxLoss(), seed=0)
    for bad in (-1, 9, 2**40):
        with pytest.raises(DataError, match=r"y holds labels from .* expected 0 to 8"):
            trainer.fit(x, np.where(np.arange(40) == 3, bad, y), 1, verbose=0)


def test_groups_hold_classes_of_similar_frequency():
    tree = two_levels(10, np.array([1, 9, 8, 1, 1, 7, 1, 1, 1, 1]))
    assert tree[1] == tree[2] == tree[5] == 10
    assert sorted(np.bincount(tree[:10] - 10)) == [2, 2, 3, 3]
    last = fn.HierarchicalSoftmax(2, 10_000)
    assert last.logits == 10_100


def test_frequent_classes_have_short_ways():
    frequencies = np.array([0.5, 0.25, 0.125, 0.0625, 0.0625])
    made = ClassTree(huffman(frequencies), 5)
    depths = []
    for leaf in range(5):
        node, depth = leaf, 0
        while (node := made.nodes[node, 0]) >= 0:
            depth += 1
        depths.append(depth)
    assert depths == [1, 2, 3, 4, 4]


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ([2, 2], "tree is .*; expected a vector of integers"),
        ([[2, 2, -1]], "tree is .*; expected None, 'huffman'"),
        ([2.0, 2.0, -1.0], "tree is .*; expected None, 'huffman'"),
        ("huffmann", "tree is 'huffmann'; expected one of 'huffman'"),
        ("huffman", "tree is 'huffman' and frequencies is None"),
        ([2, 2, 2], "tree has 0 roots"),
        ([2, -1, -1], "tree has 2 roots"),
        ([-1, 2, 1], "tree has 1 roots, or a class as root"),
        ([2, 1, -1], r"tree\[1\] is 1; expected an inner node in \[2, 2\]"),
        ([2, 7, -1], r"tree\[1\] is 7; expected an inner node"),
        ([2, -2, -1], r"tree\[1\] is -2; expected an inner node"),
        ([2, 2, -1, 2], "tree: node 3 has no children"),
        ([2, 4, 3, 2, -1], "tree: of 2 classes .* are not below the root"),
    ],
)
def test_what_is_no_tree_is_refused(tree, message):
    with pytest.raises(HyperparameterError, match=message):
        fn.HierarchicalSoftmax(3, 2, tree=tree)


def test_a_tree_may_not_be_too_deep():
    count = 10_002
    parents = [*range(count, 2 * count - 1), count, *range(count + 1, 2 * count - 1), -1]
    with pytest.raises(HyperparameterError, match="tree: 10001 decisions lead to one class"):
        fn.HierarchicalSoftmax(1, count, tree=parents)


@pytest.mark.parametrize("bad", [[1], [1, -1], [1, np.nan], [[1, 2]], "ab", [1, [2]], 3])
def test_other_frequencies_are_refused(bad):
    with pytest.raises(
        HyperparameterError, match=r"^frequencies is .*; expected a vector of 2 finite"
    ):
        fn.HierarchicalSoftmax(3, 2, bad)
    with pytest.raises(
        HyperparameterError, match="frequencies and the parents of a tree are given"
    ):
        fn.HierarchicalSoftmax(3, 2, [1, 2], [2, 2, -1])


def test_its_shape_and_repr():
    last = fn.HierarchicalSoftmax(3, 100, np.arange(100))
    with pytest.raises(ShapeError, match="expected in_features = 3"):
        last.forward(np.zeros((2, 4)))
    assert repr(last).endswith("frequencies=an array of shape (100,) and dtype float64)")
    assert "tree" not in repr(last)
    assert re.search("HierarchicalSoftmax", str(fn.Sequential(last)))
