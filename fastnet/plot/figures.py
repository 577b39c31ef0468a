"""What plots share: new figures, grids of axes, and the style."""

from __future__ import annotations

import math
from typing import Any

from fastnet.errors import HyperparameterError, MissingExtra, shown

# Dark and light, so that lines differ in grey too.
FIRST, SECOND, BAND = "#16456e", "#e39a3b", "#a9c4dd"


def figure_of(figure: Any, width: float, height: float) -> Any:
    """The caller's figure, or a new one of so many inches; MissingExtra without matplotlib."""
    if figure is not None:
        if isinstance(figure, type) or not callable(getattr(figure, "add_subplot", None)):
            raise HyperparameterError(
                f"figure is {shown(figure)}; expected a figure of matplotlib's, such as "
                'pyplot.figure(layout="constrained")'
            )
        return figure
    try:
        from fastnet.plot.picture import Picture
    except ImportError:
        raise MissingExtra('plots need matplotlib: pip install "fastnet-engine[plot]"') from None
    return Picture(figsize=(width, height), layout="constrained")


def grid_of(figure: Any, count: int) -> tuple[Any, list[Any]]:
    """A figure with so many axes in a grid that is as wide as high, or wider."""
    columns = math.ceil(math.sqrt(count))
    rows = -(-count // columns)
    made = figure_of(figure, 1.0 + 3.8 * columns, 0.5 + 2.9 * rows)
    return made, [made.add_subplot(rows, columns, i + 1) for i in range(count)]


def along_epochs(axes: Any, name: str = "epoch") -> None:
    """Finish axes whose x are epochs: whole numbers, a light grid, no frame on top and right."""
    axes.set_xlabel(name)
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes.grid(color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
