"""This fastnet against an earlier commit of the repository, in what users write.

    python bench/against.py 7c9f53e [--only "fit xor, 4 rows"] [--seconds 3] [--python PYTHON]
    python bench/against.py 7c9f53e --install

The commit is built once, in a worktree and an environment of its own, and kept below ~/.cache/fastnet. Then
two processes on one core take turns, one with each version.
"""

from __future__ import annotations

from measure import pin  # noqa: F401  # isort: skip  (before NumPy loads)

import argparse
import sys

from contenders import versions
from fastnet.terminal import show
from suites import before
from tables import sections


def main() -> int:
    """Measure and print; the exit status."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("commit")
    parser.add_argument("--only", help=f"one of {'; '.join(versions.PROGRAMS)}")
    parser.add_argument("--seconds", type=float, default=3, help="for each program")
    parser.add_argument("--python", help="an interpreter that has that commit's fastnet")
    parser.add_argument(
        "--install", action="store_true", help="`pip install .` on two cores instead: minutes"
    )
    options = parser.parse_args()
    if options.only and options.only not in versions.PROGRAMS:
        parser.error(
            f"--only: {options.only!r} is unknown; expected {'; '.join(versions.PROGRAMS)}"
        )
    if options.install:
        found = before.install_seconds(options.commit)
        lines = sections.install(found)
    else:
        names = [options.only] if options.only else None
        found = before.measure(options.commit, options.seconds, names, options.python)
        lines = sections.before(found)
    show("\n".join(lines))
    return 1 if "left_out" in found else 0


if __name__ == "__main__":
    sys.exit(main())
