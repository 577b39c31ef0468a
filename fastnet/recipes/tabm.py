"""TabM: an ensemble in one net, whose members share weights, for tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastnet.errors import HyperparameterError, check_choice, check_int, check_real, shown
from fastnet.init import Initializer, Normal, RandomSigns
from fastnet.layers import (
    Columns,
    Concat,
    Dropout,
    EnsembleMean,
    EnsembleView,
    Layer,
    LinearBatchEnsemble,
    LinearEnsemble,
    PiecewiseLinear,
    ReLU,
)
from fastnet.losses import CrossEntropyLoss, EnsembleLoss, MSELoss
from fastnet.losses.base import Loss
from fastnet.model import Sequential
from fastnet.optim import AdamW
from fastnet.recipes.recipe import TASKS, Recipe


def tabm(
    n_numeric: int,
    n_outputs: int,
    *,
    task: str = "classification",
    k: int = 16,
    blocks: int | None = None,
    width: int = 256,
    dropout: float = 0.1,
    bins: Any = None,
    embedding_dim: int = 16,
    onehot: Sequence[int] = (),
    loss: Loss | None = None,
    lr: float = 2e-3,
    weight_decay: float = 3e-4,
    seed: int | None = None,
    dtype: Any = "float32",
    backend: str = "auto",
) -> Recipe:
    """TabM with the defaults of its authors, in a small form: (model, loss, optimizer) for a Trainer.

        trainer = fn.Trainer(*fn.recipes.tabm(8, 1, task="regression"))

    n_numeric: integer ≥ 0, the first columns of the inputs: numbers, scaled beforehand, best by
        QuantileTransformer to a normal distribution.
    n_outputs: integer ≥ 1; the classes, at least 2, or the targets of a regression, scaled beforehand.
    task: "classification" (default) or "regression".
    k: integer ≥ 1 (default 16), the members. The authors' net has 32; a step's time grows with k.
    blocks: integer ≥ 1, or None (default: 3, and 2 with bins); so many layers with ReLU and dropout.
    width: integer ≥ 1 (default 256; the authors' net has 512), the outputs of each.
    dropout: number in [0, 1] (default 0.1).
    bins: None (default), or the edges of each numeric column, such as
        `fastnet.layers.piecewise.quantile_bins(X)`: the columns have piecewise-linear embeddings of version
        "B", see PiecewiseLinear.
    embedding_dim: integer ≥ 1 (default 16), the numbers of such an embedding.
    onehot: a list of integers ≥ 1 (default none): the widths of the one-hot codes in the columns behind
        the numeric ones.
    loss: a loss of each member; None (default): CrossEntropyLoss() or MSELoss().
    lr, weight_decay: numbers ≥ 0, of AdamW (default 2e-3 and 3e-4).
    seed, dtype, backend: of the model, see Sequential.

    The members differ at first in the r of the first layer alone, one number for each column, embedding or
    one-hot code: ±1, or N(0, 1) with bins; and in their last layers. Training minimises the mean of their
    losses, see EnsembleLoss. Predictions are the mean of their outputs, or for classes the logarithm of the
    mean of their probabilities, see EnsembleMean.
    Raises HyperparameterError where an argument is wrong, and where there are no columns.
    Source: Y. Gorishniy, A. Kotelnikov, A. Babenko, "TabM: advancing tabular deep learning with
    parameter-efficient ensembling", ICLR 2025 (arXiv 2410.24210), and the defaults of the package tabm
    0.0.3.
    """
    n_numeric = check_int("n_numeric", n_numeric)
    task = check_choice("task", task, TASKS)
    n_outputs = check_int("n_outputs", n_outputs, low=2 if task == "classification" else 1)
    k = check_int("k", k, low=1)
    blocks = (3 if bins is None else 2) if blocks is None else check_int("blocks", blocks, low=1)
    width = check_int("width", width, low=1)
    check_real("dropout", dropout, low=0, high=1)
    groups = [1] * n_numeric
    layers: list[Layer] = []
    if bins is not None:
        layers.append(_embedding(bins, n_numeric, embedding_dim, onehot))
        groups = [check_int("embedding_dim", embedding_dim, low=1)] * n_numeric
    groups += _widths(onehot)
    if not groups:
        raise HyperparameterError(
            "n_numeric is 0 and onehot is empty; expected at least one column"
        )
    layers.append(EnsembleView(k))
    r_init: Initializer = RandomSigns() if bins is None else Normal()
    first = LinearBatchEnsemble(sum(groups), width, k, r_init=r_init, groups=groups)
    for layer in (first, *(LinearBatchEnsemble(width, width, k) for _ in range(blocks - 1))):
        layers += [layer, ReLU()]
        layers += [Dropout(dropout)] if dropout else []
    layers.append(LinearEnsemble(width, n_outputs, k))
    layers.append(EnsembleMean(k, "probabilities" if task == "classification" else "outputs"))
    member = loss or (CrossEntropyLoss() if task == "classification" else MSELoss())
    model = Sequential(*layers, dtype=dtype, backend=backend, seed=seed)
    return Recipe(model, EnsembleLoss(member), AdamW(lr, weight_decay=weight_decay))


def _embedding(bins: Any, n_numeric: int, width: int, onehot: Sequence[int]) -> Layer:
    """The piecewise-linear embeddings of the numeric columns, and the others as they are."""
    layer, others = PiecewiseLinear(bins, width, version="B"), sum(_widths(onehot))
    if layer.in_width != n_numeric:
        raise HyperparameterError(
            f"bins has the edges of {layer.in_width} columns; expected those of n_numeric = {n_numeric}"
        )
    if not others:
        return layer
    numeric = Sequential(Columns(range(n_numeric)), layer)
    return Concat(numeric, Columns(range(n_numeric, n_numeric + others)))


def _widths(onehot: Any) -> list[int]:
    if not isinstance(onehot, (list, tuple)):
        raise HyperparameterError(f"onehot is {shown(onehot)}; expected a list of integers")
    return [check_int(f"onehot[{i}]", width, low=1) for i, width in enumerate(onehot)]
