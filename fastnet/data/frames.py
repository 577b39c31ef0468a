"""Data frames and tables: the names of their columns, and the one column of a frame of labels."""

from __future__ import annotations

from typing import Any

import numpy as np


def _is_table(value: Any) -> bool:
    """Whether this is a table of pyarrow."""
    return hasattr(value, "column_names") and hasattr(value, "schema")


def _is_frame(value: Any) -> bool:
    """Whether this is a frame of pandas or polars, or a table of pyarrow."""
    if type(value) is np.ndarray or (
        hasattr(value, "collect_schema") and hasattr(value, "collect")
    ):
        return False  # a lazy frame of polars resolves its columns with a warning
    return _is_table(value) or (hasattr(value, "columns") and hasattr(value, "dtypes"))


def names_of(value: Any) -> tuple[str, ...] | None:
    """The names of a frame's columns; None where it is no frame, or a name is no string."""
    if not _is_frame(value):
        return None
    names = tuple(value.column_names if _is_table(value) else value.columns)
    return tuple(map(str, names)) if all(isinstance(name, str) for name in names) else None


def only_column(value: Any) -> Any:
    """The column of a frame that has a single one; else the value itself."""
    if not _is_frame(value) or len(value.columns) != 1:
        return value
    if _is_table(value):
        return value.column(0)
    return next(value.iter_columns()) if hasattr(value, "iter_columns") else value.iloc[:, 0]
