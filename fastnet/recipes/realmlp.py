"""RealMLP: nets for tables with the defaults that their authors tuned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastnet.errors import (
    HyperparameterError,
    check_choice,
    check_int,
    check_real,
    shown,
)
from fastnet.init import Zeros
from fastnet.layers import (
    PBLD,
    SELU,
    Dropout,
    Embedding,
    Layer,
    Mish,
    NTKLinear,
    ParametricActivation,
    Scale,
)
from fastnet.layers.embedding import MOST
from fastnet.losses import CrossEntropyLoss, MSELoss
from fastnet.model import Sequential
from fastnet.optim import Adam, AdamW, Optimizer
from fastnet.recipes.from_data import init_from_data
from fastnet.recipes.recipe import TASKS, Recipe
from fastnet.schedules import CosLogLR, FlatCosLR


@dataclass(frozen=True)
class Preset:
    """The numbers in which the two presets differ, for classification and regression."""

    lr: tuple[float, float]
    dropout: float
    weight_decay: float


PRESETS = {
    "small": Preset((0.04, 0.07), 0.0, 0.0),
    "full": Preset((0.04, 0.2), 0.15, 0.02),
}
WIDTHS = (256, 256, 256)
EMBEDDING = 8  # numbers of a category
SMOOTHING = 0.1
# Factors of the learning rate.
OF_SCALE, OF_BIAS, OF_ACTIVATION, OF_PBLD = 6.0, 0.1, 0.1, 0.1


def realmlp(
    n_numeric: int,
    n_outputs: int,
    *,
    task: str = "classification",
    preset: str = "small",
    total_steps: int,
    n_onehot: int = 0,
    categories: Sequence[int] = (),
    X: Any = None,
    hidden: Sequence[int] = WIDTHS,
    lr: float | None = None,
    dropout: float | None = None,
    weight_decay: float | None = None,
    label_smoothing: float | None = None,
    seed: int | None = None,
    dtype: str = "float32",
    backend: str = "auto",
) -> Recipe:
    """Model, loss and optimizer of RealMLP-TD-S (`preset="small"`) or RealMLP-TD (`preset="full"`).

        recipe = fn.recipes.realmlp(8, 3, total_steps=256 * (len(X) // 256))
        trainer = fn.Trainer(*recipe, seed=0)
        trainer.fit(X, y, epochs=256, batch_size=256, drop_last=True)

    Each part in the small net, and behind the semicolon in the full one where that differs:

        numbers: as they come; PBLD of 16 frequencies and 4 columns, lr·0.1
        categories: one-hot columns, as they come; these, or Embedding of 8 columns
        all inputs: Scale, lr·6
        hidden layers: 3 NTKLinear of 256; the same, with weights and biases from X by `init_from_data`
        hidden weights: N(0, 1); output deviations of 1 on X
        hidden biases: N(0, 1), lr·0.1; "he+5", lr·0.1, without weight decay
        activation: SELU for classes, Mish for numbers; ParametricActivation of these, lr·0.1
        last layer: NTKLinear, 0 at first; as the hidden ones
        dropout: none; 0.15, FlatCosLR
        weight decay: none; 0.02, FlatCosLR, decoupled
        optimizer: Adam, betas (0.9, 0.95), eps 1e-8; AdamW with these
        learning rate: CosLogLR with 4 cycles, up to 0.04 for classes, 0.07 for numbers; 0.04 and 0.2
        loss: cross entropy with label smoothing 0.1, or the mean squared error

    Where the learning rate has a factor f, weight decay has it too, beside that of the rate: a step takes
    lr·f²·weight_decay of a parameter, as pytabkit does.

    n_numeric: integer ≥ 0. The first columns of X: numbers, scaled and clipped as `RobustScaler` does.
    n_outputs: integer ≥ 1, for classification ≥ 2: classes, or targets. Targets of a regression should
        have mean 0 and standard deviation 1.
    task: "classification" (default) or "regression".
    preset: "small" (default) or "full".
    total_steps: integer ≥ 1. Steps of the whole training, where all schedules end.
    n_onehot: integer ≥ 0 (default 0). The next columns of X: numbers without an embedding, such as one-hot
        ones. The authors scale and clip these as well.
    categories: integers in [1, 2²⁴] (default none); only for "full". For each further column of X the
        number of codes 0, 1, …; any other number there is an unknown category, with a vector of its own.
    X: rows of the training, for initial values; only for "full", which may do without (default None) and
        then starts from N(0, 1), until `init_from_data(model, X)`.
    hidden: integers ≥ 1 (default (256, 256, 256)).
    lr, dropout, weight_decay, label_smoothing: numbers ≥ 0, of dropout and label_smoothing also ≤ 1, or
        None (default: the preset's). Label smoothing is of classes alone; the authors turn it off where
        the metric is AUC or the log-loss.
    seed: integer in [0, 2⁶⁴) or None (default), for initial values.
    dtype, backend: as for `Sequential`.

    Returns a named tuple (model, loss, optimizer). The authors train 256 epochs with minibatches of 256 and
    keep the epoch with the best score of a validation. They keep predictions of a regression within the
    range of the training's targets.
    Source: D. Holzmüller, L. Grinsztajn, I. Steinwart, "Better by default: strong pre-tuned MLPs and
    boosted trees on tabular data", NeurIPS 2024 (arXiv 2407.04491), tables A.1 and A.2; where the paper and
    the authors' pytabkit 1.8 differ, as pytabkit.
    """
    n_numeric = check_int("n_numeric", n_numeric, low=0)
    n_onehot = check_int("n_onehot", n_onehot, low=0)
    of_classes = check_choice("task", task, TASKS) == "classification"
    full = check_choice("preset", preset, tuple(PRESETS)) == "full"
    n_outputs = check_int("n_outputs", n_outputs, low=2 if of_classes else 1)
    total_steps = check_int("total_steps", total_steps, low=1)
    counts = _integers("categories", categories, high=MOST)
    widths = _integers("hidden", hidden)
    own = PRESETS[preset]
    rate = own.lr[not of_classes] if lr is None else check_real("lr", lr, low=0.0)
    drop = _share("dropout", dropout, own.dropout)
    decay = own.weight_decay
    if weight_decay is not None:
        decay = check_real("weight_decay", weight_decay, low=0.0)
    smoothing = _share("label_smoothing", label_smoothing, SMOOTHING)
    for name, given in (("categories", bool(counts)), ("X", X is not None)):
        if given and not full:
            raise HyperparameterError(
                f'{name} is given with preset="small", which has no use for it; expected preset="full", '
                "or one-hot columns (n_onehot)"
            )
    if not n_numeric + n_onehot + len(counts):
        raise HyperparameterError(
            "n_numeric, n_onehot and categories are 0, 0 and (); expected at least one column"
        )
    layers = _inputs(n_numeric, n_onehot, counts, full=full)
    width = n_numeric * (4 if full else 1) + n_onehot + EMBEDDING * len(counts)
    layers += _hidden(width, widths, SELU if of_classes else Mish, full, drop, total_steps)
    last = widths[-1] if widths else width
    start = None if full else Zeros()
    layers.append(NTKLinear(last, n_outputs, weight_init=start, bias_init=start))
    model = Sequential(*layers, dtype=dtype, backend=backend, seed=seed)
    if X is not None:
        init_from_data(model, X)
    loss = CrossEntropyLoss(label_smoothing=smoothing) if of_classes else MSELoss()
    return Recipe(model, loss, _optimizer(model, rate, decay, total_steps))


def _inputs(n_numeric: int, n_onehot: int, counts: list[int], *, full: bool) -> list[Layer]:
    """The layers before the front scale."""
    layers: list[Layer] = []
    plain = n_numeric + n_onehot
    if counts:
        columns = list(range(plain, plain + len(counts)))
        layers.append(Embedding(counts, EMBEDDING, columns, unknown=True))
    if full and n_numeric:
        layers.append(PBLD(n_numeric, others=n_onehot + EMBEDDING * len(counts)))
    return layers


def _hidden(
    width: int,
    widths: list[int],
    activation: type[SELU | Mish],
    full: bool,
    dropout: float,
    total_steps: int,
) -> list[Layer]:
    """The front scale and the hidden layers."""
    layers: list[Layer] = [Scale(width)]
    for wide in widths:
        layers.append(NTKLinear(width, wide))
        layers.append(ParametricActivation(activation(), wide) if full else activation())
        if dropout:
            layers.append(Dropout(FlatCosLR(dropout, total_steps)))
        width = wide
    return layers


def _optimizer(model: Sequential, lr: float, decay: float, total_steps: int) -> Optimizer:
    """Adam with the groups of parameters that have another rate, and their decay."""
    rate, shrinking = CosLogLR(lr, total_steps), FlatCosLR(decay, total_steps)
    factors: dict[str, tuple[float, float]] = {}  # of rate and decay, by pattern
    for name, layer in model.layers:
        if isinstance(layer, Scale):
            factors[f"{name}.*"] = OF_SCALE, OF_SCALE
        elif isinstance(layer, ParametricActivation):
            factors[f"{name}.*"] = OF_ACTIVATION, OF_ACTIVATION
        elif isinstance(layer, PBLD):
            factors[f"{name}.*"] = OF_PBLD, OF_PBLD
        elif isinstance(layer, NTKLinear):
            factors[f"{name}.bias"] = OF_BIAS, 0.0
    groups = []
    for of_rate, of_decay in dict.fromkeys(factors.values()):
        names = [n for n, f in factors.items() if f == (of_rate, of_decay)]
        group: dict[str, Any] = {"params": names, "lr": of_rate * rate}
        if decay:
            group["weight_decay"] = of_decay * shrinking if of_decay else 0.0
        groups.append(group)
    betas = (0.9, 0.95)
    if not decay:
        return Adam(rate, betas, groups=groups)
    return AdamW(rate, betas, weight_decay=shrinking, groups=groups)


def _integers(name: str, given: Any, **limit: int) -> list[int]:
    """Integers ≥ 1, or HyperparameterError."""
    try:
        found = None if isinstance(given, (str, bytes)) else list(given)
    except TypeError:
        found = None
    if found is None:
        raise HyperparameterError(f"{name} is {shown(given)}; expected integers ≥ 1 in a sequence")
    return [check_int(name, one, low=1, **limit) for one in found]


def _share(name: str, given: float | None, otherwise: float) -> float:
    return otherwise if given is None else check_real(name, given, low=0.0, high=1.0)
