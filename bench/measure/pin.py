"""One core and one thread for everything that is measured; import this before NumPy.

FASTNET_BENCH_CORES=2 leaves two cores, for the comparison of two threads with one.
"""

from __future__ import annotations

import os

for _variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"

_CORES = "FASTNET_BENCH_CORES"
_given = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


def pin(count: int | None = None) -> list[int] | None:
    """Bind this process to the last of the cores it may use, as many as asked for; None where it cannot."""
    if not _given:
        return None
    cores = sorted(_given)[-(count or int(os.environ.get(_CORES, "1"))) :]
    os.sched_setaffinity(0, cores)
    return cores


def widen() -> None:
    """Let this process use all the cores that it was given."""
    if _given:
        os.sched_setaffinity(0, _given)


def run_on(cores: int | None, command: list[str]) -> str:
    """What a program prints that measures on more cores than this process has; None: all."""
    import subprocess

    environment = {**os.environ, _CORES: str(cores or len(_given))}
    done = subprocess.run(
        command, env=environment, preexec_fn=widen, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


CORES = pin()
