"""Record: what happens inside a net while it trains, layer by layer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from fastnet.errors import (
    DataError,
    DivergenceError,
    HyperparameterError,
    StateDictError,
    UsageError,
    check_flag,
    check_int,
    shown,
)
from fastnet.layers import (
    Hardsigmoid,
    Hardtanh,
    Layer,
    NoisyReLU,
    ReLU,
    ReLU6,
    ScaledTanh,
    Sigmoid,
    Softsign,
    Tanh,
)
from fastnet.model import Sequential
from fastnet.op import Array
from fastnet.parameter import check_array, check_count, check_names, vector_state
from fastnet.tape import Tape, Value
from fastnet.train.callbacks.base import Callback
from fastnet.train.history import copied_records, frame_of

ROWS = 256  # of the sample, by default
PERCENTILES = {"p15": 15.0, "p50": 50.0, "p85": 85.0}
RECTIFIERS = (ReLU, ReLU6, NoisyReLU)  # whose units may be dead
# The ranges of activations that saturate.
RANGES: dict[type, Callable[[Any], tuple[float, float]]] = {
    Sigmoid: lambda layer: (0.0, 1.0),
    Hardsigmoid: lambda layer: (0.0, 1.0),
    Tanh: lambda layer: (-1.0, 1.0),
    ScaledTanh: lambda layer: (-layer.amplitude, layer.amplitude),
    Softsign: lambda layer: (-1.0, 1.0),
    Hardtanh: lambda layer: (layer.min_val, layer.max_val),
}
NEAR = 0.01  # of a range's larger end: so close to an end an output is saturated


class Watching(Tape):
    """A tape that keeps the output of each layer, in evaluation mode."""

    def __init__(self, dtype: Any) -> None:
        super().__init__(dtype, training=False)
        self.outputs: dict[int, Array] = {}  # by the layer's id; of its last use

    def enter(self, layer: Any, x: Any) -> Any:
        """The output of a layer, which is kept."""
        output = super().enter(layer, x)
        self.outputs[id(layer)] = output.array
        return output


def outputs_of(model: Sequential, x: Array) -> dict[str, Array]:
    """The output of each layer in evaluation mode by its path, computed by the reference kernels."""
    tape = Watching(model.dtype)
    model.bind()
    with np.errstate(all="ignore"):
        tape.enter(model, Value(np.array(x, model.dtype)))
    kept = ((path, tape.outputs.get(id(layer))) for path, layer in model.layers)
    return {path: output for path, output in kept if output is not None}


def described(layer: Layer, output: Array) -> dict[str, Any]:
    """The numbers that describe a layer's outputs (n, …)."""
    values = output.reshape(len(output), -1).astype(np.float64)
    found: dict[str, Any] = {"layer": type(layer).__name__}
    with np.errstate(all="ignore"):
        found |= {"mean": float(values.mean()), "std": float(values.std())}
        points = np.percentile(values, list(PERCENTILES.values())).tolist()
    found |= dict(zip(PERCENTILES, points, strict=True))
    if isinstance(layer, RECTIFIERS):
        found["dead"] = float((values == 0).all(axis=0).mean())
    if type(layer) in RANGES:
        low, high = RANGES[type(layer)](layer)
        near = NEAR * max(abs(low), abs(high))
        found["saturated"] = float(((values > high - near) | (values < low + near)).mean())
    return found


class Record(Callback):
    """Measures, as a net trains, each layer's outputs, and of each parameter w the norm ‖g‖₂ of its
    gradient and its update ‖w − w₀‖₂/‖w‖₂, where w₀ was w before. The training stays as it is.

    activations: bool (default True). True measures the outputs of each layer in evaluation mode: "mean",
        "std", their percentiles "p15", "p50" and "p85"; of ReLU, ReLU6 and NoisyReLU "dead", the share of
        units that are 0 for all rows; and of Sigmoid, Tanh, ScaledTanh, Softsign, Hardsigmoid and Hardtanh
        "saturated", the share of outputs within a hundredth of their range's larger end to either end:
        |y| > 0.99 for Tanh, y < 0.01 or y > 0.99 for Sigmoid.
    gradients: bool (default True). True measures gradients of the loss of all these rows at once, with the
        layers in the modes of the fit; and updates since the measurement before (1 where w has left 0, None
        where it is 0 again).
    every: integer ≥ 1 (default 1). It measures when a fit begins, and after the epochs whose number is a
        multiple of this.
    rows: integer ≥ 1 (default 256). So many rows of the training data, at equal distances, are the sample;
        fewer where there are fewer. Or a list of the rows' indices. Of a fit on minibatches as they come,
        the sample is of the rows of an epoch's last native call, and nothing is measured at its begin.

    `history` is a list of dicts: {"epoch": 3, "step": 141, "activations": {"1": {"layer": "Tanh", "mean":
    …, …}, …}, "gradients": {"0.weight": …}, "updates": {"0.weight": …}}; `fn.plot.activations(record)`
    draws it. A measurement works on a copy of the model and costs about as much as a forward of the sample
    by NumPy, with gradients a step more. A loss of your own is called once more for each. The bits of the
    fit are those without it. A further fit of the same trainer continues the history; with another trainer,
    or after `trainer.reset()`, it starts anew.
    Source: X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural
    networks", AISTATS 2010, section 3.
    """

    activations: bool
    gradients: bool
    every: int
    rows: Any
    history: list[dict[str, Any]]
    trained_key: int | None  # key of the trainer of the last fit
    trained_epoch: int

    def __init__(
        self, activations: bool = True, gradients: bool = True, every: int = 1, rows: Any = ROWS
    ) -> None:
        self.activations = check_flag("activations", activations)
        self.gradients = check_flag("gradients", gradients)
        self.every = check_int("every", every, low=1)
        self.rows = _checked_rows(rows)
        self.trained_key, self.trained_epoch = None, 0
        self._twin: Sequential | None = None  # during a fit
        self._sample: Array | None = None  # the rows' indices in the data set
        self._start()

    def _start(self) -> None:
        self.history = []
        self._before: dict[str, Array] = {}

    def on_train_begin(self) -> None:
        """Choose the sample; measure where the history begins."""
        fit = self.trainer._fitting
        if fit is None:
            raise UsageError(
                "Record measures within a fit: give it by fit(..., callbacks=[record])"
            )
        run = fit.run
        self._sample = None if run.data is None else _sample(self.rows, run.data.rows, run.rows)
        if self._sample is None and isinstance(self.rows, list):
            raise HyperparameterError(
                f"Record: rows is {shown(self.rows)}; expected a number of rows where minibatches come one "
                "after the other"
            )
        least = self.trainer.model.min_training_rows(run.respect_modes)
        if self.gradients and self._sample is not None and len(self._sample) < least:
            raise HyperparameterError(
                f"Record: rows is {shown(self.rows)}; expected at least {least} rows for the gradients of "
                "a model with batchnorm, or gradients=False"
            )
        if self.trained_key != self.trainer.key or self.trained_epoch > self.trainer.epoch:
            self._start()
        self.trained_key, self.trained_epoch = self.trainer.key, self.trainer.epoch
        if not (self.history or self._sample is None):
            self._measure(self.trainer.epoch)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Measure, if it is the epoch's turn."""
        self.trained_key, self.trained_epoch = self.trainer.key, epoch
        if epoch % self.every == 0:
            self._measure(epoch)

    def on_train_end(self) -> None:
        """Let go of the copy."""
        self._twin = self._sample = None

    def _measure(self, epoch: int) -> None:
        trainer, run = self.trainer, self.trainer._fitting.run
        twin = self._copied(trainer.model)
        sample = self._sample
        if sample is None:  # of the last minibatches that came
            sample = _sample(self.rows, run.data.rows, None)
        x = np.asarray(twin.on_host("X", run.data.x)[sample])
        y, w = run.data.y[sample], None if run.data.w is None else run.data.w[sample]
        found: dict[str, Any] = {"epoch": epoch, "step": trainer.step}
        if self.activations:
            layers = dict(twin.layers)
            outputs = outputs_of(twin, x)
            found["activations"] = {p: described(layers[p], out) for p, out in outputs.items()}
        if self.gradients:
            mean = 1.0 if run.data.by_rows else None  # the weights are divided already
            if not run.respect_modes:
                twin.train()
            if len(x) < twin.min_training_rows(respect_modes=True):
                twin.eval()
            try:
                twin.value_and_grad(trainer.loss, x, y, sample_weight=w, weight_mean=mean)
                found["gradients"] = {name: _norm(g) for name, g in twin.grads.items()}
            except DivergenceError:  # of the sample alone: the training decides for itself
                found["gradients"] = dict.fromkeys(twin.grads, float("nan"))
            values = twin.named_parameters()
            if self._before:
                found["updates"] = {n: _ratio(w, self._before[n]) for n, w in values.items()}
            self._before = {name: np.array(value) for name, value in values.items()}
        self.history.append(found)

    def _copied(self, model: Sequential) -> Sequential:
        """A copy of the model as it is now."""
        if self._twin is None:
            self._twin = copy.deepcopy(model)
        here, there = self._twin.bind().segments, model.bind().segments
        for name in ("params", "buffers"):
            np.copyto(here[name], there[name])
        for (_, own), (_, layer) in zip(self._twin.layers, model.layers, strict=True):
            own.training = layer.training
        self._twin._draws = self.trainer.step  # dropout's masks
        self._twin.touch()
        return self._twin

    def to_frame(self) -> Any:
        """The history as a pandas DataFrame with the columns epoch, step, name, quantity, value.

        name: a layer's path or a parameter's name. quantity: "mean", "std", "p15", …, "gradient" or
        "update". Raises MissingExtra without pandas.
        """
        return frame_of(list(self._rows()))

    def _rows(self) -> Iterator[dict[str, Any]]:
        for one in self.history:
            head = {"epoch": one["epoch"], "step": one["step"]}
            for path, numbers in one.get("activations", {}).items():
                for quantity, value in numbers.items():
                    if quantity != "layer":
                        yield {**head, "name": path, "quantity": quantity, "value": value}
            for kind in ("gradients", "updates"):
                for name, value in one.get(kind, {}).items():
                    yield {**head, "name": name, "quantity": kind[:-1], "value": value}

    def state_dict(self) -> dict[str, Any]:
        """The history, and the parameters of the last measurement: "before/0.weight", …."""
        counted = {name: getattr(self, name) for name in _COUNTED}
        history = copy.deepcopy(self.history)
        return {**counted, "history": history, **vector_state("before", self._before)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from the `state_dict` of a Record with equal arguments, or raise StateDictError."""
        names = [n for n in state if str(n).startswith("before/")] if _is_mapping(state) else []
        check_names("state_dict", state, (*_COUNTED, "history"), names)
        records = copied_records("state_dict['history']", state["history"], StateDictError)
        if not all({"epoch", "step"} <= record.keys() for record in records):
            raise StateDictError("state_dict['history'] has records without epoch and step")
        counts = {
            name: None
            if state[name] is None and name == "trained_key"
            else check_count(f"state_dict[{name!r}]", state[name], 2**64 - 1)
            for name in _COUNTED
        }
        before = {}
        for name in names:
            value = check_array(f"state_dict[{name!r}]", state[name], np.shape(state[name]))
            before[name.removeprefix("before/")] = np.array(value)
        if self.trainer is not None and before:
            needed = self.trainer.model.named_parameters()
            check_names("the parameters in state_dict", before, needed)
            for name, value in before.items():
                check_array(f"state_dict['before/{name}']", value, needed[name].shape)
        for name, count in counts.items():
            setattr(self, name, count)
        self.history, self._before = copy.deepcopy(records), before

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_twin": None, "_sample": None}


_COUNTED = ("trained_key", "trained_epoch")


def _is_mapping(state: Any) -> bool:
    return isinstance(state, Mapping)


def _checked_rows(rows: Any) -> int | list[int]:
    """A number of rows, or indices; HyperparameterError for anything else."""
    wanted = "expected an integer ≥ 1, or a list of the indices of different rows"
    if isinstance(rows, (list, tuple, range)) or (isinstance(rows, np.ndarray) and rows.ndim == 1):
        try:
            found = [check_int("rows", row) for row in rows]
        except HyperparameterError:
            found = []
        if not found or len({*found}) < len(found):
            raise HyperparameterError(f"rows is {shown(rows)}; {wanted}")
        return found
    try:
        return check_int("rows", rows, low=1)
    except HyperparameterError:
        raise HyperparameterError(f"rows is {shown(rows)}; {wanted}") from None


def _sample(rows: int | list[int], count: int, own: Array | None) -> Array:
    """The indices, in a data set of so many rows, of those on which to measure.

    own: the rows out of which to choose; None: all.
    """
    count = count if own is None else len(own)
    if isinstance(rows, list):
        places = np.array(rows)
        if places.max() >= count:
            raise DataError(
                f"Record: rows has the index {places.max()}; expected less than {count}, the number of "
                "training rows"
            )
    else:
        places = np.linspace(0, count - 1, min(rows, count)).astype(np.int64)
    return places if own is None else own[places]


def _norm(values: Array) -> float:
    return float(np.linalg.norm(values.astype(np.float64)))


def _ratio(now: Array, before: Array) -> float | None:
    moved = _norm(now.astype(np.float64) - before)
    size = _norm(now)
    if size == 0.0:
        return None if moved else 0.0
    return moved / size
