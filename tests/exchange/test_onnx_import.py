"""Models of ONNX files, also of those that other programs have written."""

from __future__ import annotations

import warnings

import numpy as np
import onnx_runs
import pytest
import random_graphs

import fastnet as fn
from fastnet.interop import onnx_layers
from fastnet.layers.pointwise import Activation
from fastnet.onnx import reading

FileError = fn.errors.FileError
RANDOM = np.random.default_rng(5)
X = RANDOM.normal(size=(7, 4)).astype("f")


def saved(path, nodes, constants=(), *, shape=("n", 4), outputs=("y",), opset=17, kind=1, ml=False):
    """A file with these nodes, (operator, inputs, output, attributes), and constants by name."""
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    made = [
        helper.make_node(
            op.removeprefix("ml."),
            inputs,
            [out] if isinstance(out, str) else out,
            domain="ai.onnx.ml" if op.startswith("ml.") else "",
            **dict(*more),
        )
        for op, inputs, out, *more in nodes
    ]
    graph = helper.make_graph(
        made,
        "graph",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(name, kind, None) for name in outputs],
        [onnx.numpy_helper.from_array(np.asarray(v), n) for n, v in dict(constants).items()],
    )
    versions = [helper.make_opsetid("", opset)] + [helper.make_opsetid("ai.onnx.ml", 1)] * ml
    message = helper.make_model(graph, opset_imports=versions, ir_version=8)
    onnx.save(message, path)
    return message


def agree(path, x=X, factor=1.0):
    """Assert that the model of a file computes what onnxruntime does; returns the model."""
    runtime = pytest.importorskip("onnxruntime")
    runtime.set_default_logger_severity(3)
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs() if "float" in o.type or "double" in o.type]
    (wanted,) = session.run(names[:1], {session.get_inputs()[0].name: x})
    model = fn.import_onnx(path)
    onnx_runs.assert_close(model.predict(x), wanted, model.dtype.name, factor)
    assert not model.training
    return model


def numbers(*shape):
    return RANDOM.normal(size=shape).astype("f")


W, B, V4 = numbers(4, 3), numbers(3), np.abs(numbers(4)) + 0.5
GEMMS = {
    "plain": ({}, W, B),
    "transB": ({"transB": 1}, W.T.copy(), B),
    "alpha and beta": ({"alpha": 0.3, "beta": -2.0, "transB": 1}, W.T.copy(), B[None]),
    "a scalar": ({"beta": 0.5}, W, np.float32(0.7)),
    "no bias": ({"alpha": 2.0}, W, None),
}


@pytest.mark.parametrize("kind", GEMMS)
def test_gemm(kind, tmp_path):
    attributes, weight, bias = GEMMS[kind]
    constants = {"w": weight} | ({} if bias is None else {"b": bias})
    saved(tmp_path / "a.onnx", [("Gemm", ["x", *constants], "y", attributes)], constants)
    model = agree(tmp_path / "a.onnx")
    assert [type(la).__name__ for la in model] == ["Linear"]
    if kind in ("plain", "transB"):
        np.testing.assert_array_equal(model[0].weight, W.T, strict=True)
        np.testing.assert_array_equal(model[0].bias, B, strict=True)


SIMPLE = {
    "Relu": {},
    "Sigmoid": {},
    "Tanh": {},
    "Elu": {"alpha": 0.7},
    "Selu": {},
    "LeakyRelu": {"alpha": 0.3},
    "HardSigmoid": {"alpha": 0.25, "beta": 0.4},
    "HardSwish": {},
    "Softplus": {},
    "Softsign": {},
    "Softmax": {"axis": 1},
    "LogSoftmax": {"axis": -1},
    "Celu": {"alpha": 0.6},
    "Identity": {},
    "Neg": {},
    "Flatten": {"axis": 1},
}


@pytest.mark.parametrize("op", SIMPLE)
def test_operators_of_one_input(op, tmp_path):
    saved(tmp_path / "a.onnx", [(op, ["x"], "y", SIMPLE[op])])
    agree(tmp_path / "a.onnx")


SECOND = np.array([0.5, -1.0, 2.0, 3.0], "f")
# Nodes, constants, and the layers that they become.
GRAPHS = {
    "a product and its bias": (
        [("MatMul", ["x", "w"], "h"), ("Add", ["b", "h"], "y")],
        {"w": W, "b": B[None]},
        ["Linear"],
    ),
    "a product that is read twice": (
        [
            *(("MatMul", ["x", "w"], "h"), ("Add", ["h", "b"], "g"), ("Add", ["g", "h"], "y")),
        ],
        {"w": W, "b": B},
        ["Linear", "Residual"],
    ),
    "batchnorm": (
        [("BatchNormalization", ["x", "v", "w", "u", "v"], "y", {"epsilon": 1e-3})],
        {"v": V4, "w": SECOND, "u": -SECOND},
        ["BatchNorm1d"],
    ),
    "layernorm": (
        [("LayerNormalization", ["x", "v", "w"], "y", {"epsilon": 0.01})],
        {"v": V4, "w": SECOND},
        ["LayerNorm"],
    ),
    "layernorm without bias": (
        [("LayerNormalization", ["x", "v"], "y", {"axis": 1})],
        {"v": V4},
        ["LayerNorm"],
    ),
    "layernorm by a number": (
        [("LayerNormalization", ["x", "v", "w"], "y", {"epsilon": 0.01})],
        {"v": V4[:1], "w": SECOND[:1]},
        ["LayerNorm"],
    ),
    "layernorm by a row": (
        [("LayerNormalization", ["x", "v", "w"], "y", {"epsilon": 0.01})],
        {"v": V4[None], "w": SECOND[:1]},
        ["LayerNorm"],
    ),
    "layernorm in several nodes by a number": (
        [
            ("ReduceMean", ["x"], "m", {"axes": [-1]}),
            *(("Sub", ["x", "m"], "d"), ("Pow", ["d", "two"], "p")),
            ("ReduceMean", ["p"], "q", {"axes": [-1]}),
            *(("Add", ["q", "e"], "r"), ("Sqrt", ["r"], "s"), ("Div", ["d", "s"], "n")),
            *(("Mul", ["n", "v"], "o"), ("Add", ["o", "w"], "y")),
        ],
        {"v": V4[:1], "w": SECOND, "two": np.float32(2), "e": np.float32(0.01)},
        ["LayerNorm"],
    ),
    "prelu": ([("PRelu", ["x", "v"], "y")], {"v": V4[None]}, ["PReLU"]),
    "constants before rows": (
        [("Sub", ["c", "x"], "h"), ("Mul", ["v", "h"], "y")],
        {"v": V4, "c": np.float32(0.5)},
        ["Scale", "Bias", "Scale"],
    ),
    "constants after rows": (
        [("Sub", ["x", "v"], "h"), ("Div", ["h", "v"], "y")],
        {"v": V4},
        ["Bias", "Scale"],
    ),
    "bounds": (
        [("Clip", ["x", "a", "b"], "h"), ("Clip", ["h", "c"], "y")],
        {"a": np.float32(-0.5), "b": np.float32(0.8), "c": np.float32(0)},
        ["Hardtanh", "ReLU"],
    ),
    "a bound by a maximum": ([("Max", ["c", "x"], "y")], {"c": np.float32(0)}, ["ReLU"]),
    "constants that are computed": (
        [
            ("Transpose", ["wt"], "w"),
            ("Mul", ["b", "two"], "b2"),
            ("Unsqueeze", ["b2", "axes"], "b3"),
            ("Gemm", ["x", "w", "b3"], "y"),
        ],
        {"wt": W.T.copy(), "b": B, "two": np.float32(2), "axes": np.array([0])},
        ["Linear"],
    ),
    "nothing": (
        [
            ("Cast", ["x"], "a", {"to": 1}),
            ("Dropout", ["a"], "b"),
            ("Reshape", ["b", "s"], "c"),
            ("Identity", ["c"], "y"),
        ],
        {"s": np.array([-1, 4])},
        ["Dropout"],
    ),
    "columns": (
        [
            ("Gather", ["x", "i"], "a", {"axis": 1}),
            ("Slice", ["a", "b", "e", "one"], "c"),
            ("Concat", ["a", "c"], "y", {"axis": 1}),
        ],
        *({"i": [3, -4, 1], "b": [-2], "e": [2**40], "one": [1]}, ["Columns", "Concat"]),
    ),
    "parts": (
        [
            ("Split", ["x", "s"], ["a", "b"], {"axis": 1}),
            ("Sigmoid", ["b"], "c"),
            ("Concat", ["a", "c"], "d", {"axis": -1}),
            ("Gemm", ["d", "w"], "y"),
        ],
        {"s": np.array([1, 3]), "w": W},
        ["Concat", "Linear"],
    ),
    "a gate, a difference and a sum of three": (
        [
            *(("Sigmoid", ["x"], "s"), ("Mul", ["s", "x"], "m"), ("Tanh", ["m"], "t")),
            *(("Sub", ["m", "t"], "d"), ("Sum", ["d", "m", "t"], "e"), ("Relu", ["d"], "r")),
            *(("Mul", ["e", "r"], "y"),),
        ],
        {},
        ["SiLU", "Multiply"],
    ),
}


@pytest.mark.parametrize("what", GRAPHS)
def test_graphs(what, tmp_path):
    nodes, constants, kinds = GRAPHS[what]
    constants = {n: np.asarray(v) for n, v in constants.items()}
    saved(tmp_path / "a.onnx", nodes, constants)
    model = agree(tmp_path / "a.onnx")
    assert [type(la).__name__ for la in model] == kinds
    frozen = {name.rpartition(".")[0] for name in model.frozen}
    constants = {path for path, la in model.layers if isinstance(la, (fn.Scale, fn.Bias))}
    assert frozen == constants


def test_values_of_float64(tmp_path):
    onnx = pytest.importorskip("onnx")
    w = RANDOM.normal(size=(4, 3))
    saved(
        tmp_path / "a.onnx", [("MatMul", ["x", "w"], "y")], {"w": w}, kind=onnx.TensorProto.DOUBLE
    )
    model = agree(tmp_path / "a.onnx", X.astype("d"))
    np.testing.assert_array_equal(model[0].weight, w.T, strict=True)


@pytest.mark.parametrize("opset", [7, 9, 10, 11, 13, 17, 21])
def test_versions_of_the_operators(opset, tmp_path):
    """What is an attribute in one version is an input in another."""
    if opset < 11:
        clip = ("Clip", ["x"], "h", {"min": -0.5, "max": 0.5})
    else:
        clip = ("Clip", ["x", "low", "high"], "h")
    slices = ("Slice", ["h", "zero", "two", "one"], "y")
    if opset < 10:
        slices = ("Slice", ["h"], "y", {"axes": [1], "starts": [0], "ends": [2]})
    constants = {"low": np.float32(-0.5), "high": np.float32(0.5)} if opset >= 11 else {}
    constants |= {"zero": [0], "two": [2], "one": [1]} if opset >= 10 else {}
    constants = {n: np.asarray(v) for n, v in constants.items()}
    saved(tmp_path / "a.onnx", [clip, slices], constants, opset=opset)
    model = agree(tmp_path / "a.onnx")
    assert [type(la).__name__ for la in model] == ["Hardtanh", "Columns"]


def test_a_width_that_the_file_does_not_tell(tmp_path):
    """The first product that reads the input knows it."""
    nodes = [("Add", ["x", "one"], "h"), ("Relu", ["h"], "r"), ("MatMul", ["r", "w"], "y")]
    saved(tmp_path / "a.onnx", nodes, {"w": W, "one": np.float32(1)}, shape=("n", "k"))
    assert [type(la).__name__ for la in agree(tmp_path / "a.onnx")] == ["Bias", "ReLU", "Linear"]


def test_images(tmp_path):
    nodes = [("Reshape", ["x", "s"], "h"), ("Gemm", ["h", "w"], "y")]
    saved(tmp_path / "a.onnx", nodes, {"w": W, "s": np.array([0, -1])}, shape=(3, 1, 2, 2))
    model = agree(tmp_path / "a.onnx", numbers(3, 1, 2, 2))
    assert [type(la).__name__ for la in model] == ["Flatten", "Linear"]


def test_one_of_several_outputs(tmp_path):
    nodes = [("Relu", ["x"], "h"), ("ArgMax", ["h"], "label", {"axis": 1}), ("Tanh", ["h"], "y")]
    message = saved(tmp_path / "a.onnx", nodes, outputs=("label", "y", "h"))
    message.graph.output[0].type.tensor_type.elem_type = 7
    (tmp_path / "a.onnx").write_bytes(message.SerializeToString())
    assert [type(la).__name__ for la in fn.import_onnx(tmp_path / "a.onnx")] == ["ReLU", "Tanh"]
    model = fn.import_onnx(tmp_path / "a.onnx", output="h")
    assert [type(la).__name__ for la in model] == ["ReLU"]
    with pytest.raises(fn.errors.HyperparameterError, match=r"output is 'z'; .* has 'label', 'y'"):
        fn.import_onnx(tmp_path / "a.onnx", output="z")
    with pytest.raises(fn.errors.HyperparameterError, match="output is 3"):
        fn.import_onnx(tmp_path / "a.onnx", output=3)


def test_all_that_is_missing_is_listed(tmp_path):
    nodes = [
        *(("Exp", ["x"], "a"), ("MatMul", ["a", "w"], "b"), ("Gemm", ["b", "b"], "c")),
        *(("Softmax", ["b"], "d", {"axis": 0}), ("Max", ["c", "d"], "e")),
        *(("ml.Normalizer", ["e"], "y"),),
    ]
    saved(tmp_path / "a.onnx", nodes, {"w": W}, ml=True)
    with pytest.raises(FileError) as caught:
        fn.import_onnx(tmp_path / "a.onnx")
    assert str(caught.value).endswith(
        "a.onnx has operators that no layer computes: Exp ('a'), Gemm ('c'): it joins several values, "
        "Softmax ('d'): it has axis 0, Max ('e'): it joins several values, "
        "ai.onnx.ml.Normalizer ('y')"
    )


def test_a_long_list_is_cut(tmp_path):
    nodes = [("Exp", ["x" if i == 0 else f"h{i}"], f"h{i + 1}") for i in range(20)]
    saved(tmp_path / "a.onnx", nodes, outputs=("h20",))
    with pytest.raises(FileError, match=r"\('h12'\) and 8 more$"):
        fn.import_onnx(tmp_path / "a.onnx")


def test_every_operator_is_tried():
    """Each entry of the table stands in a test of this file."""
    tried = {op for nodes, *_ in GRAPHS.values() for op, *_ in nodes} | {*SIMPLE}
    later = {"Gelu", "Mish", "Swish", "RMSNormalization"}  # of opset 18 on
    others = {f"{reading.ML}.Scaler", f"{reading.ML}.ZipMap", "Min", "Squeeze"}
    patterns = {name for name in onnx_layers.TABLE if name.startswith("fastnet.")}
    assert {*onnx_layers.TABLE} - tried - patterns == later | others


def test_later_operators(tmp_path):
    onnx = pytest.importorskip("onnx")
    if onnx.defs.onnx_opset_version() < 24:
        pytest.skip("the package onnx does not know them")
    nodes = [
        *(
            ("Gelu", ["x"], "a"),
            ("Gelu", ["a"], "b", {"approximate": "tanh"}),
            ("Mish", ["b"], "c"),
        ),
        *(("Swish", ["c"], "d"), ("RMSNormalization", ["d", "v"], "e", {"epsilon": 0.01})),
        *(("Min", ["e", "big"], "f"), ("Squeeze", ["f", "none"], "y")),
    ]
    constants = {"v": V4, "big": np.float32(np.inf), "none": np.zeros(0, np.int64)}
    message = saved(tmp_path / "a.onnx", nodes, constants, opset=24)
    reference = pytest.importorskip("onnx.reference").ReferenceEvaluator(message)
    (wanted,) = reference.run(None, {"x": X})
    model = fn.import_onnx(tmp_path / "a.onnx")
    onnx_runs.assert_close(model.predict(X), wanted, "float32")
    kinds = ["GELU", "GELU", "Mish", "SiLU", "RMSNorm"]
    assert [type(la).__name__ for la in model] == kinds


# What fastnet writes, and reads again with equal layers and bits.
AGAIN = {
    "layers": lambda: fn.Sequential(
        *(fn.Linear(4, 8), fn.ReLU(), fn.Linear(8, 6, bias=False), fn.Tanh(), fn.LayerNorm(6)),
        *(fn.Sigmoid(), fn.BatchNorm1d(6), fn.PReLU(), fn.ELU(0.3), fn.SELU(), fn.Softsign()),
        *(fn.LeakyReLU(0.2), fn.Hardtanh(-2.0, 0.7), fn.Hardsigmoid(), fn.Hardswish(), fn.GELU()),
        *(fn.SiLU(), fn.RMSNorm(6), fn.Linear(6, 3), fn.LogSoftmax()),
    ),
    "branches": lambda: fn.Sequential(
        fn.Residual(fn.Linear(4, 4), fn.ReLU()),
        fn.Concat(fn.Linear(4, 2), fn.Identity(), fn.Columns([1, 1])),
        fn.Multiply(fn.Linear(8, 3), fn.Sequential(fn.Linear(8, 3), fn.Sigmoid())),
        fn.Add(fn.Linear(3, 2), fn.Linear(3, 2)),
    ),
}


@pytest.mark.parametrize("what", AGAIN)
def test_what_fastnet_has_written_comes_back(what, tmp_path):
    model = onnx_runs.fill(AGAIN[what]())
    model.export_onnx(tmp_path / "a.onnx")
    found = fn.import_onnx(tmp_path / "a.onnx")
    kinds = [[type(la).__name__ for _, la in m.layers] for m in (found, model)]
    assert kinds[0] == kinds[1]
    before, after = model.state_dict(), found.state_dict()
    assert before.keys() == after.keys()
    for name, value in before.items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(after[name], value, strict=True)
    np.testing.assert_array_equal(found.predict(X), model.predict(X))


ACTIVATIONS = [
    name
    for name in fn.layers.__all__
    if isinstance(kind := getattr(fn, name), type) and issubclass(kind, Activation)
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_activations_of_fastnet_come_back(name, dtype, tmp_path):
    """Each one with its default arguments, also where it is written as many nodes."""
    kind = getattr(fn, name)
    layers = fn.Linear(4, 4), kind(), fn.Linear(4, 4), kind(), kind()
    model = onnx_runs.fill(fn.Sequential(*layers, dtype=dtype))
    model.export_onnx(tmp_path / "a.onnx")
    found = fn.import_onnx(tmp_path / "a.onnx")
    assert [repr(layer) for layer in found] == [repr(layer) for layer in model]
    np.testing.assert_array_equal(found.predict(X), model.predict(X))


def test_random_graphs(tmp_path):
    """Files of models with branches and shared layers."""
    count = 0
    for seed in range(250):
        tree = random_graphs.tree(seed)
        if any(name in str(tree) for name in ("Squares", "damped")):
            continue
        model = random_graphs.fastnet_of(tree, dtype=("float32", "float64")[seed % 2], seed=seed)
        x = random_graphs.inputs(tree, 5, seed)
        model.export_onnx(tmp_path / "a.onnx", input_shape=x.shape[1:])
        found = fn.import_onnx(tmp_path / "a.onnx")
        onnx_runs.assert_close(found.predict(x), model.predict(x), model.dtype.name)
        count += 1
    assert count > 50


def test_classes_and_columns_come_back(tmp_path):
    pandas = pytest.importorskip("pandas")
    model = fn.Sequential(fn.Linear(4, 3), seed=0)
    frame = pandas.DataFrame(X, columns=list("abcd"))
    y = np.array(["u", "v", "w"])[np.arange(7) % 3]
    fn.Trainer(model, fn.CrossEntropyLoss(), seed=0).fit(frame, y, epochs=1)
    model.export_onnx(tmp_path / "a.onnx")
    found = fn.import_onnx(tmp_path / "a.onnx")
    assert found.classes_.tolist() == ["u", "v", "w"]
    assert found.feature_names_in_.tolist() == list("abcd")
    np.testing.assert_array_equal(found.predict_proba(X), model.predict_proba(X))
    assert fn.import_onnx(tmp_path / "a.onnx", output="probabilities").classes_ is None


def torch_net(torch):
    nn = torch.nn

    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = nn.Sequential(nn.Linear(4, 4), nn.GELU("tanh"))
            self.g = nn.Linear(4, 4)

        def forward(self, x):
            return torch.cat([self.f(x) + x, self.g(x) * torch.sigmoid(x), x - torch.tanh(x)], 1)

    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 4, bias=False)),
        *(nn.SiLU(), nn.LayerNorm(4), nn.GELU(), Branches(), nn.BatchNorm1d(12), nn.PReLU()),
        *(nn.Mish(), nn.Hardswish(), nn.Softplus(), nn.ReLU6(), nn.ELU(), nn.LeakyReLU(0.2)),
        *(nn.Softsign(), nn.Hardsigmoid(), nn.LogSigmoid(), nn.SELU(), nn.Linear(12, 6), nn.GLU()),
        nn.LogSoftmax(1),
    )
    for _ in range(3):  # running statistics
        net(torch.randn(9, 4))
    return net.eval()


@pytest.mark.parametrize("opset", [11, 13, 17, 20])
def test_a_file_of_torch(opset, tmp_path):
    """Of the exporter without torch.export. It stores folded values under the names of others."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnx")
    net = torch_net(torch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given = {"input_names": ["x"], "dynamic_axes": {"x": {0: "n"}}, "opset_version": opset}
        if opset < 14:
            net[12] = torch.nn.Hardtanh(-1.0, 2.0)
        torch.onnx.export(net, (torch.randn(3, 4),), tmp_path / "a.onnx", dynamo=False, **given)
    model = agree(tmp_path / "a.onnx")
    wanted = net(torch.from_numpy(X)).detach().numpy()
    onnx_runs.assert_close(model.predict(X), wanted, "float32")


def test_rows_as_vectors_by_their_number(tmp_path):
    """x.view(x.size(0), −1): PyTorch writes the shape as nodes."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnx")

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.last = torch.nn.Linear(4, 3)

        def forward(self, x):
            return self.last(x.view(x.size(0), -1))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given = {"input_names": ["x"], "dynamic_axes": {"x": {0: "n"}}, "dynamo": False}
        torch.onnx.export(Net().eval(), (torch.randn(3, 1, 2, 2),), tmp_path / "a.onnx", **given)
    ops = {node.op for node in reading.read(tmp_path / "a.onnx").nodes}
    assert "Shape" in ops
    model = agree(tmp_path / "a.onnx", numbers(5, 1, 2, 2))
    assert [type(la).__name__ for la in model] == ["Flatten", "Linear"]


def test_a_file_of_torch_export(tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    net = torch_net(torch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given = {"dynamo": True, "external_data": False, "verbose": False}
        torch.onnx.export(net, (torch.from_numpy(X),), tmp_path / "a.onnx", **given)
    model = agree(tmp_path / "a.onnx")
    wanted = net(torch.from_numpy(X)).detach().numpy()
    onnx_runs.assert_close(model.predict(X), wanted, "float32")


@pytest.mark.parametrize("kind", ["classes", "two classes", "values"])
def test_a_file_of_skl2onnx(kind, tmp_path):
    pytest.importorskip("onnx")
    skl2onnx = pytest.importorskip("skl2onnx")
    neural = pytest.importorskip("sklearn.neural_network")
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x = RANDOM.normal(size=(60, 4)).astype("f") + 3
    y = np.arange(60) % (3 if kind == "classes" else 2)
    if kind == "values":
        net, y = (
            neural.MLPRegressor(hidden_layer_sizes=[5], activation="logistic", max_iter=5),
            x[:, 0] - x[:, 2],
        )
    else:
        net = neural.MLPClassifier(hidden_layer_sizes=[5, 4], activation="tanh", max_iter=5)
        y = np.array(["a", "b", "c"])[y]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = make_pipeline(StandardScaler(), net).fit(x, y)
    message = skl2onnx.to_onnx(net, x[:1])
    (tmp_path / "a.onnx").write_bytes(message.SerializeToString())
    model = fn.import_onnx(tmp_path / "a.onnx")
    wanted = net.predict(x)[:, None] if kind == "values" else net.predict_proba(x)
    onnx_runs.assert_close(model.predict(x), wanted.astype("f"), "float32")


def test_numbers_in_another_file_are_not_read(tmp_path):
    onnx = pytest.importorskip("onnx")
    message = saved(tmp_path / "b.onnx", [("Gemm", ["x", "w"], "y")], {"w": numbers(4, 300)})
    where = {"save_as_external_data": True, "location": "w.bin", "size_threshold": 0}
    onnx.save(message, tmp_path / "a.onnx", **where)
    with pytest.raises(FileError, match="'w' in another file, which is not opened"):
        fn.import_onnx(tmp_path / "a.onnx")


def test_files_that_are_wrong(tmp_path):
    path = tmp_path / "a.onnx"
    for data in (b"", b"hello world", b"\x08\x08", b"PK\x03\x04" * 10):
        path.write_bytes(data)
        with pytest.raises(FileError, match=r"a\.onnx is no ONNX file that can be read"):
            fn.import_onnx(path)
    saved(path, [("Relu", ["x"], "y")], opset=6)
    with pytest.raises(FileError, match="version 6 of ONNX's operators; expected 7"):
        fn.import_onnx(path)
    saved(path, [("Relu", ["z"], "y")])
    with pytest.raises(FileError, match="it reads 'z', which nothing computes"):
        fn.import_onnx(path)
    saved(path, [("Relu", ["b"], "a"), ("Relu", ["a"], "b"), ("Add", ["a", "x"], "y")])
    with pytest.raises(FileError, match="in a circle"):
        fn.import_onnx(path)
    saved(path, [("Relu", ["x"], "y"), ("Tanh", ["x"], "y")])
    with pytest.raises(FileError, match="two values with the name 'y'"):
        fn.import_onnx(path)
    saved(path, [("Gemm", ["x", "w"], "y")], {"w": W * np.float32(np.nan)})
    with pytest.raises(FileError, match="holds NaN or infinity"):
        fn.import_onnx(path)
    saved(path, [("Gemm", ["x", "w"], "h"), ("Gemm", ["h", "w"], "y")], {"w": W})
    with pytest.raises(FileError, match="expected in_features = 4"):
        fn.import_onnx(path)
    saved(path, [("MatMul", ["x", "w"], "h"), ("Add", ["h", ""], "y")], {"w": W})
    with pytest.raises(FileError, match=r"Add \('y'\): its input 1 is missing"):
        fn.import_onnx(path)
    with pytest.raises(FileNotFoundError):
        fn.import_onnx(tmp_path / "none.onnx")
    with pytest.raises(fn.errors.HyperparameterError, match="path is 3"):
        fn.import_onnx(3)


def test_branches_that_would_be_layers_beyond_number(tmp_path):
    """Each sum reads two before it: every path through them would be a branch of its own."""
    nodes = [("Relu", ["x"], "h0"), ("Tanh", ["x"], "h1")]
    nodes += [("Add", [f"h{i}", f"h{i + 1}"], f"h{i + 2}") for i in range(60)]
    saved(tmp_path / "a.onnx", nodes, outputs=("h61",))
    with pytest.raises(FileError, match="takes too many layers"):
        fn.import_onnx(tmp_path / "a.onnx")


def test_shapes_that_no_data_stand_behind(tmp_path):
    """A few bytes of a file must not become gigabytes."""
    path = tmp_path / "a.onnx"
    nodes = [("Add", ["x", "one"], "h"), ("Mul", ["h", "one"], "y")]
    saved(path, nodes, {"one": np.float32(1)}, shape=("n", 2**40))
    with pytest.raises(FileError, match="much larger than the file"):
        fn.import_onnx(path)
    many = [("Mul", ["a" if i == 0 else f"a{i}", "b"], f"a{i + 1}") for i in range(30)]
    constants = {"a": np.ones((3000, 1), "f"), "b": np.ones((1, 3000), "f")}
    saved(path, [*many, ("Gemm", ["x", "a30"], "y")], constants)
    with pytest.raises(FileError, match=r"Mul \('a\d'\): it computes a constant"):
        fn.import_onnx(path)


def test_damaged_files_raise_errors_of_fastnet(tmp_path):
    """Each is the file with some bits changed, or its first bytes; many still describe a model."""
    model = AGAIN["layers"]()
    model.export_onnx(tmp_path / "a.onnx")
    fn.Sequential(fn.Concat(fn.Linear(2, 3), fn.Columns([1])), fn.GELU()).export_onnx(
        tmp_path / "b.onnx"
    )
    random = np.random.default_rng(0)
    told = set()
    for name in ("a.onnx", "b.onnx"):
        good = (tmp_path / name).read_bytes()
        for trial in range(1500):
            data = bytearray(good)
            if trial % 4 == 0:
                data = data[: random.integers(len(data))]
            else:
                for place in random.integers(len(data), size=1 + trial % 3):
                    data[place] ^= 1 << int(random.integers(8))
            (tmp_path / "c.onnx").write_bytes(data)
            try:
                fn.import_onnx(tmp_path / "c.onnx")
            except FileError as error:
                told.add(str(error))
    assert len(told) > 50 and max(map(len, told)) < 3000
    assert all(str(tmp_path / "c.onnx") in text for text in told)
