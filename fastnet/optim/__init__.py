"""Optimizers: reference updates on flat vectors in `rules`, hyper-parameters in `optimizer`."""

from fastnet.optim.clipping import grad_norm, scale_to_norm, scale_units
from fastnet.optim.optimizer import SGD, Adam, AdamW, Optimizer

__all__ = ["SGD", "Adam", "AdamW", "Optimizer"]
