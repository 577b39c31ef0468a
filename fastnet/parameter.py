"""Parameter: a named array of a layer; views, copies and state dicts of several of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastnet import random
from fastnet.data import arrays
from fastnet.errors import (
    Attributed,
    DataError,
    HyperparameterError,
    StateDictError,
    UsageError,
    check_flag,
    check_int,
    shown,
)
from fastnet.init import Draw, Initializer
from fastnet.interrupts import Bracket
from fastnet.op import Array
from fastnet.plain import plain


@plain()
class Derived:
    """A tensor that is constant or depends on parameters alone; computed once for each model version.

    compute: gives its value. node: a node of a graph whose output it is, by which a backend on the host's
    memory computes the same; its inputs are parameters, and derived tensors without a node. dtype: "int64",
    or None for the model's. constant: it needs no second computation.
    """

    shape: tuple[int | str, ...]
    compute: Callable[[], Array]
    dtype: str | None = None
    constant: bool = False
    node: Any = None


@plain()
class Scheduled:
    """A tensor of float64 numbers that depends on the step of the random draws alone.

    compute: gives a row of numbers for each of some steps, int64 (n,): float64 (n, *shape).
    """

    shape: tuple[int, ...]
    compute: Callable[[Array], Array]


@dataclass(eq=False, repr=False)
class Parameter:
    """A named array of a layer, in the layout of the kernels.

    `value` and `grad` are arrays of the parameter's own while its layer is outside a model (None before the
    first use), and views of the model's segments afterwards.

    buffer: the layer itself changes it, such as batchnorm's running mean; it has no gradient and no
    optimizer changes it. fitted: a buffer with numbers of data, which a new draw of parameters leaves as
    they are. frozen: at present nothing changes it and no gradient is computed.
    """

    name: str
    shape: tuple[int, ...]
    init: Initializer
    fan_in: int = 1
    fan_out: int = 1
    transposed: bool = False  # PyTorch's shape is the transposed one
    seen_as: tuple[int, ...] | None = None  # PyTorch's shape, where it is neither
    buffer: bool = False
    fitted: bool = False
    frozen: bool = False
    dtype: str | None = None  # None: the model's
    low: float = -math.inf  # the lowest allowed value
    value: Array | None = None
    grad: Array | None = None
    # A value, and the view of it in PyTorch's shape.
    _view: tuple[Array, Array] | None = field(default=None, init=False)

    def draw(self, dtype: Any, seed: int, layer: int, place: int) -> Array:
        """The initial value: drawn in float64 and rounded to `dtype`.

        layer: the layer's index in the flattened model. place: the parameter's index in its layer.
        """
        where = Draw(seed, random.stream_of(random.INIT, layer), place)
        value = self.init.sample(self.shape, self.fan_in, self.fan_out, where)
        return value.astype(self.dtype or dtype)

    @property
    def trainable(self) -> bool:
        """Whether training changes it by a gradient."""
        return not (self.buffer or self.frozen)

    def shown(self, array: Array) -> Array:
        """A view of `array`, which has this parameter's shape, in PyTorch's shape."""
        return array.T if self.transposed else array.reshape(self.shown_shape)

    def shown_each(self, arrays: Array) -> Array:
        """The same of several arrays, one after the other."""
        if self.transposed:
            return arrays.transpose(0, *range(arrays.ndim - 1, 0, -1))
        return arrays.reshape(len(arrays), *self.shown_shape)

    @property
    def shown_shape(self) -> tuple[int, ...]:
        """PyTorch's shape."""
        if self.shape == (1,) and self.dtype == "int64":
            return ()  # PyTorch's counters are scalars
        if self.seen_as is not None:
            return self.seen_as
        return self.shape[::-1] if self.transposed else self.shape

    def held(self, shown: Array) -> Array:
        """The inverse of `shown`: a view of an array of PyTorch's shape, in this parameter's."""
        return shown.T if self.transposed else shown.reshape(self.shape)

    def view(self) -> Array:
        """A view of the value in PyTorch's shape, made once for each array that holds the value."""
        kept = self._view
        if kept is None or kept[0] is not self.value:
            assert self.value is not None
            kept = self._view = self.value, self.shown(self.value)
        return kept[1]

    def __getstate__(self) -> dict[str, Any]:
        # A copy or pickle owns its values; it contains no segment and no gradients.
        value = None if self.value is None else np.array(self.value)
        return {**self.__dict__, "value": value, "grad": None, "_view": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if not self.buffer and self.value is not None:
            self.grad = np.zeros_like(self.value)


class Drafts(Mapping[str, Array], Attributed):
    """The arrays of `model.edit()` by name: writable, but not replaceable."""

    def __init__(self, arrays: dict[str, Array]) -> None:
        self._arrays = arrays

    def __getitem__(self, name: str) -> Array:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __setitem__(self, name: str, value: Any) -> None:
        if name not in self._arrays:
            raise UsageError(f"edit() has no value {name!r}; it has {', '.join(self._arrays)}")
        if value is not self._arrays[name]:  # `p[name] += 1` assigns the same array
            raise UsageError(f'p["{name}"] = … changes nothing; write p["{name}"][...] = …')


class Editing(Bracket[Drafts]):
    """The block of `model.edit()`; it holds the model's lock."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._lock: Any = None  # the lock while it is held
        self._drafts: dict[str, Array] = {}

    def _begin(self) -> Drafts:
        lock = self._model.training_lock()
        lock.acquire()
        self._lock = lock
        named = self._model._named()
        self._drafts = snapshot(named)
        self._model.bind().begin_edit([(p.view(), self._drafts[n]) for n, p in named.items()])
        return Drafts(self._drafts)

    def _end(self) -> None:
        lock, self._lock = self._lock, None
        if lock is None:
            return
        try:
            self._model.bind().take_edits(last=True)
            for draft in self._drafts.values():
                draft.flags.writeable = False
        finally:
            lock.release()


Named = Mapping[str, Parameter]


def readonly(array: Array) -> Array:
    """A view of `array` that cannot be written to or made writable."""
    return np.asarray(memoryview(array).toreadonly())  # type: ignore[arg-type]


def values(named: Named, *, without_buffers: bool = False) -> dict[str, Array]:
    """Read-only views of the values by name, in PyTorch's shapes; they show later changes."""
    return {
        name: readonly(p.shown(p.value))
        for name, p in named.items()
        if p.value is not None and not (p.buffer and without_buffers)
    }


def snapshot(named: Named) -> dict[str, Array]:
    """Copies of the values by name, in PyTorch's shapes: writable, C-contiguous."""
    return {name: p.view().copy() for name, p in named.items()}


def gradients(named: Named) -> dict[str, Array]:
    """Read-only views of the gradients by name, in PyTorch's shapes; they show later changes."""
    return {name: readonly(p.shown(p.grad)) for name, p in named.items() if p.grad is not None}


def _few(names: list[Any]) -> str:
    """At most eight names, and the number of the others."""
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"[{', '.join(map(shown, names[:8]))}]{more}"


def check_names(
    what: str, state: Any, needed: Iterable[str], also: Container[str] = (), remedy: str = ""
) -> None:
    """Raise StateDictError unless `state` has all needed names, and no others except those in `also`."""
    if not isinstance(state, Mapping):
        raise StateDictError(f"{what} is {shown(state)}; expected a mapping of names to arrays")
    wanted = dict.fromkeys(needed)
    missing = [name for name in wanted if name not in state]
    unexpected = [name for name in state if name not in wanted and name not in also]
    if missing or unexpected:
        raise StateDictError(
            f"{what} does not fit: missing {_few(missing)}, unexpected {_few(unexpected)}{remedy}"
        )


def check_array(what: str, value: Any, shape: tuple[int, ...]) -> Array:
    """Return a state dict's array of numbers of this shape, or raise StateDictError."""
    try:
        array = arrays.numbers(what, value)
    except DataError as error:
        raise StateDictError(str(error)) from None
    if array.shape != shape:
        raise StateDictError(f"{what} has shape {array.shape}, expected {shape}")
    return array


MOST = 2**53  # of steps and epochs: float64, and so a schedule, represents all integers up to here


def check_count(what: str, value: Any, high: int = MOST) -> int:
    """Return a state dict's integer in [0, high], or raise StateDictError."""
    try:
        return check_int(what, value, high=high)
    except HyperparameterError as error:
        raise StateDictError(str(error)) from None


def vector_state(vector: str, parts: Mapping[str, Array]) -> dict[str, Array]:
    """Copies of a vector's parts, named by vector and parameter: {"m/0.weight": …}."""
    return {f"{vector}/{name}": np.array(part, order="C") for name, part in parts.items()}


def fill(what: str, vector: str, parts: Mapping[str, Array], state: Mapping[str, Any]) -> None:
    """Copy a vector from a state dict into these parts of a new one, or raise StateDictError."""
    for name, part in parts.items():
        if (key := f"{vector}/{name}") in state:
            with np.errstate(all="ignore"):  # a vector may have overflowed
                part[...] = check_array(f"{what}[{key!r}]", state[key], part.shape)


def check_value(what: str, parameter: Parameter, value: Any, dtype: Any) -> Array:
    """A state dict's array for a parameter, in a dtype and PyTorch's shape, or StateDictError."""
    dtype = np.dtype(parameter.dtype or dtype)
    array = check_array(what, value, parameter.shown_shape)
    with np.errstate(all="ignore"):  # an overflow is refused below
        cast = array.astype(dtype)
    if not (np.isfinite(array).all() and np.isfinite(cast).all()):
        raise StateDictError(f"{what} holds NaN or infinity as {dtype}")
    if dtype.kind == "i" and not np.array_equal(cast, array):
        raise StateDictError(f"{what} holds values that are no {dtype}")
    if cast.size and cast.min() < parameter.low:
        raise StateDictError(f"{what} holds values below {parameter.low:g}")
    return cast


def _is_as(target: Array, array: Any) -> bool:
    """Whether an array surely is what a parameter takes: of its dtype and shape, and finite.

    The sum of squares is finite only where all numbers are, and takes a fraction of the time.
    """
    return (
        type(array) is np.ndarray
        and array.dtype == target.dtype
        and array.shape == target.shape
        and math.isfinite(np.vdot(array, array))
    )


def load(named: Named, state: Mapping[str, Any], *, strict: bool = True) -> None:
    """Copy the arrays of a state dict into the values; change nothing if anything is wrong.

    With `strict` both sides must have the same names; without it, names on one side only are ignored.
    Shapes must agree and values must be finite numbers.
    """
    strict = check_flag("strict", strict)
    remedy = "; pass strict=False to load only the names that both have"
    if type(state) is not dict or state.keys() != named.keys():
        check_names("state_dict", state, named if strict else (), () if strict else state, remedy)
    checked: list[tuple[Array, Array]] = []
    for name, parameter in named.items():
        if name not in state:
            continue
        target, array = parameter.view(), state[name]
        if parameter.low > -math.inf or not _is_as(target, array):
            array = check_value(f"state_dict[{name!r}]", parameter, array, target.dtype)
        checked.append((target, array))
    for target, cast in checked:
        target[...] = cast
