"""This fastnet against an earlier commit: users' programs by turns of two processes on one core."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from contenders import versions
from measure import builds, pin
from measure.timing import discount, interleave


class Side:
    """A contender in a process of its own; its seconds are those that it measures."""

    quantum = 1

    def __init__(self, process: subprocess.Popen[str], name: str) -> None:
        self.process, self.name = process, name

    def run(self, count: int) -> None:
        """Ask for so many turns of a program, and wait."""
        begin = time.perf_counter()
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps([self.name, count]) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"{self.process.args}: ended at {self.name!r}; its complaint is above"
            )
        discount(time.perf_counter() - begin - float(line))


@contextmanager
def side(python: str | Path, **variables: str | None) -> Iterator[subprocess.Popen[str]]:
    """A process of `side.py`; a variable that is None is removed."""
    changed = {**os.environ, **variables}
    environment = {name: value for name, value in changed.items() if value is not None}
    process = subprocess.Popen(
        [str(python), str(Path(__file__).with_name("side.py"))],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        assert process.stdin
        process.stdin.close()
        process.wait()


def measure(
    commit: str, seconds: float, names: Iterable[str] | None = None, python: str | None = None
) -> dict[str, Any]:
    """Times of each program before and now; python: one that has that commit, else it is built."""
    try:
        before = python or builds.interpreter(commit)
    except builds.BuildError as error:
        return {"left_out": str(error)}
    cases: dict[str, Any] = {"commit": commit, "cases": {}}
    with side(before, PYTHONPATH=None) as old, side(sys.executable) as new:
        for name in versions.PROGRAMS if names is None else names:
            both = {"before": Side(old, name), "now": Side(new, name)}
            cases["cases"][name] = {"times": interleave(both, seconds)}
    return cases


def install_seconds(commit: str) -> dict[str, Any]:
    """Seconds of `pip install .` of that commit and of HEAD on two cores, without a compiler's cache."""
    os.environ["CCACHE_DISABLE"] = "1"
    times: dict[str, list[float]] = {}
    pin.pin(2)
    try:
        for name, revision in (("before", commit), ("now", "HEAD")):
            with builds.worktree(revision) as tree:
                begin = time.perf_counter()
                builds.install(tree, "--no-cache-dir", "--target", str(tree.parent / "installed"))
                times[name] = [time.perf_counter() - begin]
    except builds.BuildError as error:
        return {"left_out": str(error)}
    finally:
        pin.pin()
    return {"commit": commit, "times": times}
