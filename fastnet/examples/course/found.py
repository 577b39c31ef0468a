"""The experiments that there are: the modules of the room `experiments`."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from fastnet.examples.course import experiments
from fastnet.examples.course.experiment import Experiment


def found() -> list[Experiment]:
    """All experiments, in the order of their places."""
    names = (
        f"{experiments.__name__}.{module.name}" for module in iter_modules(experiments.__path__)
    )
    return sorted((import_module(name).EXPERIMENT for name in names), key=lambda one: one.place)
