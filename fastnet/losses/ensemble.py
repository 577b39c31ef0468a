"""The loss of an ensemble whose members share a net: the mean of the members' losses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fastnet.builder import Builder
from fastnet.errors import HyperparameterError, shown
from fastnet.layers.base import Shape
from fastnet.layers.ensemble import members_of
from fastnet.layers.members import mean_of_losses, spread, spread_labels
from fastnet.losses.base import Loss
from fastnet.losses.metrics import Metric
from fastnet.op import Array


class EnsembleLoss(Loss):
    """L = (1/k)·Σ_n loss(x_n, t): the mean of the losses of k members, before an EnsembleMean.

    loss: any loss but a function or a HierarchicalSoftmaxLoss. Its options, its reduction, sample weights
        and the targets that it takes are those of the ensemble.

    In training, each member's outputs x_n have a loss of their own; where the model reports accuracy, that
    is the average's. Such members differ. The loss of the average would train them to be right together
    alone. In evaluation (`evaluate`, val_loss) it is the loss of the average, and so it is for a model
    without an EnsembleMean at its end and outside a model.
    Accuracy (see Loss): the loss's own.
    Source: Y. Gorishniy, A. Kotelnikov, A. Babenko, "TabM: advancing tabular deep learning with
    parameter-efficient ensembling", ICLR 2025, section 3.
    """

    def __init__(self, loss: Loss) -> None:
        if not isinstance(loss, Loss) or loss.on_host or isinstance(loss, EnsembleLoss):
            raise HyperparameterError(
                f"loss is {shown(loss)}; expected a loss of fastnet, such as CrossEntropyLoss()"
            )
        self.__dict__["reductions"] = loss.reductions
        super().__init__(loss.reduction, loss=loss)

    @property
    def link(self) -> str | None:  # type: ignore[override]
        """The loss's."""
        found: str | None = self.loss.link
        return found

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """The loss's."""
        found: Mapping[str, Metric] = self.loss.metrics
        return found

    @property
    def ignore_index(self) -> int | None:  # type: ignore[override]
        """The loss's."""
        found: int | None = self.loss.ignore_index
        return found

    @property
    def takes_minus_infinity(self) -> bool:  # type: ignore[override]
        """The loss's."""
        return bool(self.loss.takes_minus_infinity)

    @property
    def weight(self) -> Any:
        """The loss's weights of classes, or None."""
        return getattr(self.loss, "weight", None)

    def target(self, y: Any, shape: Shape | None, name: str = "y") -> Array:
        """Targets as the loss takes them."""
        found: Array = self.loss.target(y, shape, name)
        return found

    def target_shape(self, shape: Shape) -> Shape:
        """The loss's."""
        found: Shape = self.loss.target_shape(shape)
        return found

    def accepted_targets(self) -> tuple[float, float] | None:
        """The loss's."""
        found: tuple[float, float] | None = self.loss.accepted_targets()
        return found

    def classes_of(self, shape: Shape) -> int:
        """The loss's."""
        return int(self.loss.classes_of(shape))

    def column(self, y: Array, shape: Shape) -> Array:
        """The loss's."""
        found: Array = self.loss.column(y, shape)
        return found

    def counts(self, target: Array) -> Array | None:
        """The loss's."""
        found: Array | None = self.loss.counts(target)
        return found

    def explain(self, output: Array, target: Array) -> str | None:
        """The loss's, of the average."""
        found: str | None = self.loss.explain(output, target)
        return found

    def plan_key(self) -> Any:
        """The loss's, and that it is an ensemble's."""
        return type(self), self.loss.plan_key()

    def rows(self, g: Builder, output: Any, target: Any) -> tuple[Any, Any]:
        """Apply the loss to the rows of all members, and `mean_of_losses`."""
        found = members_of(g, output)
        if found is None:
            rows: tuple[Any, Any] = self.loss.rows(g, output, target)
            return rows
        x, count = found
        row, of_target = (tuple(int(d) for d in t.shape[1:]) for t in (output, target))
        if of_target:
            flat = g.reshape(target, (math.prod(of_target),))
            targets = g.apply(spread, x=flat, N=count, factor=1.0)
        else:
            targets = g.apply(spread_labels, t=target, N=count)
        outputs, targets = g.reshape(x, row, count), g.reshape(targets, of_target, count)
        losses, counts = self.loss.rows(g, outputs, targets)
        counted = None if counts is None else g.reshape(counts, (count,))
        mean = g.apply(mean_of_losses, losses=g.reshape(losses, (count,)), counts=counted)
        return mean, None if counts is None else g.output("count")

    def _each(self, output: Array, target: Array) -> Any:
        return self.loss._each(output, target)
