"""Initial weights and biases of linear layers that suit the data, layer by layer."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastnet import random
from fastnet.errors import DataError, check_int, check_kind, check_seed
from fastnet.formulas import portable
from fastnet.layers import Layer, Linear
from fastnet.model import Sequential
from fastnet.op import Array
from fastnet.preprocess.statistics import mean_and_var

MOST = 4096  # rows for a bias
ROWS, SHARES = 2 << 32, 3 << 32  # steps of a layer's random stream, beyond those of its parameters


def init_from_data(
    model: Sequential,
    X: Any,
    *,
    bias_rows: int = 5,
    max_rows: int = 65536,
    seed: int | None = None,
) -> None:
    """Scale weights and draw biases of all linear layers such that their outputs suit the rows X.

    For each Linear or NTKLinear in turn, with its outputs z without a bias for the rows X, where the layers
    before it already have their new values:

    - the weights of output j become w_j / std(z_j), so that it has standard deviation 1; where it is 0, as
      of constant inputs, they stay;
    - its bias becomes −Σ_k s_k·z_kj for `bias_rows` rows k drawn for this output, and shares s_k ≥ 0 that
      add up to 1, drawn uniformly. So the output is 0 somewhere within the data.

    model: a Sequential. Layers act as in `predict`; linear layers within blocks, such as Residual, stay as
        they are, and so does a layer that stands in the model a second time.
    X: inputs of the training (n, features), at least one row.
    bias_rows: integer in [1, 4096] (default 5).
    max_rows: integer ≥ 1 (default 65,536). Of more rows so many are drawn.
    seed: integer in [0, 2⁶⁴) or None (default: the model's), for what is drawn.

    Standard deviations divide by n and are float64. The values depend on the seed, the rows and the model's
    values alone. Frozen layers stay as they are.
    Source: weights as in D. Mishkin, J. Matas, "All you need is a good init", ICLR 2016, without
    orthogonality; biases as "he+5" of I. Steinwart, "A sober look at neural network initializations",
    2019, arXiv:1903.11482; both in the form of D. Holzmüller, L. Grinsztajn, I. Steinwart, "Better by
    default: strong pre-tuned MLPs and boosted trees on tabular data", NeurIPS 2024 (arXiv 2407.04491).
    """
    check_kind("model", model, Sequential)
    bias_rows = check_int("bias_rows", bias_rows, low=1, high=MOST)
    max_rows = check_int("max_rows", max_rows, low=1)
    given = check_seed("seed", seed)
    seed = model.seed if given is None else given
    found = model.features("X", model.on_host("X", X))
    if not len(found) or not math.prod(found.shape):
        raise DataError(f"X has shape {found.shape}; expected at least one row and one column")
    chosen = np.arange(len(found))
    if len(found) > max_rows:
        chosen = np.sort(random.permutation(len(found), seed, user=2)[:max_rows])
    rows = np.asarray(found[chosen])
    model.predict(rows[:1])  # checks their width, and gives the model its memory
    names = {id(layer): name for name, layer in model.layers}
    open_layers: list[Layer] = []
    for layer in _in_order(model):
        if not isinstance(layer, Linear) or layer.frozen or id(layer) not in names:
            open_layers.append(layer)
            continue
        name = names.pop(id(layer))
        if open_layers:
            rows = _like(model, *map(copy.deepcopy, open_layers)).predict(rows)
        z = _without_bias(model, layer).predict(rows).astype(np.float64)
        spread = np.sqrt(mean_and_var(z)[1])
        factor = 1 / np.where(spread > 0, spread, 1.0)
        values = {f"{name}.weight": layer.weight * factor[:, None]}
        if layer.bias is not None:
            draw = seed, random.stream_of(random.INIT, layer._index)
            values[f"{name}.bias"] = -_combinations(z * factor, bias_rows, draw)
        model.load_state_dict(values, strict=False)
        open_layers = [layer]


def _in_order(model: Sequential) -> Iterator[Layer]:
    """The layers one after the other, blocks as one."""
    for layer in model:
        if isinstance(layer, Sequential):
            yield from _in_order(layer)
        else:
            yield layer


def _like(model: Sequential, *layers: Layer) -> Sequential:
    """These layers as a model of the same dtype and backend."""
    return Sequential(*layers, dtype=model.dtype.name, backend=model.backend, seed=0)


def _without_bias(model: Sequential, layer: Linear) -> Sequential:
    """A layer with its weights alone."""
    made = _like(model, type(layer)(**{**layer._config, "bias": False, "bias_init": None}))
    made.load_state_dict({"0.weight": layer.weight})
    return made


def _combinations(z: Array, count: int, draw: tuple[int, int]) -> Array:
    """For each column of z a random convex combination of its numbers in `count` random rows."""
    rows, columns = z.shape
    u = random.uniform(columns * count, *draw, ROWS).reshape(columns, count)
    at = np.minimum((u * rows).astype(np.int64), rows - 1)
    shares = -portable.log(random.uniform(columns * count, *draw, SHARES)).reshape(columns, count)
    shares /= shares.sum(axis=1, keepdims=True)
    return np.asarray((z[at, np.arange(columns)[:, None]] * shares).sum(axis=1))
