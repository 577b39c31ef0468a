"""Ensemble: several models that predict together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from fastnet.errors import HyperparameterError, ShapeError, check_choice, shown
from fastnet.layers.base import Shape
from fastnet.losses import links
from fastnet.model.sequential import Sequential
from fastnet.op import Array


class Ensemble:
    """ŷ = (1/N)·Σᵢ fᵢ(x), or the mean of the models' probabilities.

    models: Sequential, at least one, of one dtype, with equally wide inputs and outputs. Layers and
        backends may differ. The ensemble holds the models themselves: what trains them changes it.
    average: "outputs" (default), the mean of the outputs as they are, which are values of a regression or
        logits of a classification; or "probabilities", the mean of softmax(outputs) over each row, for
        rows of one output of sigmoid(output).

    Sums are taken in float64 in the order of the models, so that they have the same bits on every machine
    on which the models' predictions have.
    Source: L. K. Hansen, P. Salamon, "Neural network ensembles", IEEE PAMI 12(10), 1990.
    """

    def __init__(self, models: Iterable[Sequential], average: str = "outputs") -> None:
        self.average = check_choice("average", average, ("outputs", "probabilities"))
        try:
            self.models = () if isinstance(models, Sequential) else tuple(models)
        except TypeError:
            self.models = ()
        if not self.models or not all(isinstance(m, Sequential) for m in self.models):
            raise HyperparameterError(f"models is {shown(models)}; expected a list of Sequential")
        first = self.models[0]
        for i, model in enumerate(self.models):
            if model.dtype != first.dtype:
                raise HyperparameterError(
                    f"models[{i}] has dtype {model.dtype} and models[0] {first.dtype}; expected one dtype"
                )
        if (shape := self.input_shape) is not None:
            self.output_shape(shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the predictions."""
        return self.models[0].dtype

    @property
    def input_shape(self) -> Shape | None:
        """The shape of one input row; None where no layer fixes it."""
        shapes = {i: model.input_shape for i, model in enumerate(self.models)}
        known = {i: shape for i, shape in shapes.items() if shape is not None}
        if len(set(known.values())) > 1:
            raise ShapeError(f"models have input rows of shapes {known}; expected equal shapes")
        return next(iter(known.values()), None)

    def output_shape(self, shape: Shape) -> Shape:
        """The shape of one output row for a shape of one input row; ShapeError where models differ."""
        found = [model.output_shape(shape) for model in self.models]
        for i, other in enumerate(found):
            if other != found[0]:
                raise ShapeError(
                    f"models[{i}] has output rows of shape {other} and models[0] of {found[0]}; expected "
                    "equal shapes"
                )
        return found[0]

    def __len__(self) -> int:
        return len(self.models)

    def __iter__(self) -> Iterator[Sequential]:
        return iter(self.models)

    def __repr__(self) -> str:
        return f"Ensemble(<{len(self)} models>, average={self.average!r})"

    def predict(self, x: Any, batch_size: int | None = None, out: Array | None = None) -> Array:
        """The average for x (n, …), (n, …), as a new array or in `out`; see `Sequential.predict`.

        batch_size: integer ≥ 1, the rows of a native call of each model (default 256).
        """
        first, *others = self.models
        x = first.on_host("x", first.features("x", x))
        self.output_shape(tuple(x.shape[1:]))
        if isinstance(x, np.ndarray) and out is not None and np.may_share_memory(x, out):
            x = x.copy()
        result = first.predict(x, batch_size, out)
        average = probabilities if self.average == "probabilities" else np.float64
        total = np.array(average(result))
        for model in others:
            total += average(model.predict(x, batch_size))
        np.copyto(result, total / len(self), casting="same_kind")
        return result


def probabilities(logits: Array) -> Array:
    """softmax over each row, float64; sigmoid of a single logit."""
    return links.softmax(logits) if logits.shape[-1] > 1 else links.of_logits(logits)[..., 1]
