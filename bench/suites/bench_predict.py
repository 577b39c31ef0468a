"""Predictions of one batch, called from Python, seconds per call."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from contenders import predictors


@pytest.mark.parametrize(
    ("case", "who"), [(case, who) for case in predictors.CASES for who in predictors.MAKERS]
)
def bench_predict(case: str, who: str, timed: Callable[..., None]):
    """One prediction."""
    makers = predictors.makers(case)
    if who not in makers:
        pytest.skip("not installed")
    timed(makers[who]().run, group=f"predict {case}")
