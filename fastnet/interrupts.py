"""Ctrl-C between steps and around blocks: it takes effect only after an unfinished part is done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from fastnet.errors import UsageError

Given = TypeVar("Given")


class _Hold:
    """A handler of Ctrl-C that postpones the first one."""

    def __init__(self, answer: Callable[[int, Any], Any]) -> None:
        self.answer = answer
        self.came: list[tuple[int, Any]] = []

    def __call__(self, number: int, frame: Any) -> None:
        self.came.append((number, frame))
        if len(self.came) > 1:
            self.between()

    def between(self) -> None:
        """Handle a postponed Ctrl-C."""
        if self.came:
            number, frame = self.came.pop()
            self.came.clear()
            self.answer(number, frame)


@contextmanager
def held_back() -> Iterator[Callable[[], None]]:
    """`with held_back() as between: …`: postpones Ctrl-C until `between()` or the end of the block.

    Then the previous handler handles it. At the end of a block within another such block nothing happens,
    but the inner `between()` handles Ctrl-C: the outer block must be consistent there too. A second Ctrl-C
    takes effect at once, to end a block that does not end. In other threads than the main one, in which
    Python handles no signals, the block does nothing.
    """
    main = threading.current_thread() is threading.main_thread()
    answer: Any = signal.getsignal(signal.SIGINT) if main else None
    if not callable(answer) or isinstance(answer, _Hold):
        yield answer.between if isinstance(answer, _Hold) else _nothing
        return
    hold = _Hold(answer)
    # From here a Ctrl-C raises nothing until the previous handler is back.
    signal.signal(signal.SIGINT, hold)
    try:
        yield hold.between
    finally:
        signal.signal(signal.SIGINT, answer)
        hold.between()


def _nothing() -> None:
    pass


class Bracket(Generic[Given]):
    """Base of context managers whose beginning and end Ctrl-C cannot interrupt.

    A generator is not enough: if Ctrl-C comes between its first half and the block, or between the block
    and its second half, the second half runs only when the traceback is freed. Here Ctrl-C takes effect
    before the beginning or after the end. If Python never calls the end, because Ctrl-C comes exactly at
    the call of `__exit__`, the end runs when the object is freed.
    """

    _begun = False

    def _begin(self) -> Given:
        """Acquire; returns the value for `as`."""
        raise NotImplementedError

    def _end(self) -> None:
        """Release what `_begin` has acquired, if anything."""
        raise NotImplementedError

    def __enter__(self) -> Given:
        if self._begun:
            raise UsageError("this block is open already; make another one")
        try:
            with held_back():
                self._begun = True
                return self._begin()
        except BaseException:
            self._leave()
            raise

    def __exit__(self, *_: Any) -> None:
        try:
            with held_back():
                self._leave()
        finally:
            self._leave()

    def __del__(self) -> None:
        self._leave()

    def _leave(self) -> None:
        if self._begun:
            self._begun = False
            self._end()
