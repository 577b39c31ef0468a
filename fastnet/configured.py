"""Configured: objects that their constructor's arguments describe, and can make again."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from typing import Any, ClassVar, Self, TypeVar

import numpy as np

from fastnet import late
from fastnet.errors import Attributed, HyperparameterError, UsageError, shown
from fastnet.names import KINDS

Kind = TypeVar("Kind", bound=type)
_kinds: dict[str, type[Configured]] = {}  # the loaded classes that `from_config` knows, by name
SHARED = "&"  # the key of an object's number, where it stands in a configuration several times
_numbers: ContextVar[dict[int, int]] = ContextVar("_numbers")  # by id, while such are described
_shared: ContextVar[dict[int, Any]] = ContextVar("_shared")  # by number, while such are made
_given: ContextVar[Mapping[str, type[Configured]]] = ContextVar("_given")  # by `also_known`


class Configured(Attributed):
    """Base of layers, losses, optimizers, schedules, initialisers, callbacks, averagings and models.

    The constructor's arguments are the object's description in `config()` and in the repr. An object keeps
    each argument as an attribute of the same name. `**others` of a constructor stand for the arguments of
    its base class.
    """

    _may_be_shared: ClassVar[bool] = False  # whether an object may stand in another several times

    def __init_subclass__(cls, *, base: bool = False) -> None:
        """Register fastnet's own classes, except with `base` those that no configuration names."""
        super().__init_subclass__()
        if cls.__module__.startswith("fastnet.") and cls.__name__[0] != "_" and not base:
            _add(cls)

    @classmethod
    @cache
    def _constructor(cls) -> dict[str, inspect.Parameter]:
        """The constructor's arguments by name."""
        found: dict[str, inspect.Parameter] = {}
        for kind in cls.__mro__[:-1]:
            if "__init__" not in vars(kind):
                continue
            given = list(inspect.signature(vars(kind)["__init__"]).parameters.values())[1:]
            named = [p for p in given if p.kind is not p.VAR_KEYWORD]
            if found:  # the subclass passes these on by name
                named = [p.replace(kind=p.KEYWORD_ONLY) for p in named]
            found |= {p.name: p for p in named if p.name not in found}
            if len(named) == len(given):
                break
        return found

    def _assignable(self) -> Iterable[str]:
        return self._constructor()

    def _argument_store(self) -> Mapping[str, Any]:
        """The mapping that holds the arguments by name."""
        return vars(self)

    def _argument_values(self) -> dict[str, Any]:
        """The constructor's arguments by name, with their current values."""
        kept = self._argument_store()
        if missing := [name for name in self._constructor() if name not in kept]:
            name = missing[0]
            raise UsageError(
                f"{type(self).__name__} has not kept its argument {name!r}: keep it as self.{name}, or "
                f"pass it on by super().__init__({name}={name})"
            )
        return {name: kept[name] for name in self._constructor()}

    def config(self) -> dict[str, Any]:
        """The constructor's arguments by name, with their current values; see `from_config`.

        Values are JSON's: numbers, strings, bools, None and lists (also for tuples and arrays). An object
        with a configuration becomes {"type": "StepLR", "lr": 0.1, …}. A function stays a function, which
        JSON cannot write. Raises UsageError where a class of your own has not kept an argument, or is not
        registered and part of another configuration.
        """
        return self._description(every=False)

    def _description(self, *, every: bool) -> dict[str, Any]:
        """`config()`; with `every`, parts may be of classes that are not registered."""
        given = self._argument_values()
        with _within(_numbers, lambda: _repeated(given)):
            return {name: _described(value, every=every) for name, value in given.items()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """An object with the arguments of a `config()`; missing ones take their defaults.

        Raises HyperparameterError where the class has no argument of a name, and what the constructor
        raises.
        """
        known, kind = cls._constructor(), cls.__name__
        if not isinstance(config, Mapping):
            raise HyperparameterError(f"config is {shown(config)}; expected a dict of arguments")
        takes = f"it takes {', '.join(known) or 'none'}"
        with _within(_shared, dict):
            given = {name: _made(value) for name, value in config.items()}
        for name in given:
            if name not in known:
                raise HyperparameterError(f"{kind} has no argument {shown(name)}; {takes}")
        for name, p in known.items():
            if p.kind is p.VAR_POSITIONAL:
                if not isinstance(given.setdefault(name, []), list):
                    raise HyperparameterError(f"{name} is {shown(given[name])}; expected a list")
            elif p.default is p.empty and name not in given:
                raise HyperparameterError(f"the config of {kind} has no {name!r}; {takes}")
        ordered = {name: given[name] for name in known if name in given}
        bound = inspect.BoundArguments(inspect.Signature(list(known.values())), ordered)
        return cls(*bound.args, **bound.kwargs)

    def _argument_words(self) -> list[str]:
        """The arguments as code: those without a default, then those that differ from their default."""
        words: list[str] = []
        for name, value in self._argument_values().items():
            p = self._constructor()[name]
            plain = _plain(value)
            if p.kind is p.VAR_POSITIONAL:
                words += map(repr, plain)
            elif p.default is p.empty and p.kind is not p.KEYWORD_ONLY:
                words.append(repr(plain))
            elif plain != p.default:
                words.append(f"{name}={plain!r}")
        return words

    def __repr__(self) -> str:
        # The code that makes an equal object.
        try:
            return f"{type(self).__name__}({', '.join(self._argument_words())})"
        except UsageError:  # a user's class has not kept an argument
            return super().__repr__()


class Fixed(Configured, base=True):
    """Base of classes with fixed arguments, which a subclass checks and passes to `super().__init__`."""

    def __init__(self, **config: Any) -> None:
        self._config = config

    def _argument_store(self) -> Mapping[str, Any]:
        return self.__dict__.get("_config", {})  # type: ignore[no-any-return]

    def __getattr__(self, name: str) -> Any:
        config = self._argument_store()
        if name not in config:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return config[name]

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._argument_store():
            raise AttributeError(
                f"{type(self).__name__}: {name} cannot be assigned: hyper-parameters are fixed (build a "
                "new object)"
            )
        super().__setattr__(name, value)


def register(kind: Kind) -> Kind:
    """Let `from_config` make a class of your own by its name; also a decorator. Returns the class.

    Raises HyperparameterError where it is no class of layers, losses, optimizers, schedules, initialisers,
    callbacks, averagings or models, and where another class has its name.
    """
    if not (isinstance(kind, type) and issubclass(kind, Configured)):
        raise HyperparameterError(f"kind is {shown(kind)}; expected a class, such as one of layers")
    _kind(kind.__name__)  # of fastnet itself, which loads now
    return _add(kind)


def _add(kind: Kind) -> Kind:
    other = _kinds.setdefault(kind.__name__, kind)
    if other is not kind and late.dropped(other):
        _kinds[kind.__name__] = kind
    elif other is not kind:
        raise HyperparameterError(
            f"kind is {kind.__module__}.{kind.__name__}, and {other.__module__}.{other.__name__} has this "
            "name; expected another"
        )
    return kind


def _kind(name: str) -> type[Configured] | None:
    """The class of this name; fastnet's own ones load with their first use."""
    if name not in _kinds and (found := late.kind(name)) is not None:
        _kinds[name] = found
    return _kinds.get(name)


def registered() -> list[type[Configured]]:
    """The loaded classes that `from_config` makes by their names."""
    return list(_kinds.values())


def from_config(config: Mapping[str, Any]) -> Any:
    """The object of a configuration with its type, {"type": "Linear", "in_features": 3, …}.

    The type is the name of one of fastnet's classes or of a class given to `register`; nothing else is
    imported. Raises HyperparameterError where a name or an argument is unknown, and what the constructor
    raises.
    """
    if not isinstance(config, Mapping) or "type" not in config:
        raise HyperparameterError(f'config is {shown(config)}; expected {{"type": "Linear", …}}')
    name = config["type"]
    kind = (_given.get({}).get(name) or _kind(name)) if isinstance(name, str) else None
    if kind is None:
        known = sorted({*KINDS, *_kinds, *_given.get({})})
        raise HyperparameterError(
            f"type is {shown(name)}; expected one of {', '.join(known)}, or a class of your own that was "
            "given to fastnet.register"
        )
    return kind.from_config({k: v for k, v in config.items() if k != "type"})


@contextmanager
def also_known(kinds: Iterable[type[Configured]]) -> Iterator[None]:
    """While this is open, `from_config` makes these classes too, by their names, in this thread."""
    token = _given.set({kind.__name__: kind for kind in kinds})
    try:
        yield
    finally:
        _given.reset(token)


def is_known(name: Any) -> bool:
    """Whether `from_config` makes a class of this name."""
    return isinstance(name, str) and any(name in t for t in (KINDS, _kinds, _given.get({})))


def is_registered(kind: type) -> bool:
    """Whether `from_config` makes this class by its name."""
    return _kinds.get(kind.__name__) is kind


def described(value: Configured) -> dict[str, Any]:
    """A configuration with its type, for a file: parts may be of classes that are not registered."""
    found: dict[str, Any] = _described(value, every=True)
    return found


def _described(value: Any, *, every: bool) -> Any:
    """The value for `config`: JSON's types, and configurations of objects."""
    if isinstance(value, Configured):
        kind = type(value)
        if not (every or is_registered(kind)):
            raise UsageError(
                f"the class {kind.__name__} is not registered: fastnet.register it first"
            )
        numbers = _numbers.get({})
        if (number := numbers.get(id(value))) is None:
            return {"type": kind.__name__, **value._description(every=every)}
        if number < 0:  # described before
            return {SHARED: -number}
        numbers[id(value)] = -number
        return {SHARED: number, "type": kind.__name__, **value._description(every=every)}
    if isinstance(value, (list, tuple)):
        return [_described(item, every=every) for item in value]
    if isinstance(value, Mapping):
        return {name: _described(item, every=every) for name, item in value.items()}
    return _plain(value)


def _plain(value: Any) -> Any:
    """The value with Python's numbers and lists instead of NumPy's."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return type(value)(map(_plain, value))
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return value


def _made(value: Any) -> Any:
    """The value for a constructor: the inverse of `_described`."""
    if isinstance(value, (list, tuple)):
        return [_made(item) for item in value]
    if isinstance(value, Mapping):
        if SHARED in value:
            return _made_once(value)
        if "type" in value:
            return from_config(value)
        return {name: _made(item) for name, item in value.items()}
    return value


def _made_once(value: Mapping[str, Any]) -> Any:
    """The object of this number, made where its number comes first."""
    shared, number = _shared.get({}), value[SHARED]
    if type(number) is not int or ("type" in value) == (number in shared):
        raise HyperparameterError(
            f"{SHARED!r} is {shown(number)}; expected an integer that numbers one object, whose first "
            "place alone describes it"
        )
    if "type" in value:
        shared[number] = from_config({k: v for k, v in value.items() if k != SHARED})
    return shared[number]


def _repeated(given: Any) -> dict[int, int]:
    """Numbers, from 1 on, of the objects that occur more than once in arguments, by id."""
    uses: Counter[int] = Counter()

    def visit(value: Any) -> None:
        if isinstance(value, Configured):
            uses[id(value)] += value._may_be_shared
            if uses[id(value)] < 2:
                with suppress(
                    UsageError
                ):  # of an argument that is not kept: told where it is described
                    visit(value._argument_values())
        elif isinstance(value, (list, tuple)):
            for item in value:
                visit(item)
        elif isinstance(value, Mapping):
            for item in value.values():
                visit(item)

    visit(given)
    repeated = [key for key, count in uses.items() if count > 1]
    return {key: number for number, key in enumerate(repeated, 1)}


@contextmanager
def _within(variable: ContextVar[Any], make: Callable[[], Any]) -> Iterator[None]:
    """Give the variable a value within the outermost such block."""
    token = None if variable.get(None) is not None else variable.set(make())
    try:
        yield
    finally:
        if token is not None:
            variable.reset(token)
