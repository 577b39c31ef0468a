"""Who predicts: fastnet, ONNX Runtime, PyTorch and NumPy on the same trained-size nets.

A predictor's `run(count)` makes that many predictions of one batch, each a call from Python.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

import fastnet as fn
from contenders.peers import torch_net
from contenders.workloads import WORKLOADS, Workload

CASES = {
    f"{net}, batch {batch}": (net, batch) for net in ("housing", "mnist") for batch in (1, 1024)
}


class Predictor:
    """Calls `predict`, a function without arguments, again and again."""

    quantum = 1

    def __init__(self, predict: Callable[[], Any]) -> None:
        self.predict = predict

    def run(self, count: int) -> Any:
        """`count` calls; returns the last one's output."""
        predict, output = self.predict, None
        for _ in range(count):
            output = predict()
        return output


def _weights(workload: Workload) -> list[tuple[Any, Any]]:
    layers = workload.model("reference")
    return [
        (np.array(layer.weight.T), np.array(layer.bias))
        for layer in layers
        if isinstance(layer, fn.Linear)
    ]


def fastnet_plain(workload: Workload, x: Any) -> Predictor:
    """`model.predict(x)` on the backend that "auto" takes."""
    model = workload.model("auto")
    return Predictor(lambda: model.predict(x))


def fastnet_out(workload: Workload, x: Any) -> Predictor:
    """`model.predict(x, out=y)`."""
    model = workload.model("auto")
    out = np.empty((len(x), workload.widths[-1]), np.float32)
    return Predictor(lambda: model.predict(x, out=out))


def numpy_plain(workload: Workload, x: Any) -> Predictor:
    """Products, sums and maxima, written out."""
    *hidden, (w_last, b_last) = _weights(workload)

    def predict() -> Any:
        h = x
        for w, b in hidden:
            h = np.maximum(h @ w + b, 0)
        return h @ w_last + b_last

    return Predictor(predict)


def torch_plain(workload: Workload, x: Any) -> Predictor:
    """The module in evaluation and inference mode."""
    import torch

    torch.set_num_threads(1)
    net, rows = torch_net(workload).eval(), torch.from_numpy(x)

    def predict() -> Any:
        with torch.inference_mode():
            return net(rows)

    return Predictor(predict)


def onnx_session(workload: Workload) -> Any:
    """ONNX Runtime's session for the net, one thread, every optimisation."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    nodes, tensors, h = [], [], "x"
    weights = _weights(workload)
    for number, (w, b) in enumerate(weights):
        names = f"w{number}", f"b{number}"
        tensors += [numpy_helper.from_array(a, n) for a, n in zip((w, b), names, strict=True)]
        last = number == len(weights) - 1
        product = "y" if last else f"z{number}"
        nodes.append(helper.make_node("Gemm", [h, *names], [product]))
        if not last:
            h = f"h{number}"
            nodes.append(helper.make_node("Relu", [product], [h]))
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", width])
        for name, width in (("x", workload.widths[0]), ("y", workload.widths[-1]))
    ]
    graph = helper.make_graph(nodes, workload.name, ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def onnx_plain(workload: Workload, x: Any) -> Predictor:
    """`session.run`."""
    session, feed = onnx_session(workload), {"x": x}
    return Predictor(lambda: session.run(None, feed)[0])


def onnx_bound(workload: Workload, x: Any) -> Predictor:
    """`session.run_with_iobinding`: inputs and outputs stay where they are."""
    import onnxruntime

    session, binding = (one := onnx_session(workload)), one.io_binding()
    out = np.empty((len(x), workload.widths[-1]), np.float32)
    places = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in (x, out)]
    binding.bind_ortvalue_input("x", places[0])
    binding.bind_ortvalue_output("y", places[1])

    def predict() -> Any:
        session.run_with_iobinding(binding)
        return places[1]

    return Predictor(predict)


MAKERS: dict[str, tuple[tuple[str, ...], Callable[[Workload, Any], Predictor]]] = {
    "fastnet": ((), fastnet_plain),
    "fastnet out=": ((), fastnet_out),
    "NumPy": ((), numpy_plain),
    "PyTorch": (("torch",), torch_plain),
    "ONNX Runtime": (("onnx", "onnxruntime"), onnx_plain),
    "ONNX Runtime bound": (("onnx", "onnxruntime"), onnx_bound),
}


def makers(case: str) -> dict[str, Callable[[], Predictor]]:
    """All who can predict here, on one of CASES."""
    net, batch = CASES[case]
    workload = WORKLOADS[net]
    x = np.ascontiguousarray(np.resize(workload.data()[0], (batch, workload.widths[0])))
    return {
        name: lambda make=make: make(workload, x)
        for name, (modules, make) in MAKERS.items()
        if all(map(importlib.util.find_spec, modules))
    }


def check_same_output(predictors: dict[str, Predictor]) -> None:
    """Assert that all predict the same."""
    outputs = {name: p.run(1) for name, p in predictors.items()}
    arrays = {n: o.numpy() if hasattr(o, "numpy") else np.asarray(o) for n, o in outputs.items()}
    truth = arrays["NumPy"]
    for name, array in arrays.items():
        worst = float(np.abs(array - truth).max())
        if not worst < 1e-4:
            raise AssertionError(f"{name}'s outputs differ from NumPy's by {worst:.1e}")
