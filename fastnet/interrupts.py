"""Ctrl-C between steps and around blocks: what is half-way is finished before it is answered."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from fastnet.errors import UsageError

Given = TypeVar("Given")


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

    By the handler that was there before. A block within such a block ends without an answer, but its
    `between()` gives it: what is done by then must count for the outer one too. A second Ctrl-C is
    answered at once: it ends what does not end by itself. Other threads than the main one, in which
    Python answers no signal, are left alone.
    """
    main = threading.current_thread() is threading.main_thread()
    answer: Any = signal.getsignal(signal.SIGINT) if main else None
    if not callable(answer) or isinstance(answer, _Hold):
        yield answer.between if isinstance(answer, _Hold) else _nothing
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


class Bracket(Generic[Given]):
    """Base of what `with` begins and ends as a whole.

    A generator would not do: where Ctrl-C comes between its first half and the block, or between the
    block and its second half, that runs when the traceback is dropped. Here Ctrl-C is answered before the
    beginning or after the end. What Python calls no end of, as where Ctrl-C comes at the very call of
    `__exit__`, ends when it is dropped.
    """

    _begun = False

    def _begin(self) -> Given:
        """Take; returns what `as` names."""
        raise NotImplementedError

    def _end(self) -> None:
        """Give back what was taken, if it was."""
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
