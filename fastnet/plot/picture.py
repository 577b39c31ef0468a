"""Picture: a figure of matplotlib's that a notebook shows. Importing it loads matplotlib."""

from __future__ import annotations

from io import BytesIO

from matplotlib.figure import Figure


class Picture(Figure):  # type: ignore[misc, unused-ignore]
    """A figure that pyplot does not know."""

    def _repr_png_(self) -> bytes:
        """PNG for notebooks, which know only the figures of pyplot's by themselves."""
        buffer = BytesIO()
        self.savefig(buffer, format="png", dpi=100)
        return buffer.getvalue()
