"""Layers: one family a file, with the shape rule and the reference forward and VJP on one screen."""

from fastnet.layers.activations import LeakyReLU, ReLU, Sigmoid, Tanh
from fastnet.layers.base import Layer
from fastnet.layers.batchnorm import BatchNorm1d
from fastnet.layers.dropout import Dropout
from fastnet.layers.linear import Linear
from fastnet.layers.softmax import LogSoftmax, Softmax

__all__ = [
    "BatchNorm1d",
    "Dropout",
    "Layer",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "ReLU",
    "Sigmoid",
    "Softmax",
    "Tanh",
]
