"""How many threads that work for a process run, or are ready to run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PAUSE = 0.01  # seconds between two samples


@contextmanager
def watched() -> Iterator[Counter[int]]:
    """While this is open: how many samples saw how many busy threads, this process's main one left out.

    Threads of children count. Another process takes the samples, as a thread of this one would wait for
    Python's lock.
    """
    seen: Counter[int] = Counter()
    command = [sys.executable, __file__, str(os.getpid())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as one:
        assert one.stdout is not None
        one.stdout.readline()
        yield seen
        said, _ = one.communicate()
    seen.update({int(busy): samples for busy, samples in json.loads(said).items()})


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


def _busy(root: int) -> int:
    """The number of threads in state R, without the main one of the root."""
    count = 0
    for process in _processes(root):
        for task in Path(f"/proc/{process}/task").glob("*"):
            try:
                state = (task / "stat").read_text().rpartition(")")[2].split()[0]
                count += state == "R" and task.name != str(root)
            except OSError:
                continue
    return count


def _sample(root: int) -> None:
    """Take samples until the standard input ends, then write them."""
    ended, seen = threading.Event(), Counter[int]()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    print("ready", flush=True)
    while not ended.wait(PAUSE):
        seen[_busy(root)] += 1
    print(json.dumps(seen))


if __name__ == "__main__":
    _sample(int(sys.argv[1]))
