"""Parameter groups: parameters with hyper-parameters of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from fastnet.errors import HyperparameterError, shown

Group = dict[str, Any]  # "params", a tuple of names and patterns, and hyper-parameters by name


def _can_be_iterated(value: Any) -> bool:
    return isinstance(value, Iterable) and getattr(value, "shape", None) != ()


def check_groups(
    groups: Any, known: Iterable[str], make: Callable[[Group], Any]
) -> tuple[Group, ...]:
    """Copies of the groups; HyperparameterError where a group is malformed or has an invalid number.

    known: the hyper-parameters that a group may have. make: raises where one is out of range.
    """
    wanted = 'a sequence of groups such as {"params": "0.*", "lr": 1e-4}'
    if isinstance(groups, (str, bytes, Mapping)) or not _can_be_iterated(groups):
        raise HyperparameterError(f"groups is {shown(groups)}; expected {wanted}")
    checked = []
    for i, group in enumerate(groups):
        names = _patterns(group)
        if not names:
            raise HyperparameterError(f"groups[{i}] is {shown(group)}; expected {wanted}")
        if unknown := [name for name in group if name != "params" and name not in known]:
            raise HyperparameterError(
                f"groups[{i}] has {unknown[0]!r}; expected 'params' and any of {', '.join(known)}"
            )
        checked.append({**group, "params": names})
        try:
            make(own_numbers(group))
        except HyperparameterError as error:
            raise HyperparameterError(f"groups[{i}]: {error}") from None
    return tuple(checked)


def _patterns(group: Any) -> tuple[str, ...]:
    """The names and patterns of a group; empty if they are no strings."""
    given = group.get("params") if isinstance(group, Mapping) else None
    found = (given,) if isinstance(given, str) else given
    if not isinstance(found, Iterable):
        return ()
    found = tuple(found)
    return found if all(isinstance(pattern, str) for pattern in found) else ()


def own_numbers(group: Mapping[str, Any]) -> Group:
    """The hyper-parameters of a group."""
    return {name: value for name, value in group.items() if name != "params"}


def group_numbers(groups: Sequence[Group], names: Sequence[str]) -> list[int]:
    """For each parameter the number of its group, from 1; 0 if it matches none."""
    numbers = [0] * len(names)
    for number, group in enumerate(groups, 1):
        for pattern in group["params"]:
            fitting = [i for i, name in enumerate(names) if fnmatchcase(name, pattern)]
            if not fitting:
                raise HyperparameterError(
                    f"groups[{number - 1}]: {pattern!r} fits no parameter of the model; it has "
                    f"{', '.join(names)}"
                )
            for i in fitting:
                if numbers[i] not in (0, number):
                    raise HyperparameterError(
                        f"groups[{number - 1}]: {pattern!r} fits {names[i]}, which belongs to "
                        f"groups[{numbers[i] - 1}]; expected each parameter in one group at most"
                    )
                numbers[i] = number
    return numbers
