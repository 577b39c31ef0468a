"""Models of Keras's dense models."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from fastnet import layers as fl
from fastnet.errors import (
    FastnetError,
    FileError,
    HyperparameterError,
    MissingExtra,
    UsageError,
    check_path,
    shown,
)
from fastnet.interop.branches import Branches
from fastnet.interop.torch_table import listed
from fastnet.interop.values import layer_of, vector
from fastnet.layers.base import Layer
from fastnet.model import Sequential

DTYPES = ("float32", "float64")


class Unsupported(Exception):
    """A layer of Keras has none here; the message says why."""


def from_keras(model: Any) -> Sequential:
    """The model of a dense model of Keras 3, with copies of its weights, in evaluation mode.

    model: a keras.Sequential or a functional keras.Model with one input and one output, also with others in
        it, on any backend; or the path of a ".keras" file, which Keras reads, without code of the file
        (safe_mode).

    Layers: Dense with its activation, BatchNormalization, LayerNormalization, Activation and the layers of
    activations, Dropout, AlphaDropout, GaussianNoise, Flatten, Identity, Add, Subtract, Multiply,
    Concatenate; Rescaling and Normalization become a frozen Scale and Bias. Operators add, subtract,
    multiply and concatenate values of the model, none with constants. A layer that stands in several
    places is one layer; with trainable=False it is frozen. Names in `state_dict` are fastnet's. Keras's
    momentum of BatchNormalization is 1 minus PyTorch's and fastnet's. The dtype is that of the weights.

    Raises UsageError for layers that fastnet lacks or that are called with training=True, and lists all of
    them, and MissingExtra without Keras.
    """
    keras = _keras()
    if isinstance(model, (str, os.PathLike)):
        path = check_path("model", model)
        if not os.path.exists(path):
            raise FileNotFoundError(f"{path} is not there")
        try:
            model = keras.saving.load_model(path, compile=False)
        except Exception as error:  # of many kinds, by Keras and by what it reads with
            raise FileError(f"{path} cannot be read by Keras: {shown(str(error))}") from None
    if not isinstance(model, keras.Model):
        raise HyperparameterError(
            f"model is {shown(model)}; expected a keras.Model, or the path of a .keras file"
        )
    return _Reader(keras, model).model()


def _keras() -> Any:
    try:
        import keras
    except ImportError as error:
        raise MissingExtra(f"from_keras needs Keras 3 ({error}): pip install keras") from None
    return keras


class _Reader:
    def __init__(self, keras: Any, model: Any) -> None:
        self.keras, self.whole = keras, model
        found = {str(w.dtype) for w in model.weights if "seed" not in w.path}
        found = {dtype for dtype in found if dtype.startswith(("float", "bfloat"))}
        if len(found) > 1 or not found <= {*DTYPES}:
            raise UsageError(
                f"model has weights of the dtypes {', '.join(sorted(found))}; expected float32 or float64 "
                "alone"
            )
        self.dtype = found.pop() if found else "float32"
        self.made: dict[int, list[Layer]] = {}
        self.missing: list[str] = []

    def model(self) -> Sequential:
        """The model."""
        try:
            layers = self._model(self.whole, "")
        except Unsupported as error:
            raise UsageError(f"model {error}") from None
        if self.missing:
            raise UsageError(f"fastnet has no layers for these of Keras: {listed(self.missing)}")
        try:
            found = Sequential(*(layers or [fl.Identity()]), dtype=self.dtype)
            found.bind()
        except FastnetError as error:
            raise UsageError(f"model cannot be made: {error}") from None
        return found.eval()

    def _model(self, model: Any, prefix: str) -> list[Layer]:
        """The layers of a model of Keras."""
        if isinstance(model, self.keras.Sequential):
            if not model.built:
                raise Unsupported("is not built: call it on some rows, or give it an Input")
            return [layer for part in model.layers for layer in self._layers(part, prefix)]
        if type(model).__name__ != "Functional" or not _is_keras(model):
            raise Unsupported(
                "is a subclass of keras.Model with code of its own; expected a functional model"
            )
        if len(model.inputs) != 1 or len(model.outputs) != 1:
            raise Unsupported(
                f"has {len(model.inputs)} inputs and {len(model.outputs)} outputs; expected one of each"
            )
        return self._graph(model, prefix)

    def _graph(self, model: Any, prefix: str) -> list[Layer]:
        """The layers of a functional model."""
        (start,), (end,) = model.inputs, model.outputs
        branches = Branches(str(id(start)))
        for depth in sorted(model._nodes_by_depth, reverse=True):
            for node in model._nodes_by_depth[depth]:
                if not node.is_input:
                    self._node(node, branches, prefix)
        return branches.path(str(id(end)))

    def _node(self, node: Any, branches: Branches, prefix: str) -> None:
        """A use of a layer."""
        part, given = node.operation, [str(id(tensor)) for tensor in node.input_tensors]
        (output,) = (str(id(tensor)) for tensor in node.outputs[:1])
        kind = JOINS.get(type(part).__name__)
        row = tuple(node.outputs[0].shape[1:])
        why = self._unread(node, kind)
        if why:
            self._miss(part, prefix, why)
            branches.add(output, given[0], [])
            return
        if len(given) == 1 and kind is None:
            branches.add(output, given[0], self._layers(part, prefix))
            return
        try:
            if kind is None or not _is_keras(part):
                raise ValueError("it joins several values")
            if (kind is fl.Concat and part.axis not in (-1, 1)) or len(row) != 1:
                raise ValueError("it joins rows in another way than fastnet's")
            negative = list[Layer]()
            if type(part).__name__ == "Subtract":
                values = {"weight": np.full(row, -1.0)}
                negative = [layer_of(fl.Scale, *row, values=values, dtype=self.dtype).freeze()]
            branches.join(output, kind, given, negative)
        except ValueError as error:
            self._miss(part, prefix, str(error))
            branches.add(output, given[0], [])

    def _unread(self, node: Any, kind: Any) -> str:
        """What a use of a layer has beside values of the model, which alone are read; "" is nothing."""
        if kind is None and not isinstance(node.operation, self.keras.layers.Layer):
            return "it is an operator, no layer"
        if node.arguments.kwargs.get("training"):
            return "it is called with training=True"
        named = {n: value for n, value in node.arguments.kwargs.items() if n != "training"}
        for value in self.keras.tree.flatten((node.arguments.args, named)):
            if value is not None and not isinstance(value, self.keras.KerasTensor):
                return "it is called with a constant; Rescaling and Normalization may hold such"
        return ""

    def _layers(self, part: Any, prefix: str) -> list[Layer]:
        """The layers of a layer of Keras, the same ones in all its places."""
        if id(part) not in self.made:
            self.made[id(part)] = self._made(part, prefix)
        return self.made[id(part)]

    def _made(self, part: Any, prefix: str) -> list[Layer]:
        try:
            if isinstance(part, self.keras.Model):
                return self._model(part, f"{prefix}{part.name}/")
            read = TABLE.get(type(part).__name__) if _is_keras(part) else None
            if read is None:
                raise Unsupported("")
            found = read(part, self.dtype)
        except (FastnetError, Unsupported, ValueError) as error:
            self._miss(part, prefix, str(error))
            return []
        for layer in found:
            if part.weights and not part.trainable:
                layer.freeze()
        return found

    def _miss(self, part: Any, prefix: str, why: str) -> None:
        text = f"{prefix}{part.name} ({type(part).__name__}{why and ': '}{why})"
        if text not in self.missing:
            self.missing.append(text)


def _is_keras(part: Any) -> bool:
    return type(part).__module__.split(".")[0] == "keras"


def _array(weight: Any) -> Any:
    """The value of a weight, on any backend."""
    with warnings.catch_warnings():  # Keras 3.15 warns of itself on the backend of PyTorch
        warnings.simplefilter("ignore", DeprecationWarning)
        return np.asarray(_keras().ops.convert_to_numpy(weight))


def activation(function: Any) -> list[Layer]:
    """The layers of an activation function of Keras."""
    name = getattr(function, "__name__", "")
    own = getattr(function, "__module__", "").split(".")[0] == "keras"
    if not own or name not in ACTIVATIONS:
        raise Unsupported(f"its activation is {name or shown(function)}")
    return ACTIVATIONS[name]()


# Keras's functions of these names, with their default arguments.
ACTIVATIONS: dict[str, Callable[[], list[Layer]]] = {
    "celu": lambda: [fl.ELU()],
    "elu": lambda: [fl.ELU()],
    "gelu": lambda: [fl.GELU()],
    "hard_sigmoid": lambda: [fl.Hardsigmoid()],
    "hard_silu": lambda: [fl.Hardswish()],
    "hard_tanh": lambda: [fl.Hardtanh()],
    "leaky_relu": lambda: [fl.LeakyReLU(0.2)],
    "linear": list,
    "log_sigmoid": lambda: [fl.LogSigmoid()],
    "log_softmax": lambda: [fl.LogSoftmax()],
    "mish": lambda: [fl.Mish()],
    "relu": lambda: [fl.ReLU()],
    "relu6": lambda: [fl.ReLU6()],
    "selu": lambda: [fl.SELU()],
    "sigmoid": lambda: [fl.Sigmoid()],
    "silu": lambda: [fl.SiLU()],
    "softmax": lambda: [fl.Softmax()],
    "softplus": lambda: [fl.Softplus()],
    "softsign": lambda: [fl.Softsign()],
    "tanh": lambda: [fl.Tanh()],
}


def _dense(part: Any, dtype: str) -> list[Layer]:
    if getattr(part, "lora_enabled", False) or getattr(part, "quantization_mode", None):
        raise Unsupported("it is quantised or has LoRA weights")
    weight = _array(part.kernel)
    values = {"weight": weight.T}
    if part.use_bias:
        values["bias"] = _array(part.bias)
    given = (*weight.shape, part.use_bias)
    return [layer_of(fl.Linear, *given, values=values, dtype=dtype), *activation(part.activation)]


def _of_columns(part: Any) -> None:
    """Raise Unsupported where an axis is not that of the columns."""
    axis = part.axis
    axes = tuple(axis) if isinstance(axis, (list, tuple)) else (axis,)
    if axes not in ((-1,), (1,)):
        raise Unsupported(f"axis is {axis}")


def _batchnorm(part: Any, dtype: str) -> list[Layer]:
    _of_columns(part)
    mean = _array(part.moving_mean)
    ends = {"weight": (part.scale, "gamma", 1.0), "bias": (part.center, "beta", 0.0)}
    values = {
        name: _array(getattr(part, theirs)) if there else np.full(mean.shape, default)
        for name, (there, theirs, default) in ends.items()
    }
    values |= {"running_mean": mean, "running_var": _array(part.moving_variance)}
    values["num_batches_tracked"] = np.zeros((), np.int64)
    momentum = round(1.0 - part.momentum, 12)
    return [layer_of(fl.BatchNorm1d, mean.size, part.epsilon, momentum, values=values, dtype=dtype)]


def _layernorm(part: Any, dtype: str) -> list[Layer]:
    _of_columns(part)
    if getattr(part, "rms_scaling", False):
        raise Unsupported("it has rms_scaling")
    weight = _array(part.gamma) if part.scale else np.ones(_width(part))
    values = {"weight": weight, "bias": _array(part.beta) if part.center else None}
    values = {name: value for name, value in values.items() if value is not None}
    return [
        layer_of(
            fl.LayerNorm,
            weight.size,
            part.epsilon,
            bias=bool(part.center),
            values=values,
            dtype=dtype,
        )
    ]


def _relu(part: Any, dtype: str) -> list[Layer]:
    if part.threshold or (part.negative_slope and part.max_value is not None):
        raise Unsupported("it has a threshold, or both a bound and a negative slope")
    if part.negative_slope:
        return [fl.LeakyReLU(float(part.negative_slope))]
    if part.max_value is None:
        return [fl.ReLU()]
    return [fl.ReLU6() if part.max_value == 6 else fl.Hardtanh(0.0, float(part.max_value))]


def _prelu(part: Any, dtype: str) -> list[Layer]:
    slopes = _array(part.alpha).reshape(-1)
    return [layer_of(fl.PReLU, slopes.size, values={"weight": slopes}, dtype=dtype)]


def _softmax(part: Any, dtype: str) -> list[Layer]:
    _of_columns(part)
    return [fl.Softmax()]


def _affine(factor: Any, summand: Any, width: int, dtype: str) -> list[Layer]:
    """x·factor + summand, frozen."""
    scale, shift = (vector(np.asarray(v), width) for v in (factor, summand))
    made: list[Layer] = [
        layer_of(fl.Scale, width, values={"weight": scale}, dtype=dtype),
        layer_of(fl.Bias, width, values={"bias": shift}, dtype=dtype),
    ]
    return [layer.freeze() for layer in made]


def _rescaling(part: Any, dtype: str) -> list[Layer]:
    return _affine(part.scale, part.offset, _width(part), dtype)


def _normalization(part: Any, dtype: str) -> list[Layer]:
    """(x − mean)/max(√variance, epsilon), as Keras computes it; the mean is taken off first."""
    _of_columns(part)
    if getattr(part, "invert", False):
        raise Unsupported("it has invert=True")
    mean, variance = _array(part.mean), _array(part.variance)
    width, least = _width(part), part._epsilon if hasattr(part, "_epsilon") else 1e-7
    shift = vector(-mean, width)
    scale = vector(1 / np.maximum(np.sqrt(variance), least), width)
    made: list[Layer] = [
        layer_of(fl.Bias, width, values={"bias": shift}, dtype=dtype),
        layer_of(fl.Scale, width, values={"weight": scale}, dtype=dtype),
    ]
    return [layer.freeze() for layer in made]


def _width(part: Any) -> int:
    """The number of columns of a layer's only input."""
    shape = tuple(part.input.shape)
    if len(shape) != 2 or shape[1] is None:
        raise Unsupported(f"its input has shape {shape}")
    return int(shape[1])


def _flatten(part: Any, dtype: str) -> list[Layer]:
    return [fl.Flatten()]


TABLE: dict[str, Callable[[Any, str], list[Layer]]] = {
    "Activation": lambda part, _: activation(part.activation),
    "ActivityRegularization": lambda part, _: [],
    "AlphaDropout": lambda part, _: [fl.AlphaDropout(float(part.rate))],
    "BatchNormalization": _batchnorm,
    "Dense": _dense,
    "Dropout": lambda part, _: [fl.Dropout(float(part.rate))],
    "ELU": lambda part, _: [fl.ELU(float(part.alpha))],
    "Flatten": _flatten,
    "GaussianNoise": lambda part, _: [fl.GaussianNoise(float(part.stddev))],
    "Identity": lambda part, _: [],
    "InputLayer": lambda part, _: [],
    "LayerNormalization": _layernorm,
    "LeakyReLU": lambda part, _: [fl.LeakyReLU(float(part.negative_slope))],
    "Normalization": _normalization,
    "PReLU": _prelu,
    "ReLU": _relu,
    "Rescaling": _rescaling,
    "Softmax": _softmax,
}
JOINS = {
    "Add": fl.Add,
    "Concatenate": fl.Concat,
    "Multiply": fl.Multiply,
    "Subtract": fl.Add,
}
