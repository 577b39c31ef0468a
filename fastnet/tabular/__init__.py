"""Trained nets for tables, with all that they need to predict from a table as it is.

    TabularClassifier("small").fit(frame, y).save("table.safetensors")   # needs scikit-learn
    model = fn.tabular.load("table.safetensors")                         # does not
    model.predict(frame), model.predict_proba(frame)

The predictions are those of the estimator. The file is a safetensors file and runs no code.
"""

from fastnet.tabular.model import TableModel, load

__all__ = ["TableModel", "load"]
