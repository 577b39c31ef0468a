"""Ready: loaded steps that wait to be run, alone or together with those of other models."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Any, TypeVar

from fastnet.backends.executor import Executor
from fastnet.interrupts import held_back

Result = TypeVar("Result")
# What yields steps to be run by its caller, and goes on when they are done.
Waiting = Generator["Ready", None, Result]


class Ready:
    """Steps of an executor's chunk that are to be run: those before `end` that are still to do.

    counted: a function that counts what has been run since its last call; Ctrl-C waits for it.
    """

    def __init__(
        self, executor: Executor, end: int, counted: Callable[[Ready], None] | None = None
    ) -> None:
        self.executor, self.end, self.counted = executor, end, counted
        self.seconds = 0.0  # that the steps took so far

    @property
    def left(self) -> int:
        """The number of steps still to do; an evaluation that is still to end counts as one."""
        return self.end - self.executor.steps_done + self.executor.unevaluated

    def count(self, seconds: float) -> None:
        """Count the steps of a native call, which took so long."""
        self.seconds += seconds
        if self.counted is not None:
            self.counted(self)

    def run(self, most: int | None = None) -> None:
        """Run all steps in one native call, or as many as `most`; raises as the executor does."""
        end = self.end if most is None else min(self.end, self.executor.steps_done + most)
        begun = time.perf_counter()
        with held_back():  # until all that counts steps has counted these
            try:
                self.executor.run(end)
            finally:
                self.count(time.perf_counter() - begun)


def finish(waiting: Waiting[Result]) -> Result:
    """The result of something that runs its steps itself."""
    try:
        ready: Any = next(waiting)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    raise AssertionError(f"{ready} waits for nobody")
