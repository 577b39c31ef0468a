"""One Sequential that does all that a table model does, for exports: numbers and codes in, outputs out."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastnet.data.terms import Terms
from fastnet.errors import UsageError, shown
from fastnet.layers import Bias, Concat, Hardtanh, Layer, Linear, Scale
from fastnet.layers.columns import Columns as Taken
from fastnet.losses import links
from fastnet.model import Sequential
from fastnet.op import Array
from fastnet.preprocess import OneHot, QuantileTransformer, RobustScaler
from fastnet.tabular.columns import MOST_ONE_HOT, Columns
from fastnet.tabular.nets import Nets

COARSEST = 1e-3  # steps of an input's numbers, as a share of its scaler's width
QUARTILE = 0.6745  # of the normal distribution


@dataclass(frozen=True)
class Input:
    """An input of the network. categories: those with the codes 0, 1, …; None: a number.

    fill: what stands for a missing number; None: none was missing in the training. is_gap: whether the
    input tells, by 1 or 0, that the number of this name is missing.
    """

    name: str
    categories: tuple[Any, ...] | None = None
    fill: float | None = None
    is_gap: bool = False


def inputs_of(columns: Columns, fill: Array) -> list[Input]:
    """The inputs in order: the columns of the table, then one for each column with gaps."""
    found, gaps, numbers = list[Input](), list[Input](), iter(fill.tolist())
    for name, known, gap in zip(columns.names, columns.known, columns.gaps, strict=True):
        if known is not None:
            found.append(Input(name, tuple(known)))
            continue
        number = next(numbers)
        found.append(Input(name, fill=number if gap else None))
        if gap:
            gaps.append(Input(f"{name} is missing", is_gap=True))
    return found + gaps


def rows_of(columns: Columns, fill: Array, values: list[Array]) -> Array:
    """Rows for the network, float64 (n, inputs), of a table's columns in order."""
    found, gaps, numbers = list[Array](), list[Array](), iter(fill.tolist())
    for known, gap, column in zip(columns.known, columns.gaps, values, strict=True):
        if known is not None:
            found.append(np.array([known.get(value, -1) for value in column.tolist()], np.float64))
            continue
        missing, number = np.isnan(column), next(numbers)
        found.append(np.where(missing, number, column))
        if gap:
            gaps.append(missing.astype(np.float64))
    return np.stack(found + gaps, 1)


def network(model: Any) -> Sequential:
    """`TableModel.network`."""
    nets = [(part, net) for part in model.nets for net in part.models]
    if len(nets) > 1:
        raise UsageError(
            f"this model averages {len(nets)} nets; a network is made of one: fit with n_cv=1 and n_ens=1"
        )
    part, net = nets[0]
    _check_digits(model.columns, part.scaler, net.dtype)
    front = _front(model.columns, part, model.preset)
    layers: list[Any] = [front, *copy.deepcopy(list(net)), *_end(model, part)]
    made = Sequential(
        *layers, dtype=net.dtype.name, backend=net.backend, seed=0, precision=net.precision
    )
    inputs = inputs_of(model.columns, part.fill)
    classes = None if model.classes is None else tuple(model.classes.tolist())
    if classes is not None and len({*map(type, classes)} & {bool, int, str}) != 1:
        classes = None  # other labels have no place in a network
    # Of log-probabilities softmax is exp, and it makes their sum 1 again behind a temperature.
    link = None if model.classes is None else links.SOFTMAX
    made._terms = Terms(tuple(one.name for one in inputs), classes, link)
    return made.eval()


def _check_digits(columns: Columns, scaler: Any, dtype: Any) -> None:
    """Raise UsageError where a column's numbers, rounded to the network's dtype, lose what it scales.

    The scaler of `predict` takes float64; the network's takes its inputs in its own dtype, whose numbers
    near the centre lie one spacing apart.
    """
    names = [n for n, known in zip(columns.names, columns.known, strict=True) if known is None]
    for name, (centre, width) in zip(names, _middles(scaler), strict=False):  # codes come behind
        step = float(np.spacing(dtype.type(abs(centre))))
        if step > COARSEST * width:
            raise UsageError(
                f"the network's {dtype} has numbers near {centre:.6g} in steps of {step:.3g}, and column "
                f"{shown(name)} varies by about {width:.3g}; subtract an offset such as {centre:.6g} "
                "from the column before the training"
            )


def _middles(scaler: Any) -> Iterator[tuple[float, float]]:
    """Centre and width of what a scaler has found of each column; of a constant one, infinite."""
    if isinstance(scaler, RobustScaler):
        yield from zip(scaler.center_.tolist(), scaler.scale_.tolist(), strict=True)
    elif isinstance(scaler, QuantileTransformer):
        for knots, values in zip(scaler.knots_, scaler.values_, strict=True):
            low, centre, high = np.interp([-QUARTILE, 0.0, QUARTILE], values, knots).tolist()
            width = high - low or float(knots[-1] - knots[0]) / 2
            yield centre, width or math.inf


def _front(columns: Columns, part: Nets, preset: str) -> Any:
    """What makes the inputs of the net from codes and numbers."""
    numbers = [i for i, known in enumerate(columns.known) if known is None]
    coded, groups = list[int](), list[tuple[int, Array]]()  # of a column: its codes' outputs
    gap = len(columns.known)
    for i, known in enumerate(columns.known):
        if known is None:
            if columns.gaps[i]:
                groups.append((gap, np.array([[1.0, -1.0]])))  # of the slots for 1 and others
                gap += 1
        elif columns.embed and len(known) > MOST_ONE_HOT:
            coded.append(i)
        elif len(known) == 2:
            groups.append((i, np.array([[-1.0, 1.0, 0.0]])))
        elif known:
            groups.append((i, np.eye(len(known), len(known) + 1)))
    scaler = None if part.scaler is None else copy.deepcopy(part.scaler)
    parts = list[list[Any]]()
    if numbers:
        parts.append([Taken(numbers)])
    if groups:
        parts.append(_codes(groups, len(columns.known)))
    if scaler is not None:
        if preset == "tabm":
            parts[0].append(scaler)
        else:
            parts = [[_beside(parts), scaler]]
    if coded:
        parts.append([Taken(coded)])
    return _beside(parts)


def _beside(parts: list[list[Any]]) -> Any:
    branches = [Sequential(*layers) for layers in parts]
    return branches[0] if len(branches) == 1 else Concat(*branches)


def _codes(groups: list[tuple[int, Array]], first_gap: int) -> list[Layer]:
    """One-hot columns of codes, then the net's own codes of them, which a matrix of 0 and ±1 makes."""
    sizes = [matrix.shape[1] - 1 for _, matrix in groups]
    most = max(sizes)
    # Rows in which each column has each of its codes at least once; a gap's one code is 1.
    codes = np.arange(most)
    columns = [
        np.ones(most) if place >= first_gap else codes % size
        for (place, _), size in zip(groups, sizes, strict=True)
    ]
    rows = np.stack(columns, 1).astype(np.float64)
    onehot = OneHot().fit(rows)
    slots, outputs = sum(m.shape[1] for _, m in groups), sum(len(m) for _, m in groups)
    made, weight = Linear(slots, outputs, bias=False), np.zeros((outputs, slots))
    row = column = 0
    for _, matrix in groups:
        weight[row : row + len(matrix), column : column + matrix.shape[1]] = matrix
        row, column = row + len(matrix), column + matrix.shape[1]
    _set(made, "weight", weight)
    return [Taken([place for place, _ in groups]), onehot, made]


def _set(layer: Layer, name: str, value: Array) -> None:
    layer.load_state_dict({name: np.asarray(value)})


def _end(model: Any, part: Nets) -> list[Layer]:
    """The calibration's temperature of classes; scale and bounds of numbers."""
    if model.classes is not None:
        if model.temperature == 1.0:
            return []
        count = len(model.classes)
        cooled = Scale(count)
        _set(cooled, "weight", np.full(count, 1 / model.temperature))
        return [cooled]
    scale, shift = Scale(len(part.factor)), Bias(len(part.shift))
    _set(scale, "weight", part.factor)
    _set(shift, "bias", part.shift)
    layers: list[Layer] = [scale, shift]
    if model.bounds is not None and len(part.factor) == 1:
        low, high = (float(bound[0]) for bound in model.bounds)
        if low < high:
            layers.append(Hardtanh(low, high))
    return layers
