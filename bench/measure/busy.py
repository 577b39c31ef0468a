"""How many threads that work for a process run, or are ready to run, and how much each has run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

PAUSE = 0.01  # seconds between two samples


@dataclass
class Seen:
    """What was seen of a process's threads, its main one left out.

    samples: how many saw how many busy threads. shares: of the processor's time, by thread, the
    largest first.
    """

    samples: Counter[int] = field(default_factory=Counter)
    shares: list[float] = field(default_factory=list)


@contextmanager
def watched() -> Iterator[Seen]:
    """While this is open, watch the threads of this process and of its children.

    Another process takes the samples, as a thread of this one would wait for Python's lock.
    """
    seen = Seen()
    command = [sys.executable, __file__, str(os.getpid())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as one:
        assert one.stdout is not None
        one.stdout.readline()
        yield seen
        said, _ = one.communicate()
    found = json.loads(said)
    seen.samples.update({int(busy): samples for busy, samples in found["samples"].items()})
    ticks = sorted(found["ticks"], reverse=True)
    seen.shares = [t / max(sum(ticks), 1) for t in ticks]


def _processes(root: int) -> Iterator[int]:
    """A process and its descendants, without this one."""
    yield root
    try:
        tasks = list(Path(f"/proc/{root}/task").iterdir())
        children = [int(c) for task in tasks for c in (task / "children").read_text().split()]
    except OSError:  # it has ended
        return
    for child in children:
        if child != os.getpid():
            yield from _processes(child)


def _threads(root: int) -> Iterator[tuple[str, bool, int]]:
    """Each thread but the main one of the root: its name, whether it is in state R, its ticks so far."""
    for process in _processes(root):
        for task in Path(f"/proc/{process}/task").glob("*"):
            try:
                words = (task / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has ended
                continue
            if task.name != str(root):
                yield f"{process}/{task.name}", words[0] == "R", int(words[11]) + int(words[12])


def _sample(root: int) -> None:
    """Take samples until the standard input ends, then write them."""
    ended, samples = threading.Event(), Counter[int]()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    first = {name: ticks for name, _, ticks in _threads(root)}
    last = dict(first)
    print("ready", flush=True)
    while not ended.wait(PAUSE):
        seen = list(_threads(root))
        samples[sum(busy for _, busy, _ in seen)] += 1
        last |= {name: ticks for name, _, ticks in seen}
    taken = [ticks - first.get(name, 0) for name, ticks in last.items()]
    print(json.dumps({"samples": samples, "ticks": taken}))


if __name__ == "__main__":
    _sample(int(sys.argv[1]))
