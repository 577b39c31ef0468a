"""scikit-learn estimators on fastnet's engine; needs the extra `sklearn`.

`from fastnet.sklearn import MLPClassifier` in place of scikit-learn's import is all that a program changes.
"""

from fastnet.errors import MissingExtra

try:
    import sklearn  # noqa: F401
except ImportError as error:
    raise MissingExtra(
        f'fastnet.sklearn needs scikit-learn ({error}): pip install "fastnet-engine[sklearn]"'
    ) from None

from fastnet.sklearn.grid import grid_fit
from fastnet.sklearn.mlp import MLPClassifier, MLPRegressor
from fastnet.sklearn.net import NetClassifier, NetRegressor
from fastnet.sklearn.tabular import TabularClassifier, TabularRegressor

__all__ = [
    "MLPClassifier",
    "MLPRegressor",
    "NetClassifier",
    "NetRegressor",
    "TabularClassifier",
    "TabularRegressor",
    "grid_fit",
]
