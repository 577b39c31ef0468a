"""Preprocessing: layers that are fitted to data before the training, and are part of the model.

    scaler = fn.preprocess.StandardScaler().fit(X)
    model = fn.Sequential(scaler, fn.Linear(8, 3))    # takes raw data, in fit and in predict

Each has `fit(X)`, `transform(X)`, `fit_transform(X)` and `inverse_transform(X)`, and works outside a model
too. In a model the same arithmetic runs in every backend, and the fitted numbers are part of its state.

**Data far from 0.** A model rounds X to its dtype before its first layer: of a column around 10⁸, float32
keeps steps of 8. What then helps is `transform`, which subtracts in float64 before it rounds, a model of
dtype "float64", or a constant that is subtracted from X before. Within a model the layers subtract without
further loss: they keep centres with twice the digits.

**Beside scikit-learn.** Its transformers may stand before a model, such as in a Pipeline, and are the
reference of the tests of these. StandardScaler, MinMaxScaler, RobustScaler, QuantileTransformer and PCA
are here too because a model takes them along to files, exports and native predictions. ZCA, the smooth clip
and the unknown slot of OneHot are not in scikit-learn.
"""

from typing import TYPE_CHECKING

from fastnet.late import late_names

if TYPE_CHECKING:
    from fastnet.preprocess.onehot import OneHot
    from fastnet.preprocess.quantile import QuantileTransformer
    from fastnet.preprocess.scaling import Center, MinMaxScaler, RobustScaler, StandardScaler
    from fastnet.preprocess.whitening import PCA, ZCA

__all__ = [
    "PCA",
    "ZCA",
    "Center",
    "MinMaxScaler",
    "OneHot",
    "QuantileTransformer",
    "RobustScaler",
    "StandardScaler",
]

__getattr__, __dir__ = late_names(__name__, __all__)
