"""Ensemble: several models that predict together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from fastnet.errors import HyperparameterError, ShapeError, UsageError, check_choice, shown
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

    @property
    def classes_(self) -> Array | None:
        """The labels of the classes, as the models have them; see `Sequential.classes_`.

        Raises UsageError where the models have different ones.
        """
        first = self.models[0].classes_
        for i, model in enumerate(self.models):
            if not np.array_equal(model.classes_, first):  # type: ignore[arg-type]
                raise UsageError(
                    f"models[{i}] has the classes {shown(model.classes_)} and models[0] {shown(first)}; "
                    "expected equal ones: train all models on the same labels"
                )
        return first

    def predict_proba(self, x: Any, batch_size: int | None = None) -> Array:
        """Probabilities for x (n, …), (n, C), one column for each of `classes_`.

        x, batch_size: as for `predict`.

        Those of the averaged outputs, or with average="probabilities" the mean of the models' own; see
        `Sequential.predict_proba`. Log-probabilities that were averaged are normalised. Raises UsageError
        where the losses of the models' trainers have no probabilities, or different ones.
        """
        return self._proba("predict_proba", x, batch_size)[0].astype(self.dtype)

    def predict_classes(self, x: Any, batch_size: int | None = None) -> Array:
        """The class of each row of x (n, …), (n,), one of `classes_`; see `Sequential.predict_classes`.

        x, batch_size: as for `predict`.

        By the averaged outputs, or with average="probabilities" by the probabilities of `predict_proba`.
        Raises UsageError where the losses of the models' trainers have no classes, or different ones.
        """
        if self.average == "outputs":
            link = self._linked("predict_classes", links.OF_CLASSES)
            found = links.decisions(link, self.predict(x, batch_size))
        else:
            p, width = self._proba("predict_classes", x, batch_size)
            truths = self.models[0]._terms.link in links.OF_TRUTHS
            p = p[:, 1:] if truths and width == 1 else p
            found = links.decisions(links.PROBABILITY if truths else links.SOFTMAX, p)
        classes = self.classes_
        return found if classes is None or found.ndim > 1 else classes[found]

    def _proba(self, what: str, x: Any, batch_size: int | None) -> tuple[Array, int]:
        """Probabilities, float64, and the number of outputs from which they are."""
        link = self._linked(what, links.OF_PROBABILITIES)
        if self.average == "outputs":
            averaged, output = (
                links.SOFTMAX if link == links.EXP else link,
                self.predict(x, batch_size),
            )
            return links.probabilities(averaged, output), output.shape[1]
        first, *others = self.models
        x = first.on_host("x", first.features("x", x))
        self.output_shape(tuple(x.shape[1:]))
        output = first.on_host("output", first.predict(x, batch_size))
        total = np.array(links.probabilities(link, output))
        for model in others:
            total += links.probabilities(link, model.predict(x, batch_size))
        return total / len(self), output.shape[1]

    def _linked(self, what: str, wanted: tuple[str, ...]) -> str:
        """How outputs become probabilities or classes, the same for all models; else UsageError."""
        found = [model._linked(what, wanted) for model in self.models]
        for i, link in enumerate(found):
            if link != found[0]:
                raise UsageError(
                    f"{what}: the loss of models[{i}] makes probabilities by {link!r}, that of models[0] "
                    f"by {found[0]!r}; expected losses of one kind"
                )
        _ = self.classes_  # which must be equal too
        return found[0]


def probabilities(logits: Array) -> Array:
    """softmax over each row, float64; sigmoid of a single logit."""
    return links.softmax(logits) if logits.shape[-1] > 1 else links.of_logits(logits)[..., 1]
