"""Models as ONNX files, run by onnxruntime and by the reference evaluator of the package onnx."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastnet as fn

TOLERANCE = {"float32": 1e-5, "float64": 1e-13}


def exported(model: Any, folder: Path, **options: Any) -> Any:
    """The checked message of a model's file."""
    onnx = pytest.importorskip("onnx")
    model.export_onnx(folder / "net.onnx", **options)
    found = onnx.load(folder / "net.onnx")
    onnx.checker.check_model(found, full_check=True)
    return found


def results(message: Any, x: Any) -> list[dict[str, Any]]:
    """What both programs compute: the outputs by name."""
    runtime = pytest.importorskip("onnxruntime")
    reference = pytest.importorskip("onnx.reference")
    runtime.set_default_logger_severity(3)  # it warns of constants that it folds
    session = runtime.InferenceSession(
        message.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in message.graph.output]
    given = {message.graph.input[0].name: x}
    with np.errstate(all="ignore"):  # branches that a Where does not take
        found = reference.ReferenceEvaluator(message).run(names, given)
    both = session.run(names, given), found
    return [dict(zip(names, each, strict=True)) for each in both]


def assert_close(found: Any, wanted: Any, dtype: str, factor: float = 1.0) -> None:
    """Within the tolerance of a dtype, beside the largest number."""
    assert found.shape == wanted.shape and found.dtype == wanted.dtype == dtype
    scale = factor * TOLERANCE[dtype] * max(1.0, float(np.abs(wanted).max()))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=scale)


def agree(model: Any, x: Any, folder: Path, **options: Any) -> Any:
    """Assert that both programs compute what `predict` does; returns the file's message."""
    message = exported(model, folder, outputs="output", **options)
    wanted = model.predict(x)
    for found in results(message, x.astype(model.dtype)):
        assert_close(found["output"], wanted, model.dtype.name)
    return message


def fill(model: Any, seed: int = 0) -> Any:
    """Give every trained number and running statistic a value of its own; returns the model."""
    random = np.random.default_rng(seed)
    preprocessing = fn.preprocess.__all__
    kept = {path for path, layer in model.layers if type(layer).__name__ in preprocessing}
    with model.edit() as values:
        for name, value in values.items():
            if name.rpartition(".")[0] in kept or value.dtype.kind == "i":
                continue
            drawn = random.normal(size=value.shape) * 0.7 + 0.2
            positive = name.endswith(("running_var", "sigma"))
            value[...] = np.abs(drawn) + 0.3 if positive else drawn
    return model
