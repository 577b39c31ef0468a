"""Pictures as SVG whose text and lines have the page's colour, so that they suit light and dark pages."""

from __future__ import annotations

import re
from io import StringIO
from typing import Any

from fastnet.plot.figures import figure_of

INK, FAINT = "#010203", "#040506"  # in matplotlib's output; `currentColor` takes their places
# Of middle lightness, so that they show on white and on black.
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = COLORS = (
    "#3f87c8",
    "#dd8a2e",
    "#3d9c6c",
    "#cc5a6b",
    "#8f75cf",
    "#85909b",
)
STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))
# A file of its own takes its colours from the system's mode.
STYLE = (
    "<style>svg{color:#24292f;background:#fff}"
    "@media(prefers-color-scheme:dark){svg{color:#d5dae0;background:#15181c}}</style>"
)


def drawn(draw: Any, result: Any, size: tuple[float, float], name: str) -> str:
    """The picture of a result as an SVG element; `name` makes its ids differ from other pictures'."""
    figure = figure_of(None, *size)  # MissingExtra without matplotlib
    from cycler import cycler
    from matplotlib import rc_context

    look: Any = {
        **dict.fromkeys(
            ("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor"), INK
        ),
        "axes.prop_cycle": cycler(color=COLORS),
        "grid.color": FAINT,
        "font.size": 9.0,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.facecolor": "none",
        "figure.facecolor": "none",
        "legend.frameon": False,
        "axes.titlesize": 9.5,
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "lines.linewidth": 1.5,
        "legend.fontsize": 8.0,
        "axes.titlelocation": "left",
        "axes.axisbelow": True,
    }
    with rc_context(look):
        figure.set_facecolor("none")
        draw(figure, result)
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return _themed(text.getvalue(), name)


def grid(axes: Any) -> None:
    """Faint lines behind a plot."""
    axes.grid(linewidth=0.6)


def alone(svg: str) -> str:
    """The text of a file with this picture."""
    head, _, rest = svg.partition(">")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{head}>{STYLE}{rest}'


def _themed(text: str, name: str) -> str:
    svg = text[text.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(rf"(stroke|fill): {FAINT}", r"\1: currentColor; \1-opacity: 0.15", svg)
    svg = svg.replace(INK, "currentColor")
    for begin in (' id="', "url(#", 'href="#'):  # one page has many pictures
        svg = svg.replace(begin, f"{begin}{name}-")
    return svg
