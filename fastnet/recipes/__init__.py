"""Recipes: whole trainings of nets that need more than one phase."""

from fastnet.recipes.radial import fit_rbf

__all__ = ["fit_rbf"]
