"""Quantisation after training: `fastnet.quantize`, and what it makes."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fastnet.data.terms import Terms
from fastnet.errors import (
    HyperparameterError,
    UsageError,
    check_choice,
    check_int,
    check_kind,
    check_new_file,
    check_path,
    check_real,
    shown,
)
from fastnet.files import atomic
from fastnet.int8 import c_text, onnx_bytes
from fastnet.int8.chain import Chain, activated, chain_of
from fastnet.int8.layer import Layer, table_of
from fastnet.int8.ranges import CODES, METHODS, Entry, codes_of
from fastnet.losses import links
from fastnet.model import Sequential
from fastnet.model.c_export import checked_target
from fastnet.model.exported import prediction_of
from fastnet.op import Array

TEST_ROWS = 4  # of the self-test in C


@dataclass(frozen=True)
class LayerReport:
    """What quantisation does to the outputs of a layer on the rows of the calibration.

    nbytes: of its constants. low, high: the range that its codes stand for. saturated: the share of
    outputs beyond it. noise: the squared error over the outputs' mean square, in decibels; −40 is one
    percent of the root mean square.
    """

    label: str
    inputs: int
    outputs: int
    nbytes: int
    low: float
    high: float
    saturated: float
    noise: float


@dataclass(frozen=True)
class Report:
    """The size and the accuracy of a quantised net beside the model's.

    nbytes, model_bytes: of the constants of the net, and of the model's parameters and buffers. score,
    model_score: the accuracy, or for numbers R² over all columns; None where no targets are given or the
    model has no loss. agreement: the share of rows with the model's class; None for numbers. `str()` is
    a table.
    """

    layers: tuple[LayerReport, ...]
    nbytes: int
    model_bytes: int
    score: float | None = None
    model_score: float | None = None
    agreement: float | None = None

    def __str__(self) -> str:
        head = ("layer", "shape", "bytes", "range", "saturated", "noise")
        rows = [
            (
                layer.label,
                f"{layer.inputs} → {layer.outputs}",
                f"{layer.nbytes:,}",
                f"{layer.low:.3g} … {layer.high:.3g}",
                f"{100 * layer.saturated:.3f} %",
                f"{layer.noise:.1f} dB",
            )
            for layer in self.layers
        ]
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in (head, *rows)
        ]
        share = 100 * self.nbytes / max(1, self.model_bytes)
        lines.append(f"{self.nbytes:,} bytes of {self.model_bytes:,} ({share:.1f} %)")
        if self.score is not None and self.model_score is not None:
            lines.append(f"score {self.score:.4f}; the model's {self.model_score:.4f}")
        if self.agreement is not None:
            lines.append(f"the model's class in {100 * self.agreement:.2f} % of the rows")
        return "\n".join(lines)


def quantize(
    model: Sequential, X: Any, method: str = "percentile", *, percentile: float = 99.99
) -> Quantized:
    """A trained net as one of 8-bit integers, calibrated on rows X; the model stays as it is.

    model: Sequential, a chain of scalers (StandardScaler, MinMaxScaler, …), Linear, BatchNorm1d, and
        activations of one number, such as ReLU and Tanh; so are the nets of the preset "small" in
        `fn.tabular`. BatchNorm1d and scalers become part of the products. A softmax at the end is left
        out, since it does not change the order of the outputs.
    X: (n, …), n ≥ 1 rows, some hundreds of the training set, say.
    method: how the range of each layer's outputs is chosen from those for X: "percentile" (default) leaves
        out the most extreme ones, "minmax" none, and "mse" takes the range with the least squared error.
    percentile: number in [50, 100] (default 99.99), for that method. The range goes from the
        (100 − percentile)-th to the percentile-th percentile.

    Codes q in 0 … 255 stand for scale·(q − zero), with a scale and a zero point for each layer's outputs;
    weights are −127 … 127 with a scale for each output, sums int32. A fixed-point multiplication with
    rounding to the nearest takes the sums to the next codes. A rectifier is the lower end of its range,
    and another activation a table of 256 codes. So no step of a prediction needs floating point.

    Raises UsageError, with the layer's name, for a layer that has no form of integers, DataError and
    ShapeError for X as `model.predict` does.
    Source: B. Jacob et al., "Quantization and training of neural networks for efficient
    integer-arithmetic-only inference", CVPR 2018.
    """
    check_kind("model", model, Sequential)
    method = check_choice("method", method, METHODS)
    percentile = check_real("percentile", percentile, low=50.0, high=100.0)
    x = model.on_host("X", model.features("X", X))
    if not isinstance(x, np.ndarray):
        raise HyperparameterError(
            f"X is {shown(X)}, whose rows are made when they are read; expected an array, X[:1000] made "
            "dense say"
        )
    if len(x) == 0:
        raise HyperparameterError("X has no rows; expected some, to calibrate the ranges on")
    model.predict(x[:1])
    shape = tuple(x.shape[1:])
    with model.training_lock():
        chain = chain_of(prediction_of(model, shape))
    if chain.left_out and model._terms.link in links.OF_TRUTHS:
        raise UsageError(
            f"the {chain.left_out} at the end makes probabilities of several truths, which have no form of "
            "integers; train a model that ends with Linear, by BCEWithLogitsLoss"
        )
    x = np.asarray(x, np.float64).reshape(len(x), -1)
    if not np.isfinite(x).all():
        raise HyperparameterError("X has numbers that are not finite; expected finite ones")
    h, table = chain.front(x), None
    given = codes = codes_of(h, method, percentile)
    if chain.front.activations:
        h = activated(chain.front.activations, h)
        given = codes_of(h, method, percentile)
        table = table_of(partial(activated, chain.front.activations), codes, given)
    entry = Entry(codes, table, given)
    layers, values = [], []
    for product in chain.products:
        sums = h @ product.w + product.b
        h = product.activated(sums)
        after = codes_of(h, method, percentile)
        by_table = bool(product.activations) and not product.rectifies
        before = codes_of(sums, method, percentile) if by_table else after
        layers.append(Layer.of(product, given, before, after))
        values.append(h)
        given = after
    made = Quantized(chain, entry, layers, shape, model._terms, _bytes_of(model))
    made._calibrate(x, values)
    return made


def _bytes_of(model: Sequential) -> int:
    return sum(np.asarray(value).nbytes for value in model.state_dict().values())


class Quantized:
    """A net of 8-bit integers, made by `fastnet.quantize`.

    layers: its layers, with their integers. `shape`: that of a row. nbytes: of its constants.
    """

    def __init__(
        self,
        chain: Chain,
        entry: Entry,
        layers: list[Layer],
        shape: tuple[int, ...],
        terms: Terms,
        model_bytes: int,
    ) -> None:
        self.layers, self.shape = tuple(layers), shape
        self._front, self._entry, self._left_out = chain.front, entry, chain.left_out
        self._terms, self._link = terms, terms.link
        self._classes = None if terms.classes is None else np.asarray(terms.classes)
        self._model_bytes = model_bytes
        self._reports: tuple[LayerReport, ...] = ()
        self._rows = np.empty((0, layers[0].w.shape[0]), np.uint8)

    def __repr__(self) -> str:
        widths = [self.layers[0].w.shape[0], *(layer.w.shape[1] for layer in self.layers)]
        return f"Quantized({' → '.join(map(str, widths))}, {self.nbytes} bytes)"

    @property
    def nbytes(self) -> int:
        """The bytes of its constants."""
        return sum(layer.nbytes for layer in self.layers)

    @property
    def output_scale(self) -> float:
        """What a step of an output's code stands for."""
        return self.layers[-1].after.scale

    @property
    def output_zero(self) -> int:
        """The code of the output 0."""
        return self.layers[-1].after.zero

    def quantize_inputs(self, X: Any) -> Array:
        """The codes of rows X (n, …), uint8 (n, inputs).

        Numbers are float32, as in C, where NaN has the code 0, too.
        """
        return self._entry_map(self._checked(X))

    def predict_codes(self, X: Any) -> Array:
        """The codes of the outputs for rows X (n, …), uint8 (n, outputs), by integers alone."""
        return self._run(self.quantize_inputs(X))

    def predict(self, X: Any) -> Array:
        """The outputs for rows X (n, …), float32 (n, outputs): the numbers that the codes stand for."""
        return self.layers[-1].after.numbers(self.predict_codes(X))

    def predict_classes(self, X: Any) -> Array:
        """The class of each row of X, as `Sequential.predict_classes`."""
        if self._link is None or self._link not in links.OF_CLASSES:
            raise UsageError(
                "predict_classes: no trainer with a loss of classes had trained the model; take "
                "predict(X), or predict_codes(X).argmax(axis=1)"
            )
        found = links.decisions(self._link, self.predict(X))
        return found if self._classes is None or found.ndim > 1 else self._classes[found]

    def report(self, X: Any = None, y: Any = None, *, model: Sequential | None = None) -> Report:
        """What quantisation costs: bytes, and the noise and saturation of each layer in the calibration.

        X, y: rows with targets (default None: none). model: the model from which this was made. With all
        three the report has the scores of both on these rows, and for classes how often they agree.
        """
        own = self._reports, self.nbytes, self._model_bytes
        if X is None and y is None and model is None:
            return Report(*own)
        if X is None or y is None or model is None:
            raise HyperparameterError(
                "report: some of X, y and model are None; expected all three for scores, or none of them"
            )
        check_kind("model", model, Sequential)
        if self._link is not None and self._link in links.OF_CLASSES:
            ours, theirs, true = self.predict_classes(X), model.predict_classes(X), np.asarray(y)
            if true.dtype.kind in "SUO" and ours.dtype.kind not in "SUO":
                raise HyperparameterError(
                    f"y has labels of {true.dtype}; expected the model's, of {ours.dtype}"
                )
            if true.shape != ours.shape:
                true = true.reshape(ours.shape) if true.size == ours.size else true
            if true.shape != ours.shape:
                raise HyperparameterError(
                    f"y has the shape {true.shape}; expected the classes of the rows, {ours.shape}"
                )
            shares = (np.mean(ours == true), np.mean(theirs == true), np.mean(ours == theirs))
            return Report(*own, *map(float, shares))
        found, wanted = self.predict(X).astype(np.float64), model.predict(X).astype(np.float64)
        if self._left_out:
            found = links.softmax(found)
            found = np.log(found) if self._left_out == "log_softmax" else found
        true = np.asarray(y, np.float64)
        if true.size != found.size:
            raise HyperparameterError(
                f"y has the shape {true.shape}; expected the targets of the rows, {found.shape}"
            )
        true = true.reshape(found.shape)
        return Report(*own, _r2(found, true), _r2(wanted.reshape(found.shape), true))

    def export_c(self, path: Any, name: str = "net") -> tuple[Path, Path]:
        """Write the net as C99, a source file and its header beside it; returns their paths.

        path: of the source file, net.c say; files that are there are replaced. name: the prefix of all
        names (default "net"). `docs/int8.md` tells how a program uses them. Raises HyperparameterError for
        another path or name.
        """
        target = checked_target(path, name)
        header = check_new_file("path", target.with_suffix(".h"))
        front = c_text.Front(self._front.rounded(), self._entry)
        texts = c_text.files(name, header.name, list(self.layers), front, self._rows)
        for file, text in zip((target, header), texts, strict=True):
            atomic.replace(file, [text.encode("utf-8")])
        return target, header

    def export_onnx(self, path: Any, opset: int = 17) -> None:
        """Write the net as an ONNX file of quantised operators.

        path: of the file. opset: integer, 17 (default) to 28. The input "input" is float32 (batch, …); the
        outputs are "codes", uint8 (batch, outputs), those of `predict_codes`, and "output", float32, those
        of `predict`. Products are QLinearConv with kernels of size 1, which has biases. Its weights are
        uint8 with the zero point 128: onnxruntime's products of uint8 and int8 saturate on processors
        without VNNI.
        """
        target = check_path("path", path)
        if target.is_dir():
            raise HyperparameterError(
                f"path is {shown(str(path))}, a folder; expected the path of a file, as 'net.onnx'"
            )
        opset = check_int("opset", opset, low=onnx_bytes.OLDEST_OPSET, high=onnx_bytes.NEWEST_OPSET)
        version = sys.modules["fastnet"].__version__
        data = onnx_bytes.model_bytes(
            self._front.rounded(),
            self._entry,
            list(self.layers),
            self.shape,
            opset,
            ("fastnet", version),
        )
        atomic.replace(target, [data])

    def _checked(self, X: Any) -> Array:
        self._terms.check_columns("X", X)
        try:
            x = np.asarray(X)
        except ValueError:  # lists of different lengths
            x = np.empty((), object)
        if x.dtype.kind not in "fiub" or x.ndim < 1 or tuple(x.shape[1:]) != self.shape:
            raise HyperparameterError(
                f"X is {shown(X)}; expected an array of numbers of shape (n, "
                f"{', '.join(map(str, self.shape))})"
            )
        with np.errstate(over="ignore"):
            return x.reshape(len(x), math.prod(self.shape)).astype(np.float32)

    def _entry_map(self, x: Array) -> Array:
        front, entry = self._front.rounded(), self._entry
        with np.errstate(all="ignore"):
            t = ((x - front.centre) * front.factor + front.offset) / np.float32(entry.codes.scale)
            q = np.clip(np.rint(np.nan_to_num(t, nan=-np.inf)) + entry.codes.zero, 0, CODES - 1)
        found: Array = q.astype(np.uint8)
        return found if entry.table is None else np.asarray(entry.table[found])

    def _steps(self, codes: Array) -> Iterator[Array]:
        for layer in self.layers:
            codes = layer(codes)
            yield codes

    def _run(self, codes: Array) -> Array:
        *_, found = self._steps(codes)
        return found

    def _calibrate(self, x: Array, values: list[Array]) -> None:
        """Report the layers, whose outputs in the model are these, and keep rows for the self-test."""
        codes = self._entry_map(x.astype(np.float32))
        self._rows = np.unique(codes[:64], axis=0)[:TEST_ROWS]
        reports = []
        for layer, steps, real in zip(self.layers, self._steps(codes), values, strict=True):
            error = np.square(layer.after.numbers(steps) - real).mean()
            power = np.square(real).mean()
            noise = 10 * np.log10(max(float(error / power), 1e-30)) if power > 0 else 0.0
            reports.append(
                LayerReport(
                    layer.label,
                    layer.w.shape[0],
                    layer.w.shape[1],
                    layer.nbytes,
                    layer.after.low,
                    layer.after.high,
                    layer.after.saturated(real),
                    float(noise),
                )
            )
        self._reports = tuple(reports)


def _r2(found: Array, true: Array) -> float:
    """1 − the sum of squared errors over that of the distances from the mean."""
    rest = np.square(found - true).sum()
    return float(1 - rest / max(np.square(true - true.mean(axis=0)).sum(), 1e-300))
