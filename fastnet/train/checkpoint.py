"""Checkpoints: a fit that is saved as it goes on, and goes on where it was saved."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastnet.errors import HyperparameterError, check_new_file, shown
from fastnet.files import tensors
from fastnet.train import saved
from fastnet.train.run import Fit
from fastnet.train.standing import Pauses

UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0}
TERMINATED = 128 + 15  # the exit status of a program that SIGTERM has ended


class Every:
    """How often to save: by time, or after so many epochs or steps."""

    def __init__(self, text: Any) -> None:
        found = (
            re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", text)
            if isinstance(text, str)
            else None
        )
        number = float(found[1]) if found else 0.0
        unit = found[2].removesuffix("s") or "s" if found else ""
        self.seconds: float | None = None
        self.epochs: int | None = None
        self.steps: int | None = None
        if unit in UNITS and number:
            self.seconds = number * UNITS[unit]
        elif unit in ("epoch", "step") and number >= 1 and number == int(number):
            self.epochs, self.steps = (
                (int(number), None) if unit == "epoch" else (None, int(number))
            )
        else:
            raise HyperparameterError(
                f'checkpoint_every is {shown(text)}; expected a time, as "60s", "5 min" or "1 h", or '
                '"5 epochs" or "2000 steps"'
            )


class Checkpoint(Pauses):
    """Saves a fit at its pauses, and leaves it there after Ctrl-C or SIGTERM."""

    def __init__(self, path: Any, every: Any) -> None:
        self.path: Path = check_new_file("checkpoint", path)
        self.every = Every(every)
        self.fit: Any = None
        self.came: tuple[int, Any] | None = None  # the first signal, to be handled at a pause
        self._answers: dict[int, Any] = {}
        self._last = 0, 0.0  # step and time of the last save

    def begin(self, fit: Fit) -> None:
        """Take care of a fit; continue from the file, if there is one."""
        if self.every.steps is not None and not fit.run.goes_on_within:
            raise HyperparameterError(
                f'checkpoint_every is "{self.every.steps} steps" and X gives minibatches, or a sampler '
                "depends on losses, with which a fit goes on at the begin of an epoch alone; expected a "
                'time or epochs, as "60s" or "1 epoch"'
            )
        self.fit, trainer, fit.run.pauses = fit, fit.run.trainer, self
        if self.path.exists():
            self._continue()
        self._last = trainer.step, time.monotonic()

    def _continue(self) -> None:
        fit = self.fit
        contents = tensors.read(self.path)
        description = contents.described("trainer")
        state = saved.fit_in(contents, description)
        if state is None:
            raise HyperparameterError(
                f"checkpoint is {shown(str(self.path))}, which holds a trainer outside a fit; load it by "
                "fn.Trainer.load(path), or give the checkpoint another name"
            )
        if differs := saved.difference(fit.start, state["start"]):
            raise HyperparameterError(
                f"checkpoint {self.path} is of another configuration: {'; '.join(differs[:8])}. Restore "
                "it, or give the checkpoint another name"
            )
        saved.restore(fit.run.trainer, contents, description)
        saved.go_on(fit, state, f"checkpoint {self.path}")

    @contextmanager
    def signals(self) -> Iterator[None]:
        """While this is open, Ctrl-C and SIGTERM wait for the next pause; the second one acts at once."""
        if threading.current_thread() is threading.main_thread():
            for number in (int(signal.SIGINT), int(signal.SIGTERM)):
                answer = signal.getsignal(number)
                if answer is not None and answer is not signal.SIG_IGN:  # None: not Python's
                    self._answers[number] = answer
                    signal.signal(number, self._signalled)
        try:
            yield
        finally:
            for number, answer in self._answers.items():
                if signal.getsignal(number) == self._signalled:
                    signal.signal(number, answer)
        if self.came is not None:  # after the last pause
            self._leave()

    def _signalled(self, number: int, frame: Any) -> None:
        again, self.came = self.came is not None, (number, frame)
        if again:
            self._leave()

    def _leave(self) -> None:
        """What would have happened when the signal came; a program that goes on then leaves the fit."""
        assert self.came is not None
        (number, frame), self.came = self.came, None
        answer = self._answers[number]
        if callable(answer):
            answer(number, frame)
        if number == signal.SIGTERM:
            raise SystemExit(TERMINATED)
        raise KeyboardInterrupt

    def pause(self) -> None:
        """Save if it is time; after a signal save and leave."""
        if self.came is not None:
            self.save()
            self._leave()
        elif self._is_due():
            self.save()

    def leave(self) -> None:
        """After a signal leave; the file stays as it is."""
        if self.came is not None:
            self._leave()

    def _is_due(self) -> bool:
        run, (step, then) = self.fit.run, self._last
        now, every = run.trainer.step, self.every
        if every.seconds is not None:
            return time.monotonic() - then >= every.seconds
        if now == step:
            return False
        if every.steps is not None:
            return bool(now % every.steps == 0)
        return bool(run.position.between_epochs and run.trainer.epoch % every.epochs == 0)

    def steps(self) -> int | None:
        """Steps until the next save by steps."""
        every = self.every.steps
        return None if every is None else every - self.fit.run.trainer.step % every

    def epochs(self) -> int | None:
        """Epochs until the next save by epochs."""
        every = self.every.epochs
        return None if every is None else every - self.fit.run.trainer.epoch % every

    def end(self, reason: str) -> None:
        """Save the fit that is over, unless the file says so already."""
        run, resumed = self.fit.run, self.fit.resumed
        if resumed is None or resumed["reason"] != reason or self._last[0] != run.trainer.step:
            self.save(reason)

    def save(self, reason: str | None = None) -> None:
        """Save the fit as it stands. reason: why it is over, if it is."""
        trainer = self.fit.run.trainer
        if self.fit.run.speaks:
            saved.save(trainer, self.path, self.fit.state_dict(reason))
        self._last = trainer.step, time.monotonic()
