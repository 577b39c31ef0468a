"""Plain classes: objects of named values, as `dataclasses` makes them, without its time at import.

`dataclass` writes Python text for each class and compiles it, in a quarter of a millisecond to a whole one.
A first prediction would wait for dozens of these.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, TypeVar, dataclass_transform

Kind = TypeVar("Kind", bound=type)
Made = TypeVar("Made")


@dataclass_transform(eq_default=False)
def plain(*, eq: bool = False, frozen: bool = False) -> Callable[[Kind], Kind]:
    """Let a class take the values that its annotations name, by position or by name.

    Values in the class are defaults. eq: equal values make equal objects. frozen: values stay as they are.
    """

    def complete(kind: Kind) -> Kind:
        names = tuple(vars(kind)["__annotations__"])
        defaults = {name: vars(kind)[name] for name in names if name in vars(kind)}

        def __init__(self: Any, *given: Any, **named: Any) -> None:  # noqa: N807
            values = {**defaults, **dict(zip(names, given, strict=False)), **named}
            twice = len(given) > len(names) or not named.keys().isdisjoint(names[: len(given)])
            if twice or values.keys() != set(names):
                told = f"{len(given)} values and {', '.join(named) or 'no names'}"
                raise TypeError(f"{kind.__name__} takes {', '.join(names)}; got {told}")
            vars(self).update(values)

        made: dict[str, Any] = {"__init__": __init__}
        if eq:
            made |= {"__eq__": _equal, "__hash__": _hash}
        if frozen:
            made |= {"__setattr__": _refuse, "__delattr__": _refuse}
        for name, function in made.items():
            setattr(kind, name, function)
        return kind

    return complete


def changed(of: Made, **values: Any) -> Made:
    """A new object with some other values, as `dataclasses.replace` makes it."""
    return type(of)(**{**vars(of), **values})


def _equal(self: Any, other: Any) -> Any:
    return vars(self) == vars(other) if type(other) is type(self) else NotImplemented


def _hash(self: Any) -> int:
    return hash(frozenset(vars(self).items()))


def _refuse(self: Any, name: str, *_: Any) -> NoReturn:
    raise AttributeError(f"{type(self).__name__}: {name} cannot be assigned")
