"""The errors that fastnet raises, and checks of single arguments that raise them.

Every message names the argument or layer, what came, what was expected, and a remedy.
"""

from __future__ import annotations

import inspect
import math
import operator
import os
import sys
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Self

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path


class FastnetError(Exception):
    """Base of every error that fastnet raises itself."""


class ShapeError(FastnetError, ValueError):
    """An array or a layer does not fit its neighbour; the message names the layer and both shapes."""


class DataError(FastnetError, ValueError):
    """Data that cannot be trained on: empty, not finite, labels out of range, a malformed file."""


class HyperparameterError(FastnetError, ValueError):
    """A hyper-parameter outside its domain: not a number, not finite, out of range."""


class StateDictError(FastnetError, ValueError):
    """A state dict whose names or shapes are not the model's."""


class FileError(FastnetError, ValueError):
    """A file that is none of fastnet's, is damaged, or does not fit; the message names it."""


class SaveError(FastnetError, OSError):
    """A file could not be written, such as on a full disk; what was there before is still there."""


class FormulaError(FastnetError, TypeError):
    """A function that is no formula; the message names the expression, its line, and what formulas have."""


class BackendUnavailable(FastnetError, ValueError):
    """A named backend cannot run here; the message says how to get it."""


class DeviceError(FastnetError, RuntimeError):
    """A device, its driver or a kernel on it has failed; the message says during what."""


class DeviceMemoryError(DeviceError, MemoryError):
    """A device has too little free memory; the message says for what, and how to need less."""


class MissingExtra(FastnetError, ImportError):
    """A package that an optional feature needs cannot be imported; the message names the extra."""


class UsageError(FastnetError, RuntimeError):
    """Calls in an order without meaning: backward without forward, two fits on one model."""


class NoSecondDerivatives(UsageError):
    """A layer or a loss of which second derivatives, or products of its Jacobian, are not known."""


class DivergenceError(FastnetError, ArithmeticError):
    """The loss of a step was not finite; that step made no update.

    histories: those of all nets, where `fn.fit_many` raises it; else empty.
    """

    histories: Sequence[Any] = ()


class RankError(FastnetError, RuntimeError):
    """Another rank of a training on several processes has failed; the message names it and says why."""


class CheckFailed(FastnetError, AssertionError):
    """A check of a net was asked to raise, and has found a fault; `report` is its report."""

    report: Any = None

    def __init__(self, text: str, report: Any = None) -> None:
        super().__init__(text)
        self.report = report


# float32's smallest normal number: smaller ones may become 0 there, and a divisor 0 would give 0/0.
SMALLEST = 2.0**-126
LONGEST = 120  # characters of a value that a message shows


def shown(value: Any) -> str:
    """A value for a message: short, on one line, an array by its shape and dtype alone."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if hasattr(value, "shape") and hasattr(value, "dtype") and not isinstance(value, np.generic):
        kind = "an array" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
        return f"{kind} of shape {tuple(value.shape)} and dtype {value.dtype}"
    if isinstance(value, (list, tuple, set, frozenset, dict)) and value:
        first = next(iter(value.values() if isinstance(value, dict) else value))
        if len(value) > 8 or hasattr(first, "shape"):
            return f"a {type(value).__name__} of {len(value)}, the first {shown(first)}"
    try:
        text = " ".join(repr(value).split())
    except Exception:  # raised by the object's own repr
        text = f"a {type(value).__name__}"
    if "array(" in text:
        return f"a {type(value).__name__}"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}... (a {type(value).__name__})"


def undefined(owner: Any, method: str, what: str) -> NotImplementedError:
    """The error for a subclass that does not define a method; `what` says what the method does."""
    return NotImplementedError(f"{type(owner).__name__} defines no {method}: {what}")


def outside() -> int:
    """The stacklevel with which the caller's warning names the user's code that called fastnet."""
    frame, level = sys._getframe(1), 1
    package = os.path.dirname(__file__) + os.sep
    while frame.f_back is not None and frame.f_code.co_filename.startswith(package):
        frame, level = frame.f_back, level + 1
    return level


def check_real(
    name: str,
    value: Any,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    open_low: bool = False,
    open_high: bool = False,
) -> float:
    """Return `value` as a finite float in the interval, or raise HyperparameterError.

    The interval includes its ends unless `open_low` or `open_high` is given.
    """
    interval = interval_text(low=low, high=high, open_low=open_low, open_high=open_high)
    try:
        if isinstance(value, (str, bytes, bool, np.bool_)):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise HyperparameterError(
            f"{name} is {shown(value)}; expected a finite number in {interval}"
        ) from None
    inside = (number > low if open_low else number >= low) and (
        number < high if open_high else number <= high
    )
    if not (math.isfinite(number) and inside):
        raise HyperparameterError(
            f"{name} is {shown(value)}; expected a finite number in {interval}"
        )
    return number


def interval_text(
    *,
    low: float = -math.inf,
    high: float = math.inf,
    open_low: bool = False,
    open_high: bool = False,
) -> str:
    """An interval as messages write it, such as [0, 1)."""
    left = "(" if open_low or low == -math.inf else "["
    right = ")" if open_high or high == math.inf else "]"
    return f"{left}{float(low):g}, {float(high):g}{right}"


def check_int(name: str, value: Any, *, low: int = 0, high: int | None = None) -> int:
    """Return `value` as an int with low ≤ value (≤ high), or raise HyperparameterError."""
    wanted = f"an integer ≥ {low}" if high is None else f"an integer in [{low}, {high}]"
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise HyperparameterError(f"{name} is {shown(value)}; expected {wanted}") from None
    if number < low or (high is not None and number > high):
        raise HyperparameterError(f"{name} is {number}; expected {wanted}")
    return number


def check_flag(name: str, value: Any) -> bool:
    """Return `value` if it is True or False, or raise HyperparameterError."""
    if not isinstance(value, (bool, np.bool_)):
        raise HyperparameterError(f"{name} is {shown(value)}; expected True or False")
    return bool(value)


def check_path(name: str, value: Any) -> Path:
    """Return a path, or raise HyperparameterError."""
    from pathlib import Path  # takes milliseconds, which a program without files saves

    try:
        if b"\0" in os.fsencode(value):
            raise ValueError
        return Path(os.fsdecode(value))
    except (TypeError, ValueError):  # ValueError: no file can have this name
        raise HyperparameterError(
            f"{name} is {shown(value)}; expected a path: a str or an os.PathLike"
        ) from None


def check_new_file(name: str, value: Any) -> Path:
    """Return the path of a file to be written, whose folder is there, or raise HyperparameterError."""
    path = check_path(name, value)
    if path.is_dir():
        raise HyperparameterError(
            f"{name} is {shown(str(path))}, a folder; expected the path of a file"
        )
    if not path.parent.is_dir():
        raise HyperparameterError(
            f"{name} is {shown(str(path))}, whose folder is not there; make it first"
        )
    return path


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """Return `value` if it is one of `choices`, or raise HyperparameterError."""
    if not isinstance(value, str) or value not in choices:
        raise HyperparameterError(
            f"{name} is {shown(value)}; expected one of {', '.join(map(repr, choices))}"
        )
    return value


def check_kind(name: str, value: Any, kind: type) -> None:
    """Raise HyperparameterError where `value` is not an instance of `kind`."""
    if not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AEIO" else "a"
        remedy = ""
        if isinstance(value, type) and issubclass(value, kind):
            remedy = f", such as {value.__name__}(...)"
        raise HyperparameterError(
            f"{name} is {shown(value)}; expected {article} {kind.__name__}{remedy}"
        )


def check_seed(name: str, value: Any) -> int | None:
    """Return a seed: None, or an integer in [0, 2⁶⁴)."""
    return None if value is None else check_int(name, value, low=0, high=2**64 - 1)


def _check_attribute(thing: Attributed, name: str, value: Any) -> Any:
    """Return `value`, or raise AttributeError where assigning it to this name would have no effect.

    Allowed are private names, the annotations and attributes of the object's class, and for a user's
    subclass any name that is not nearly one of these. fastnet's own classes allow no other names. An
    attribute that fastnet annotates as bool must be True or False, else HyperparameterError. For a property
    without a setter the message quotes the remedy in the class's `_instead`.
    """
    if name[0] == "_":
        return value
    kind = type(thing)
    allowed: dict[str, bool] | None = vars(kind).get(
        "_allowed"
    )  # names, and whether each is a flag
    if allowed is None:
        allowed = kind._allowed = {}  # type: ignore[attr-defined]
    if name not in allowed:
        if not _is_known(thing, name):
            return value
        allowed[name] = any(
            inspect.get_annotations(k).get(name) == "bool" for k in kind.__mro__ if _is_own(k)
        )
    return check_flag(name, value) if allowed[name] else value


def _is_known(thing: Attributed, name: str) -> bool:
    """Whether the class of an object knows a name; raises AttributeError where it must not be assigned."""
    kind, held = type(thing), vars(thing)
    there = inspect.getattr_static(kind, name, None)
    if isinstance(there, property) and there.fset is None:
        remedies: dict[str, str] = getattr(kind, "_instead", {})
        instead = remedies.get(name, "it follows from other values")
        raise AttributeError(f"{kind.__name__}.{name} cannot be assigned: {instead}")
    if hasattr(kind, name):
        return True
    declared = {n for base in kind.__mro__ for n in inspect.get_annotations(base)}
    own = {n for n in declared if not hasattr(kind, n)}  # attributes of objects, not of the class
    names = sorted(n for n in own.union(thing._assignable()) if n[0] != "_")
    if name in names:
        return True
    if name in held:
        return False
    if name in FROZEN:
        raise AttributeError(f"{kind.__name__} has no attribute {name!r}; {FREEZE}")
    import difflib  # only for this message

    if near := difflib.get_close_matches(name, names, 1, 0.85):
        raise AttributeError(
            f"{kind.__name__} has no attribute {name!r}; did you mean {near[0]!r}?"
        )
    if _is_own(kind):
        there = f"it has {', '.join(names)}" if names else "nothing of it can be assigned"
        raise AttributeError(f"{kind.__name__} has no attribute {name!r}; {there}")
    return True  # a user's class may have any


def _is_own(kind: type) -> bool:
    return kind.__module__.split(".")[0] == "fastnet"


class _OfInit:
    """The signature of `__init__`, for a class whose `__new__` passes all arguments on."""

    def __get__(self, thing: Any, kind: type) -> inspect.Signature:
        if thing is not None:  # an object has the signature of its own `__call__`
            raise AttributeError("__signature__")
        if kind.__init__ is object.__init__:  # type: ignore[misc]
            return inspect.Signature()
        own = inspect.signature(kind.__init__)  # type: ignore[misc]
        return own.replace(
            parameters=list(own.parameters.values())[1:], return_annotation=own.empty
        )


@lru_cache(maxsize=1024)
def _arguments_of(kind: type) -> tuple[list[str], list[str], bool]:
    """What a class takes by position, what by name alone, and whether any number by position."""
    known = inspect.signature(kind).parameters.values()
    by_place = [p.name for p in known if p.kind <= p.POSITIONAL_OR_KEYWORD]
    named = [p.name for p in known if p.kind is p.KEYWORD_ONLY]
    return by_place, named, any(p.kind is p.VAR_POSITIONAL for p in known)


class Attributed:
    """Base of classes that refuse unknown arguments and attributes (see _check_attribute)."""

    __signature__ = _OfInit()

    def __new__(cls, *given: Any, **_: Any) -> Self:
        """Before arguments are bound, explain too many positional arguments by the existing names."""
        if given:
            by_place, named, any_number = _arguments_of(cls)  # type: ignore[arg-type]
            if len(given) > len(by_place) and not any_number:
                takes = f"by position it takes {', '.join(by_place) or 'none'}"
                if named:
                    takes += f", by name alone {', '.join(named)}"
                raise HyperparameterError(
                    f"argument {len(by_place) + 1} of {cls.__name__} is {shown(given[len(by_place)])}; "
                    f"{takes if by_place or named else 'it takes none'}"
                )
        return super().__new__(cls)

    def _assignable(self) -> Iterable[str]:
        """Assignable names in addition to annotations and attributes of the class."""
        return ()

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, _check_attribute(self, name, value))


FROZEN = ("requires_grad", "trainable")  # other libraries' attributes for freezing parameters
FREEZE = 'write layer.freeze(), or model.freeze("0.*"), and unfreeze() to train on'
