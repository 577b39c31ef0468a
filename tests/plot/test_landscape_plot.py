"""Pictures of slices of a loss."""

from __future__ import annotations

import numpy as np
import pytest

import fastnet as fn
from fastnet.errors import HyperparameterError, UsageError

ALPHA = np.linspace(-1, 1, 5)


def plane(loss):
    return fn.curvature.Landscape(ALPHA, ALPHA, np.asarray(loss, float), [{}, {}])


def line(loss):
    return fn.curvature.Landscape(ALPHA, None, np.asarray(loss, float), [{}])


BOWL = 1 + ALPHA[:, None] ** 2 + 4 * ALPHA**2


@pytest.mark.parametrize("log", [False, True])
def test_a_plane_has_lines_at_its_levels_and_a_mark_at_the_model(log):
    figure = fn.plot.landscape(plane(BOWL), levels=7, log=log)
    axes, bar = figure.axes
    filled, lines = axes.collections
    levels = np.geomspace(1, 6, 7) if log else np.linspace(1, 6, 7)
    np.testing.assert_allclose(lines.levels, levels)
    np.testing.assert_allclose(filled.levels, levels)
    (mark,) = axes.lines
    assert mark.get_xydata().tolist() == [[0, 0]]
    assert (axes.get_xlabel(), axes.get_ylabel(), bar.get_ylabel()) == ("α", "β", "loss")
    # The first direction goes across: there the bowl is wide.
    widths = np.ptp(np.concatenate([p.vertices for p in lines.get_paths()[1:3]]), axis=0)
    assert widths[0] > 1.5 * widths[1]


def test_a_line_is_a_curve():
    figure = fn.plot.landscape(line(BOWL[0]), log=True)
    (axes,) = figure.axes
    curve, mark = axes.lines
    np.testing.assert_array_equal(curve.get_xydata(), np.stack([ALPHA, BOWL[0]], axis=1))
    assert mark.get_xdata() == [0.0, 0.0] and axes.get_yscale() == "log"
    assert fn.plot.landscape(line(BOWL[0])).axes[0].get_yscale() == "linear"


def test_losses_that_are_not_finite_stay_white():
    loss = BOWL.copy()
    loss[0, 0], loss[4, 1] = np.inf, np.nan
    for log in (False, True):
        figure = fn.plot.landscape(plane(loss), log=log)
        figure.draw_without_rendering()
        assert figure.axes[0].collections[0].levels[-1] == pytest.approx(6)


def test_a_plane_without_slope():
    fn.plot.landscape(plane(np.full((5, 5), 2.0))).draw_without_rendering()


@pytest.mark.parametrize(
    ("landscape", "given", "error", "message"),
    [
        (3, {}, HyperparameterError, "^landscape is 3; expected a Landscape"),
        (plane(BOWL), {"levels": 1}, HyperparameterError, "^levels is 1; expected an integer ≥ 2"),
        (plane(BOWL), {"log": "x"}, HyperparameterError, "^log is 'x'; expected True or False"),
        (
            plane(BOWL - 1),
            {"log": True},
            UsageError,
            "the least loss is 0; expected losses above 0",
        ),
        (
            plane(BOWL * np.nan),
            {},
            UsageError,
            "no loss of the landscape is finite.*smaller extent",
        ),
    ],
)
def test_bad_arguments(landscape, given, error, message):
    with pytest.raises(error, match=message):
        fn.plot.landscape(landscape, **given)
