"""Initialisers: the distribution of a parameter's first value.

An initialiser is a small immutable object. Its `sample` draws float64 from a counter-based stream: the
numbers depend only on the seed, the layer's place in the model and the parameter's place in the layer, and
are the same for every backend and dtype. fan_in and fan_out are the numbers of inputs and outputs of the
layer that owns the parameter.

The scaled initialisers keep the variance of activations, or of gradients, from layer to layer. With
weights of variance σ² and activations h = f(z), Var z_out = fan_in·σ²·E h², and in the backward pass
Var dz_in = fan_out·σ²·E f′(z)²·Var dz_out. The σ that keeps the variance depends on f through the gain:

| activation | initialiser |
|---|---|
| none; tanh near 0 | LecunUniform, LecunNormal (forward); GlorotUniform, GlorotNormal (a compromise) |
| sigmoid | GlorotUniform(gain=4) |
| ReLU, LeakyReLU, PReLU | KaimingUniform, KaimingNormal with a, the negative slope |
| SELU | LecunNormal |
| any of these | Orthogonal, with the activation's gain |
"""

from typing import TYPE_CHECKING

from fastnet.late import late_names

if TYPE_CHECKING:
    from fastnet.init.base import Draw, Initializer, check_init
    from fastnet.init.gains import calculate_gain
    from fastnet.init.matrices import Orthogonal, Sparse
    from fastnet.init.plain import Constant, Normal, Ones, RandomSigns, Uniform, Zeros
    from fastnet.init.scaled import (
        FanInUniform,
        GlorotNormal,
        GlorotUniform,
        HeNormal,
        HeUniform,
        KaimingNormal,
        KaimingUniform,
        LecunNormal,
        LecunUniform,
        XavierNormal,
        XavierUniform,
    )

__all__ = [
    "Constant",
    "Draw",
    "FanInUniform",
    "GlorotNormal",
    "GlorotUniform",
    "HeNormal",
    "HeUniform",
    "Initializer",
    "KaimingNormal",
    "KaimingUniform",
    "LecunNormal",
    "LecunUniform",
    "Normal",
    "Ones",
    "Orthogonal",
    "RandomSigns",
    "Sparse",
    "Uniform",
    "XavierNormal",
    "XavierUniform",
    "Zeros",
    "calculate_gain",
    "check_init",
]

__getattr__, __dir__ = late_names(__name__, __all__)
