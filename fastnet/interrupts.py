"""Ctrl-C at the end of a step: what is half-way is finished before KeyboardInterrupt is raised."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class _Hold:
    """A handler of Ctrl-C that keeps the first for later."""

    def __init__(self, answer: Callable[[int, Any], Any]) -> None:
        self.answer = answer
        self.came: list[tuple[int, Any]] = []

    def __call__(self, number: int, frame: Any) -> None:
        self.came.append((number, frame))
        if len(self.came) > 1:
            self.between()

    def between(self) -> None:
        """Answer what came."""
        if self.came:
            number, frame = self.came.pop()
            self.came.clear()
            self.answer(number, frame)


@contextmanager
def held_back() -> Iterator[Callable[[], None]]:
    """`with held_back() as between: …`: Ctrl-C is answered at `between()` or when the block ends.

    By the handler that was there before. Blocks within such a block change nothing. A second Ctrl-C is
    answered at once: it ends what does not end by itself. Other threads than the main one, in which
    Python answers no signal, are left alone.
    """
    main = threading.current_thread() is threading.main_thread()
    answer: Any = signal.getsignal(signal.SIGINT) if main else None
    if not callable(answer) or isinstance(answer, _Hold):
        yield _nothing
        return
    hold = _Hold(answer)
    # From here on a Ctrl-C raises nothing until the handler is back.
    signal.signal(signal.SIGINT, hold)
    try:
        yield hold.between
    finally:
        signal.signal(signal.SIGINT, answer)
        hold.between()


def _nothing() -> None:
    pass
