"""Recipes: whole trainings of nets that need more than one phase, and nets with tuned defaults."""

from fastnet.recipes.from_data import init_from_data
from fastnet.recipes.radial import fit_rbf
from fastnet.recipes.realmlp import realmlp
from fastnet.recipes.recipe import Recipe
from fastnet.recipes.tabm import tabm

__all__ = ["Recipe", "fit_rbf", "init_from_data", "realmlp", "tabm"]
