"""One of two versions of fastnet that take turns, for `before.py`.

It reads a program's name and a count from each line, carries out so many, and prints their seconds.

    python bench/suites/side.py
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # bench/, as for a script there

from measure import pin  # noqa: F401  # isort: skip  (before NumPy loads)

import json
from functools import cache

from contenders.versions import PROGRAMS
from measure import timing


def main() -> None:
    """Answer line by line."""
    contender = cache(lambda name: PROGRAMS[name]())
    for line in sys.stdin:
        name, count = json.loads(line)
        ready = contender(name)
        begin = timing.clock()
        ready.run(count * ready.quantum)
        print(timing.clock() - begin, flush=True)


if __name__ == "__main__":
    main()
