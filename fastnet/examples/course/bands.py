"""Measure what experiments' bands should be: `python -m fastnet.examples.course.bands [NAME …]`.

Each experiment runs with 20 seeds on the embedded digits. A line for each key figure has its least, mean
and greatest value, and the band: these ends, each moved out by half of the range, or by a millionth of the
value where all seeds agree. What is never negative has a band that is not.
"""

from __future__ import annotations

import sys

import numpy as np

from fastnet.examples.course.found import found
from fastnet.examples.course.main import load
from fastnet.terminal import show

SEEDS = 20


def main(names: list[str]) -> None:
    """Print the bands of these experiments, or of all."""
    data = load(None)
    for experiment in found():
        if names and experiment.name not in names:
            continue
        show(experiment.name)
        figures = [experiment.run(data, seed, False).figures for seed in range(SEEDS)]
        for name in figures[0]:
            values = np.array([one[name] for one in figures])
            low, high = values.min(), values.max()
            edge = max((high - low) / 2, 1e-6 * abs(high))
            least = max(low - edge, 0.0) if low >= 0 else low - edge
            seen = f"{low:.4g} {values.mean():.4g} {high:.4g}"
            show(f"  {name}: {seen}  ({least:.5g}, {high + edge:.5g})")


if __name__ == "__main__":
    main(sys.argv[1:])
