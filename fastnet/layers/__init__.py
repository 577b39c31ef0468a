"""Layers: each file has one family, with shape rules, reference forwards and vector-Jacobian products."""

from typing import TYPE_CHECKING

from fastnet.late import late_names

if TYPE_CHECKING:
    from fastnet.layers.activations import (
        GELU,
        Identity,
        LinearTanh,
        LogSigmoid,
        Mish,
        ScaledTanh,
        Sigmoid,
        SiLU,
        Softplus,
        Softsign,
        Tanh,
    )
    from fastnet.layers.base import Layer
    from fastnet.layers.batchnorm import BatchNorm1d
    from fastnet.layers.block import Add, Concat, Flatten, Multiply, Residual
    from fastnet.layers.columns import Columns
    from fastnet.layers.custom import CustomLayer
    from fastnet.layers.dropout import AlphaDropout, Dropout
    from fastnet.layers.embedding import Embedding
    from fastnet.layers.ensemble import (
        EnsembleMean,
        EnsembleView,
        LinearBatchEnsemble,
        LinearEnsemble,
    )
    from fastnet.layers.function import elementwise
    from fastnet.layers.gated import GLU, SwiGLU
    from fastnet.layers.hierarchical import HierarchicalSoftmax
    from fastnet.layers.images import RandomContrast, RandomFlip, RandomTranslation
    from fastnet.layers.layernorm import LayerNorm, RMSNorm
    from fastnet.layers.linear import Linear
    from fastnet.layers.noise import GaussianNoise, NoisyReLU
    from fastnet.layers.ntk_linear import NTKLinear
    from fastnet.layers.parametric import ParametricActivation
    from fastnet.layers.pbld import PBLD
    from fastnet.layers.periodic import Periodic
    from fastnet.layers.piecewise import PiecewiseLinear
    from fastnet.layers.prelu import PReLU
    from fastnet.layers.radial import RBF
    from fastnet.layers.rectifiers import (
        ELU,
        SELU,
        Hardsigmoid,
        Hardswish,
        Hardtanh,
        LeakyReLU,
        ReLU,
        ReLU6,
    )
    from fastnet.layers.scale import Bias, Scale
    from fastnet.layers.softmax import LogSoftmax, Softmax

__all__ = [
    "ELU",
    "GELU",
    "GLU",
    "PBLD",
    "RBF",
    "SELU",
    "Add",
    "AlphaDropout",
    "BatchNorm1d",
    "Bias",
    "Columns",
    "Concat",
    "CustomLayer",
    "Dropout",
    "Embedding",
    "EnsembleMean",
    "EnsembleView",
    "Flatten",
    "GaussianNoise",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "HierarchicalSoftmax",
    "Identity",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LinearBatchEnsemble",
    "LinearEnsemble",
    "LinearTanh",
    "LogSigmoid",
    "LogSoftmax",
    "Mish",
    "Multiply",
    "NTKLinear",
    "NoisyReLU",
    "PReLU",
    "ParametricActivation",
    "Periodic",
    "PiecewiseLinear",
    "RMSNorm",
    "RandomContrast",
    "RandomFlip",
    "RandomTranslation",
    "ReLU",
    "ReLU6",
    "Residual",
    "Scale",
    "ScaledTanh",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Softsign",
    "SwiGLU",
    "Tanh",
    "elementwise",
]

__getattr__, __dir__ = late_names(__name__, __all__)
