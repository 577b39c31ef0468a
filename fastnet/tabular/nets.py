"""Nets for tables: what scales their inputs, how their predictions are averaged and calibrated."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastnet.model import Sequential
from fastnet.op import Array
from fastnet.tabular.columns import Table

PRESETS = ("small", "full", "tabm")
TASKS = ("classification", "regression")


@dataclass
class Nets:
    """Nets that were trained on the same rows, with what these rows tell of scales."""

    scaler: Any  # a fitted preprocessor; None: there is nothing to scale
    fill: Array  # for missing numbers
    shift: Array  # of the targets
    factor: Array
    models: list[Sequential] = field(default_factory=list)

    def encoded(self, table: Table, preset: str) -> Array:
        """What the nets get, float32."""
        numeric = np.where(np.isnan(table.numeric), self.fill, table.numeric)
        if preset == "tabm":
            scaled = self.scaler.transform(numeric) if numeric.shape[1] else numeric
            parts = [scaled, table.onehot]
        else:
            both = np.concatenate([numeric, table.onehot], axis=1)
            parts = [self.scaler.transform(both) if both.shape[1] else both, table.codes]
        return np.concatenate(parts, axis=1).astype(np.float32)

    def mean(self, table: Table, preset: str, task: str) -> Array:
        """The mean of what the nets predict, float64: probabilities (n, classes) or numbers (n, k)."""
        x = self.encoded(table, preset)
        return np.asarray(np.mean([self._of(model, x, task) for model in self.models], axis=0))

    def _of(self, model: Sequential, x: Array, task: str) -> Array:
        if task == "classification":
            return np.asarray(model.predict_proba(x), np.float64)
        return np.asarray(model.predict(x) * self.factor + self.shift, np.float64)


def tempered(p: Array, temperature: float, mixed: float) -> Array:
    """p^(1/T) divided by its sum, with a share of equal probabilities mixed in."""
    logs = np.log(np.maximum(p, 1e-300)) / temperature
    parts = np.exp(logs - logs.max(axis=1, keepdims=True))
    parts /= parts.sum(axis=1, keepdims=True)
    return np.asarray((1.0 - mixed) * parts + mixed / p.shape[1])
