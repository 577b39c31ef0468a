"""Ctrl-C between steps and around blocks: it takes effect only after an unfinished part is done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Generic, TypeVar

from fastnet.errors import UsageError

Given = TypeVar("Given")


class _Hold:
    """A handler of Ctrl-C that keeps the first for later while a block holds it back."""

    def __init__(self, answer: Callable[[int, Any], Any]) -> None:
        self.answer = answer
        self.holds = False
        self.came: list[tuple[int, Any]] = []

    def __call__(self, number: int, frame: Any) -> None:
        self.came.append((number, frame))
        if len(self.came) > 1 or not self.holds:
            self.between()

    def between(self) -> None:
        """Handle a postponed Ctrl-C."""
        if self.came:
            number, frame = self.came.pop()
            self.came.clear()
            self.answer(number, frame)


_installed: _Hold | None = None  # by the main thread


@contextmanager
def holding_often(begins: bool = False) -> Iterator[_Hold | None]:
    """While this is open, `held_back` is cheap: its handler is there already.

    Ctrl-C is handled at once where no block postpones it; with `begins`, one does so from the beginning.
    Other threads than the main one, in which Python handles no signals, get None.
    """
    global _installed
    main = threading.current_thread() is threading.main_thread()
    answer: Any = signal.getsignal(signal.SIGINT) if main and _installed is None else None
    if not callable(answer):
        yield _installed if main else None
        return
    hold = _Hold(answer)
    hold.holds = True  # from here on a Ctrl-C raises nothing until `between`
    signal.signal(signal.SIGINT, hold)
    try:
        _installed, hold.holds = hold, begins
        if not begins:
            hold.between()
        yield hold
    finally:
        hold.holds, _installed = True, None
        if signal.getsignal(signal.SIGINT) is hold:  # and none that was put there meanwhile
            signal.signal(signal.SIGINT, answer)
        hold.between()


class held_back:  # noqa: N801
    """`with held_back() as between: …`: postpones Ctrl-C until `between()` or the end of the block.

    Then the previous handler handles it. At the end of a block within another such block nothing happens,
    but the inner `between()` handles Ctrl-C: the outer block must be consistent there too. A second Ctrl-C
    takes effect at once, to end a block that does not end. In other threads than the main one, in which
    Python handles no signals, the block does nothing.
    """

    _own: AbstractContextManager[_Hold | None] | None = None  # where no `holding_often` is open
    _hold: _Hold | None = None  # which this block lets postpone

    def __enter__(self) -> Callable[[], None]:
        hold = _installed
        if threading.current_thread() is not threading.main_thread():
            return _nothing
        if hold is None:
            self._own = holding_often(begins=True)
            hold = self._own.__enter__()
        elif not hold.holds:
            hold.holds, self._hold = True, hold
        return _nothing if hold is None else hold.between

    def __exit__(self, *_: Any) -> None:
        if self._own is not None:
            self._own.__exit__(None, None, None)
        elif self._hold is not None:
            self._hold.holds = False
            self._hold.between()


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
