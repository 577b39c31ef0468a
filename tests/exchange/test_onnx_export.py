"""Models as ONNX files: onnxruntime and the reference evaluator compute what `predict` does."""

from __future__ import annotations

import json

import numpy as np
import onnx_runs
import pytest
import random_graphs

import fastnet as fn
from fastnet.formulas import exp, where
from fastnet.model.exported import prediction_of
from fastnet.onnx import ops
from fastnet.onnx.writing import NEWEST_OPSET, OLDEST_OPSET

DTYPES = ("float32", "float64")
WIDTH = 6
X = np.random.default_rng(1).normal(size=(9, WIDTH)) * 2
X[0] = 0.0
X[1] *= 20.0


@fn.elementwise
def bent(x, at=0.5):
    """A kink of users' own."""
    return where((x > at) & ~(x > 2 * at), exp(-x * x), x / (1 + x * x))


def _deep_tree():
    parents = np.array([7, 7, 7, 8, 8, 9, 9, 9, 10, 10, -1])
    return fn.HierarchicalSoftmax(WIDTH, 7, tree=parents)


LAYERS = {
    "Add": lambda: fn.Add(fn.Linear(WIDTH, WIDTH), fn.Identity(), fn.Tanh()),
    "AlphaDropout": lambda: fn.AlphaDropout(0.3),
    "BatchNorm1d": lambda: fn.BatchNorm1d(WIDTH, eps=0.01),
    "Bias": lambda: fn.Bias(WIDTH),
    "Columns": lambda: fn.Columns([4, 0, 0]),
    "Concat": lambda: fn.Concat(fn.Linear(WIDTH, 2), fn.Identity(), fn.Columns([1])),
    "EnsembleMean": lambda: fn.EnsembleMean(3),
    "EnsembleView": lambda: fn.EnsembleView(3),
    "GaussianNoise": lambda: fn.GaussianNoise(0.3),
    "HierarchicalSoftmax": lambda: fn.HierarchicalSoftmax(WIDTH, 9),
    "LayerNorm": lambda: fn.LayerNorm(WIDTH),
    "LeakyReLU": lambda: fn.LeakyReLU(0.3),
    "Linear": lambda: fn.Linear(WIDTH, 4),
    "LinearBatchEnsemble": lambda: fn.LinearBatchEnsemble(2, 3, 3),
    "LinearEnsemble": lambda: fn.LinearEnsemble(2, 3, 3),
    "Multiply": lambda: fn.Multiply(fn.Linear(WIDTH, WIDTH), fn.Sigmoid()),
    "NTKLinear": lambda: fn.NTKLinear(WIDTH, 3),
    "PBLD": lambda: fn.PBLD(WIDTH),
    "PReLU": lambda: fn.PReLU(WIDTH),
    "ParametricActivation": lambda: fn.ParametricActivation("mish", WIDTH),
    "Periodic": lambda: fn.Periodic(WIDTH, 3),
    "PiecewiseLinear": lambda: fn.PiecewiseLinear.from_quantiles(X, 4, 3, "B"),
    "RBF": lambda: fn.RBF(WIDTH, 5),
    "RMSNorm": lambda: fn.RMSNorm(WIDTH),
    "RandomFlip": lambda: fn.RandomFlip((2, 3)),
    "RandomTranslation": lambda: fn.RandomTranslation((2, 3), 1, 1),
    "Residual": lambda: fn.Residual(fn.Linear(WIDTH, 4), shortcut=fn.Linear(WIDTH, 4)),
    "Scale": lambda: fn.Scale(WIDTH),
}
MORE = {
    "a function of users": lambda: bent(at=0.7),
    "a slope for all": lambda: fn.PReLU(),
    "bins alone": lambda: fn.PiecewiseLinear([[0.0, 1.0, 3.0]] + [[-2.0, 0.0]] * (WIDTH - 1)),
    "bins with embeddings": lambda: fn.PiecewiseLinear(
        [[0.0, 1.0, 3.0]] + [[-2.0, 0.0]] * (WIDTH - 1), 3
    ),
    "no bias": lambda: fn.Linear(WIDTH, 4, bias=False),
    "batchnorm without weights": lambda: fn.BatchNorm1d(WIDTH, affine=False),
    "layernorm without bias": lambda: fn.LayerNorm(WIDTH, bias=False),
    "layernorm alone": lambda: fn.LayerNorm(WIDTH, elementwise_affine=False),
    "rmsnorm alone": lambda: fn.RMSNorm(WIDTH, eps=0.1, elementwise_affine=False),
    "mean of probabilities": lambda: fn.EnsembleMean(3, average="probabilities"),
    "an unknown code": lambda: fn.Embedding(4, 3, columns=[1, 4], unknown=True),
    "waves with phases": lambda: fn.Periodic(WIDTH, 3, phases=True),
    "waves of some columns": lambda: fn.PBLD(WIDTH - 2, others=2),
    "basis without a constant": lambda: fn.RBF(WIDTH, 5, constant=False),
    "a deep tree": _deep_tree,
    "batchnorm after a product": lambda: fn.Sequential(
        fn.Linear(WIDTH, 4), fn.BatchNorm1d(4), fn.ReLU()
    ),
    **{
        name: lambda name=name: getattr(fn.preprocess, name)().fit(X)
        for name in ("Center", "MinMaxScaler", "RobustScaler", "StandardScaler", "PCA", "ZCA")
    },
    "QuantileTransformer": lambda: fn.preprocess.QuantileTransformer(20).fit(X),
    "MinMaxScaler to other bounds": lambda: fn.preprocess.MinMaxScaler((-1, 3), clip=True).fit(
        X[2:]
    ),
    "OneHot": lambda: fn.preprocess.OneHot([0, 3]).fit(np.round(X[1:])),
    "OneHot of all": lambda: fn.preprocess.OneHot().fit(np.round(X[1:])),
}
# Layers without a use here: a base, one with NumPy code, one whose codes X has not, a decorator.
ELSEWHERE = {"Layer", "CustomLayer", "Embedding", "elementwise"}


def test_every_layer_is_tried():
    plain = {name for name in fn.layers.__all__ if name not in {*LAYERS, *ELSEWHERE}}
    assert all(getattr(fn, name)() for name in plain)
    assert len(plain) > 25 and not {*LAYERS} - {*fn.layers.__all__}
    used = {name for name in fn.preprocess.__all__ if not any(n.startswith(name) for n in MORE)}
    assert used == set()


def made(name, dtype):
    """A model of this layer, with numbers of its own."""
    make = LAYERS.get(name) or MORE.get(name) or getattr(fn, name)
    return onnx_runs.fill(fn.Sequential(make(), dtype=dtype, seed=0))


CASES = sorted({*fn.layers.__all__, *MORE} - ELSEWHERE)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_a_layer_computes_the_same(name, dtype, tmp_path):
    model = made(name, dtype)
    x = np.round(X) if name.startswith("OneHot") else X
    onnx_runs.agree(model, x.astype(dtype), tmp_path, input_shape=(WIDTH,))


def test_all_ways_to_write_an_op_are_tried():
    """None of the table has been left out above."""
    tried = {
        node.op.name
        for name in CASES
        for node in prediction_of(made(name, "float32"), (WIDTH,)).graph.nodes
    }
    assert {*ops.TABLE, *ops.NATIVE, *ops.NATIVE_32} - tried == {"batchnorm"}  # which is refused


@pytest.mark.parametrize("opset", [OLDEST_OPSET, 18, NEWEST_OPSET])
@pytest.mark.parametrize("dtype", DTYPES)
def test_other_versions_of_the_operators(dtype, opset, tmp_path):
    """Those whose inputs and attributes have changed: reductions, padding, normalisation."""
    onnx = pytest.importorskip("onnx")
    if opset > onnx.defs.onnx_opset_version():
        pytest.skip("a later version than the package onnx knows")
    layers = (
        *(fn.LayerNorm(WIDTH), fn.BatchNorm1d(WIDTH), fn.RBF(WIDTH, 7)),
        *(fn.RMSNorm(8), fn.GELU(), fn.Linear(8, 9), fn.EnsembleMean(3, average="probabilities")),
    )
    model = onnx_runs.fill(fn.Sequential(*layers, dtype=dtype, seed=0))
    message = onnx_runs.exported(model, tmp_path, opset=opset)
    assert [(o.domain, o.version) for o in message.opset_import] == [("", opset)]
    for found in onnx_runs.results(message, X.astype(dtype)):
        onnx_runs.assert_close(found["output"], model.predict(X), dtype)


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_random_graphs(first, tmp_path):
    """Skips, branches, gates, shared layers, functions of users."""
    count = 0
    for seed in range(first, first + 20):
        tree = random_graphs.tree(seed)
        model = random_graphs.fastnet_of(tree, dtype=DTYPES[seed % 2], seed=seed)
        x = random_graphs.inputs(tree, 5, seed)
        shape = x.shape[1:]
        if "Squares" in str(tree):
            with pytest.raises(fn.errors.UsageError, match=r"layer [\w.]+ \(Squares\) cannot"):
                model.export_onnx(tmp_path / "none.onnx", input_shape=shape)
            continue
        onnx_runs.agree(model, x, tmp_path, input_shape=shape)
        count += 1
    assert count > 5


@pytest.mark.parametrize("dtype", DTYPES)
def test_embeddings(dtype, tmp_path):
    """Codes, and NaN for what is none, which predict refuses."""
    layers = fn.Embedding([4, 2], [3, 1], columns=[1, 0]), fn.Linear(WIDTH + 2, 3)
    model = fn.Sequential(*layers, dtype=dtype, seed=0)
    x = X.astype(dtype)
    x[:, 1], x[:, 0] = np.arange(9) % 4, np.arange(9) % 2
    message = onnx_runs.agree(model, x, tmp_path)
    x[0, 1], x[1, 1], x[2, 0], x[3, 1] = 4, -1, 0.5, np.nan
    for found in onnx_runs.results(message, x):
        assert np.isnan(found["output"][:4]).all() and not np.isnan(found["output"][4:]).any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_only_codes(dtype, tmp_path):
    model = fn.Sequential(fn.Embedding(4, 3), dtype=dtype, seed=0)
    x = np.arange(4, dtype=dtype)[:, None]
    onnx_runs.agree(model, x, tmp_path, input_shape=1)


ENDINGS = {
    "softmax": (3, fn.CrossEntropyLoss(), ["ä", "b", "c"]),
    "numbers": (3, fn.CrossEntropyLoss(), [3, 7, 9]),
    "truths": (3, fn.CrossEntropyLoss(), [False, True]),
    "exp": (3, fn.NLLLoss(), None),
    "margins": (3, fn.MultiMarginLoss(), None),
    "sigmoid": (1, fn.BCEWithLogitsLoss(), ["no", "yes"]),
    "several": (3, fn.BCEWithLogitsLoss(), None),
    "probability": (1, fn.BCELoss(), None),
    "probabilities": (2, fn.BCELoss(), None),
    "regression": (2, fn.MSELoss(), None),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ENDINGS)
def test_probabilities_and_classes(kind, dtype, tmp_path):
    width, loss, labels = ENDINGS[kind]
    if kind == "truths":
        width = 2
    layers = [fn.Linear(WIDTH, width)]
    layers += {"exp": [fn.LogSoftmax()]}.get(kind, [])
    layers += [fn.Sigmoid()] if kind.startswith("prob") else []
    model = fn.Sequential(*layers, dtype=dtype, seed=3)
    random = np.random.default_rng(0)
    if kind in ("several", "probabilities", "regression"):
        y = random.integers(2, size=(9, width)).astype(dtype)
    else:
        y = np.arange(9) % max(2, width)
        y = y if labels is None else np.array(labels)[y]
    fn.Trainer(model, loss, seed=0).fit(X, y, epochs=1)
    message = onnx_runs.exported(model, tmp_path)
    names = [output.name for output in message.graph.output]
    assert names == {
        "regression": ["output"],
        "margins": ["output", "classes"],
    }.get(kind, ["output", "probabilities", "classes"])
    x = X.astype(dtype)
    for found in onnx_runs.results(message, x):
        onnx_runs.assert_close(found["output"], model.predict(x), dtype)
        if "probabilities" in names:
            onnx_runs.assert_close(found["probabilities"], model.predict_proba(x), dtype)
        if "classes" in names:
            wanted = model.predict_classes(x)
            assert found["classes"].tolist() == wanted.tolist()
            assert len(np.unique(wanted)) > 1
    kept = {p.key: json.loads(p.value) for p in message.metadata_props}
    told = {"classes": model._terms.classes and model.classes_.tolist(), "link": model._terms.link}
    assert kept == {name: value for name, value in told.items() if value is not None}


def test_some_outputs(tmp_path):
    model = fn.Sequential(fn.Linear(WIDTH, 2), seed=0)
    fn.Trainer(model, fn.CrossEntropyLoss(), seed=0).fit(X, np.arange(9) % 2, epochs=1)
    for outputs in ("probabilities", ["classes", "output"]):
        message = onnx_runs.exported(model, tmp_path, outputs=outputs)
        found = [output.name for output in message.graph.output]
        assert found == ([outputs] if isinstance(outputs, str) else outputs)


def test_names_and_metadata(tmp_path):
    """The parameters are those of state_dict, to the bit, but for what is folded."""
    onnx = pytest.importorskip("onnx")
    pandas = pytest.importorskip("pandas")
    layers = fn.Linear(WIDTH, 4), fn.BatchNorm1d(4), fn.ReLU(), fn.Linear(4, 1)
    model = fn.Sequential(*layers, seed=0)
    frame = pandas.DataFrame(X, columns=list("abcdeé"))
    fn.Trainer(model, fn.MSELoss(), seed=0).fit(frame, X[:, 0], epochs=1)
    message = onnx_runs.exported(model, tmp_path, metadata={"author": "me"})
    assert message.ir_version == 8 and message.producer_name == "fastnet"
    assert message.producer_version == fn.__version__
    kept = {p.key: p.value for p in message.metadata_props}
    assert kept == {"author": "me", "feature_names": '["a", "b", "c", "d", "e", "é"]'}
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in message.graph.initializer}
    state = model.state_dict()
    assert sorted(name for name in arrays if name in state) == ["3.bias", "3.weight"]
    for name in ("3.bias", "3.weight"):
        np.testing.assert_array_equal(arrays[name], state[name], strict=True)
    (given,), (output,) = message.graph.input, message.graph.output
    dims = given.type.tensor_type.shape.dim
    assert given.name == "input" and [d.dim_param or d.dim_value for d in dims] == ["batch", 6]
    assert output.name == "output"
    kinds = [(node.op_type, node.name.split(":")[0]) for node in message.graph.node]
    assert kinds == [
        ("Gemm", "layer 0 (Linear)"),
        ("Relu", "layer 2 (ReLU)"),
        ("Gemm", "layer 3 (Linear)"),
    ]


def test_no_layer_at_all_computes(tmp_path):
    """The output is the input, and a graph may not say so."""
    model = fn.Sequential(fn.Identity())
    message = onnx_runs.agree(model, X.astype("f"), tmp_path, input_shape=WIDTH)
    assert [node.op_type for node in message.graph.node] == ["Identity"]


def test_images(tmp_path):
    model = fn.Sequential(fn.Flatten(), fn.Linear(WIDTH, 2), seed=0)
    with pytest.raises(fn.errors.ShapeError, match=r"input_shape=\(28, 28\)"):
        model.export_onnx(tmp_path / "net.onnx")
    onnx_runs.agree(model, X.astype("f").reshape(9, 2, 3), tmp_path, input_shape=(2, 3))


def test_what_cannot_be_exported_names_the_layer(tmp_path):
    norm = fn.BatchNorm1d(4, track_running_stats=False)
    model = fn.Sequential(fn.Linear(WIDTH, 4), fn.Sequential(norm), seed=0)
    with pytest.raises(fn.errors.UsageError, match=r"^layer 1\.0 \(BatchNorm1d\) cannot be exp"):
        model.export_onnx(tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


BAD = {
    "path is 3;": {"path": 3},
    "a folder": {"path": "."},
    r"opset is 16; expected an integer in \[17, 28\]": {"opset": 16},
    "opset is True": {"opset": True},
    "outputs is 'logits'; expected some of 'output'": {"outputs": "logits"},
    r"outputs is \[\]": {"outputs": []},
    r"outputs is \['output', 'output'\]": {"outputs": ["output", "output"]},
    "outputs is 3": {"outputs": 3},
    "outputs has 'classes', which the model lacks": {"outputs": ["classes"]},
    "input_shape is 0": {"input_shape": 0},
    "input_shape is 'ab'": {"input_shape": "ab"},
    r"input_shape is \(5,\); the model's rows have the shape \(6,\)": {"input_shape": 5},
    "metadata is {'a': 1}; expected texts by name": {"metadata": {"a": 1}},
    "metadata is 7": {"metadata": 7},
    "metadata has 'classes', which the file": {"metadata": {"classes": "mine"}},
    "metadata has 'feature_names', which the file": {"metadata": {"feature_names": "[]"}},
    "metadata has 'link', which the file": {"metadata": {"a": "b", "link": "softmax"}},
    r"metadata has '\\ud800', which is no text": {"metadata": {"a": "\ud800"}},
    r"metadata has 'b\\udfff', which is no text": {"metadata": {"b\udfff": "a"}},
}


@pytest.mark.parametrize("message", BAD)
def test_wrong_arguments_are_refused(message, tmp_path):
    model = fn.Sequential(fn.Linear(WIDTH, 4))
    given = {"path": tmp_path / "net.onnx", **BAD[message]}
    with pytest.raises((fn.errors.HyperparameterError, fn.errors.ShapeError), match=message):
        model.export_onnx(**given)
    assert list(tmp_path.iterdir()) == []


def test_names_that_no_file_keeps_are_refused(tmp_path):
    pandas = pytest.importorskip("pandas")
    model = fn.Sequential(fn.Linear(WIDTH, 1), seed=0)
    frame = pandas.DataFrame(X, columns=pandas.Index([*"abcde", "\ud800"], dtype=object))
    fn.Trainer(model, fn.MSELoss(), seed=0).fit(frame, X[:, 0], epochs=1)
    with pytest.raises(fn.errors.UsageError, match="lone surrogate"):
        model.export_onnx(tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_nested_model_is_exported_with_the_whole(tmp_path):
    inner = fn.Sequential(fn.Linear(WIDTH, 4))
    outer = fn.Sequential(inner)
    with pytest.raises(fn.errors.UsageError, match="call its export_onnx"):
        inner.export_onnx(tmp_path / "net.onnx")
    assert outer[0] is inner


@pytest.mark.parametrize("dtype", DTYPES)
def test_elementary_functions_keep_their_digits(dtype, tmp_path):
    """Those that ONNX lacks, or that onnxruntime lacks for float64, from the smallest to the largest."""
    from fastnet.formulas import erf, expm1, log1p

    @fn.elementwise
    def near_0(x):
        return expm1(x) / (1e-30 + x)

    @fn.elementwise
    def small(x):
        return log1p(x * x) / (1e-30 + x * x)

    @fn.elementwise
    def normal(x):
        return erf(x)

    scales = 10.0 ** np.arange(-12, 1)  # larger results would hide the small ones
    x = np.concatenate([scales, -scales])[:, None] * np.linspace(1, 2.9, 5)
    for layer in (near_0(), small(), normal()):
        model = fn.Sequential(layer, dtype=dtype)
        onnx_runs.agree(model, x.astype(dtype), tmp_path, input_shape=5)
