"""All plots: whose figure it is, what is loaded, and what is refused."""

from __future__ import annotations

import child
import numpy as np
import pytest
from missing import hide
from refusals import refused

import fastnet as fn
from fastnet.errors import HyperparameterError, MissingExtra

HISTORY = fn.History([{"epoch": n, "loss": 1 / n, "val_loss": 2 / n} for n in (1, 2, 3)])
RECORD = [
    {
        "epoch": n,
        "step": 5 * n,
        "activations": {"1": {"layer": "Tanh", "p15": -0.5, "p50": 0.0, "p85": 0.5}},
    }
    for n in (0, 1, 2)
]
ALONG = np.linspace(-1, 1, 5)
SLICE = fn.curvature.Landscape(ALONG, ALONG, ALONG[:, None] ** 2 + ALONG + 3, [{}, {}])
PLOTS = {
    "history": HISTORY.plot,
    "activations": lambda **given: fn.plot.activations(RECORD, **given),
    "confusion_matrix": lambda **given: fn.plot.confusion_matrix([0, 1, 1], [0, 1, 0], **given),
    "landscape": lambda **given: fn.plot.landscape(SLICE, **given),
    "weights": lambda **given: fn.plot.weights(fn.Linear(6, 4), (2, 3), **given),
}
every = pytest.mark.parametrize("name", PLOTS)


@every
def test_a_new_figure_is_complete_and_pyplot_does_not_know_it(name):
    from matplotlib import get_backend, pyplot, rcParams

    before = dict(rcParams), get_backend(), pyplot.get_fignums()
    figure = PLOTS[name]()
    figure.draw_without_rendering()
    assert figure.axes and all(axes.get_title() or axes.get_ylabel() for axes in figure.axes)
    assert (dict(rcParams), get_backend(), pyplot.get_fignums()) == before


@every
def test_a_notebook_shows_it(name):
    assert PLOTS[name]()._repr_png_().startswith(b"\x89PNG\r\n")


@every
def test_nothing_in_it_overlaps(name):
    """Neither the axes with their labels nor the legends lie across one another or outside."""
    figure = PLOTS[name]()
    figure.draw_without_rendering()
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    whole = figure.bbox
    for i, box in enumerate(boxes):
        assert whole.x0 <= box.x0 and box.x1 <= whole.x1 + 1, (i, box)
        assert whole.y0 <= box.y0 and box.y1 <= whole.y1 + 1, (i, box)
        for other in boxes[:i]:
            across = min(box.x1, other.x1) - max(box.x0, other.x0)
            up = min(box.y1, other.y1) - max(box.y0, other.y0)
            assert across < 1 or up < 1


@every
def test_a_figure_of_ones_own_is_drawn_in(name):
    from matplotlib.figure import Figure

    own = Figure(layout="constrained")
    assert PLOTS[name](figure=own) is own and own.axes
    part = Figure(layout="constrained").subfigures(1, 2)[0]
    assert PLOTS[name](figure=part) is part and part.axes


@every
def test_what_is_no_figure_is_refused(name):
    from matplotlib.figure import Figure

    for bad in (3, "figure", np.zeros(3), Figure, Figure().add_subplot()):
        refused(
            lambda bad=bad: PLOTS[name](figure=bad),
            HyperparameterError,
            r"^figure is .*; expected a figure of matplotlib's, such as pyplot\.figure",
        )


@every
def test_without_matplotlib_they_say_how_to_get_it(name, monkeypatch):
    hide(monkeypatch, "matplotlib")
    with pytest.raises(MissingExtra, match=r'pip install "fastnet-engine\[plot\]"'):
        PLOTS[name]()


CODE = """
import json, sys
import fastnet as fn
history = fn.History([{"epoch": 1, "loss": 0.5}])
loaded = [fn.plot.__name__, "matplotlib" in sys.modules]
figure = history.plot()
figure.savefig(sys.argv[1])
fn.plot.weights(fn.Linear(4, 2), (2, 2)).savefig(sys.argv[1])
print(json.dumps([*loaded, "matplotlib.pyplot" in sys.modules]))
"""


def test_matplotlib_is_loaded_with_the_first_plot_and_pyplot_never(tmp_path):
    path = tmp_path / "a.png"
    assert child.run(CODE, path, MPLBACKEND="qtagg") == ["fastnet.plot", False, False]
    assert path.read_bytes().startswith(b"\x89PNG")
