"""Optimizers: reference updates on flat vectors in `rules`, hyper-parameters in `optimizer`."""

from fastnet.optim.optimizer import SGD, Adam, AdamW, Optimizer

__all__ = ["SGD", "Adam", "AdamW", "Optimizer"]
