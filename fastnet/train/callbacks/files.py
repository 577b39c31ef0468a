"""Callbacks that write files: logs, and trainers at the ends of epochs."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import string
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from fastnet.errors import (
    HyperparameterError,
    MissingExtra,
    StateDictError,
    check_flag,
    check_int,
    check_new_file,
    check_path,
    outside,
    shown,
)
from fastnet.parameter import check_count, check_names
from fastnet.train.callbacks.base import Callback
from fastnet.train.callbacks.monitors import Monitor


class _Log(Callback):
    """A text file with a row for each epoch.

    A fit that goes on from a file removes the rows that came after that was saved.
    """

    writes_files = True
    path: str
    append: bool

    def __init__(self, path: Any, append: bool = False, **others: Any) -> None:
        super().__init__(
            path=str(check_path("path", path)), append=check_flag("append", append), **others
        )
        self._size: int | None = (
            None  # bytes of the file after the last row; None: nothing is written
        )

    def check(self, names: Iterable[str]) -> None:
        """Raise HyperparameterError where no file can have the path."""
        check_new_file("path", self.path)

    def on_train_begin(self) -> None:
        """Begin a new file with the first row."""
        self._size = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Write a row: the record of the epoch, with "step" and "lr" of the step to come."""
        row = {**logs, "step": self.trainer.step, "lr": self.learning_rate()}
        with open(self.path, "r+b" if self._goes_on() else "wb") as file:
            end = file.seek(0, os.SEEK_END)
            if self._size is not None and end != self._size:
                if end < self._size:
                    warnings.warn(
                        f"{self.path} has lost rows: it has {end} bytes and had {self._size}; new rows "
                        "follow",
                        stacklevel=outside(),
                    )
                file.truncate(min(end, self._size))
                end = file.seek(0, os.SEEK_END)
            file.write(self._text(row, first=end == 0).encode())
            self._size = file.tell()

    def _goes_on(self) -> bool:
        return (self.append or self._size is not None) and os.path.exists(self.path)

    def _text(self, row: Mapping[str, Any], *, first: bool) -> str:
        """A row; the file is empty if it is the first."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """The size of the file in bytes, or None."""
        return {"size": self._size}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from the `state_dict` of a callback with equal arguments, or raise StateDictError."""
        check_names("state_dict", state, ["size"])
        size = state["size"]
        self._size = None if size is None else check_count("size", size)


class CSVLogger(_Log):
    """Writes a row of comma-separated values after each epoch: its record, "step" and "lr".

    path: of the file, which is made anew by a fit's first epoch.
    separator: a character (default ",").
    append: bool (default False). True: rows follow those that are there.

    The first line has the names. A fit that goes on from a checkpoint removes the rows of epochs that came
    after that was saved.
    """

    separator: str

    def __init__(self, path: Any, separator: str = ",", append: bool = False) -> None:
        if not isinstance(separator, str) or len(separator) != 1 or separator in '"\r\n':
            raise HyperparameterError(f"separator is {shown(separator)}; expected one character")
        super().__init__(path, append, separator=separator)

    def _text(self, row: Mapping[str, Any], *, first: bool) -> str:
        text = io.StringIO(newline="")
        writer = csv.writer(text, delimiter=self.separator, lineterminator="\n")
        if first:
            writer.writerow(row)
        writer.writerow(row.values())
        return text.getvalue()


class JSONLLogger(_Log):
    """Writes a line with a JSON object after each epoch: its record, "step" and "lr".

    path, append: as for CSVLogger. A number that is not finite, which JSON lacks, becomes null.
    """

    def __init__(self, path: Any, append: bool = False) -> None:
        super().__init__(path, append)

    def _text(self, row: Mapping[str, Any], *, first: bool) -> str:
        known = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in row.items()
        }
        return json.dumps(known) + "\n"


class TensorBoard(Callback):
    """Writes event files for TensorBoard: each number of an epoch's record and "lr", by step.

    log_dir: of the files (default "logs").

    Needs the extra `tensorboard` (tensorboardX). A fit that goes on from a checkpoint hides the events that
    came after that was saved.
    """

    writes_files = True
    log_dir: str

    def __init__(self, log_dir: Any = "logs") -> None:
        super().__init__(log_dir=str(check_path("log_dir", log_dir)))
        self._writer: Any = None
        self._purge: int | None = None

    def check(self, names: Iterable[str]) -> None:
        """Raise MissingExtra where the writer is not installed."""
        try:
            import tensorboardX  # noqa: F401
        except ImportError:
            raise MissingExtra(
                "TensorBoard needs tensorboardX: pip install fastnet-engine[tensorboard]"
            ) from None

    def on_train_begin(self) -> None:
        """Begin with the next epoch."""
        self._purge = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Write the record."""
        if self._writer is None:
            from tensorboardX import SummaryWriter

            self._writer = SummaryWriter(self.log_dir, purge_step=self._purge)
        step = self.trainer.step
        for name, value in {**logs, "lr": self.learning_rate()}.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def on_train_end(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def state_dict(self) -> dict[str, Any]:
        """The step of the last event."""
        return {"step": self.trainer.step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from the `state_dict` of a callback with equal arguments, or raise StateDictError."""
        check_names("state_dict", state, ["step"])
        self._purge = check_count("step", state["step"]) + 1

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_writer": None}


class ModelCheckpoint(Monitor):
    """Saves the trainer after epochs, for `Trainer.load` and `fastnet.load`.

    path: of the files. It may name fields of the epoch's record, as in
        "run-{epoch:03d}-{val_loss:.3f}.safetensors"; without one, each file replaces the last.
    monitor: name of a log (default "val_loss"), by which an epoch is the best.
    mode: "min", "max" or "auto" (default): "min" for losses, "max" for accuracies.
    save_best_only: bool (default False). True saves only epochs that are better than all before.
    every: integer ≥ 1 (default 1). Saves after every so many epochs (a best one always).
    keep: integer ≥ 1, or None (default: all). The number of files that stay: the last ones, and in any case
        the one of the best epoch. Only files of this fit are removed.

    All callbacks have seen the epoch when it is saved. `last_path` and `best_path` are the files of the
    last epoch saved and of the best. With save_best_only=False a fit without the monitored score saves all
    the same, and has no best file. Each fit starts anew. A fit goes on by
    `Trainer.load(path).resume(X, y)`; `fit(checkpoint=path)` also saves within epochs.
    """

    writes_files = saves_trainer = True
    path: str
    save_best_only: bool
    every: int
    keep: int | None
    last_path: str | None
    best_path: str | None

    def __init__(
        self,
        path: Any,
        monitor: str = "val_loss",
        mode: str = "auto",
        save_best_only: bool = False,
        every: int = 1,
        keep: int | None = None,
    ) -> None:
        super().__init__(monitor, mode)
        self.path = str(check_path("path", path))
        self.save_best_only = check_flag("save_best_only", save_best_only)
        self.every = check_int("every", every, low=1)
        self.keep = None if keep is None else check_int("keep", keep, low=1)
        self._fields = _fields(self.path)
        self._start()

    def _start(self) -> None:
        self.best = math.inf if self.mode == "min" else -math.inf
        self.last_path = self.best_path = None
        self._paths: list[str] = []  # that exist, the last one last
        self._due: str | None = None

    def check(self, names: Iterable[str]) -> None:
        """Raise HyperparameterError where the fit records no score or field that is needed."""
        if "{" not in os.path.dirname(self.path):
            check_new_file("path", self.path)
        known = [*names, "epoch", "seconds", "samples_per_second"]
        if self.save_best_only:
            super().check(known)
        for field in self._fields:
            if field not in known:
                raise HyperparameterError(
                    f"ModelCheckpoint: path is {self.path!r}, with the field {field!r}; this fit records "
                    f"{', '.join(known)}"
                )

    def on_train_begin(self) -> None:
        """Start anew."""
        self._start()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Decide whether this epoch is saved."""
        score = logs.get(self.monitor, math.nan)
        better = score < self.best if self.mode == "min" else score > self.best
        path = self.path.format(**logs) if self._fields else self.path
        self._due = None
        if better or (epoch % self.every == 0 and not self.save_best_only):
            self._due = self.last_path = path
            if path in self._paths:
                self._paths.remove(path)
            self._paths.append(path)
        if better:
            self.best, self.best_path = float(score), path

    def save(self, save: Callable[[Path], None]) -> None:
        """Save, then remove the files that are not to be kept."""
        if self._due is None:
            return
        path, self._due = self._due, None
        kept = self._paths if self.keep is None else self._paths[-self.keep :]
        left = [p for p in self._paths if p in kept or p == self.best_path]
        gone = [p for p in self._paths if p not in left]
        self._paths = left
        save(Path(path))
        for old in gone:
            with suppress(OSError):  # somebody else has removed it
                os.unlink(old)

    def state_dict(self) -> dict[str, Any]:
        """The best score, and the names of the files."""
        names = {
            "last_path": self.last_path,
            "best_path": self.best_path,
            "paths": list(self._paths),
        }
        return {"best": self.best, **names}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from the `state_dict` of a callback with equal arguments, or raise StateDictError."""
        check_names("state_dict", state, ["best", "last_path", "best_path", "paths"])
        paths = state["paths"]
        each = [
            state["last_path"],
            state["best_path"],
            *(paths if isinstance(paths, list) else [3]),
        ]
        if any(not (path is None or self._is_mine(path)) for path in each):
            raise StateDictError(
                f"state_dict has {shown(each)}; expected files that {self.path!r} names"
            )
        self.best = float(state["best"])
        self.last_path, self.best_path, *self._paths = each

    def _is_mine(self, path: Any) -> bool:
        """Whether a name is one that the path of this callback may give: it alone is ever removed."""
        if not isinstance(path, str):
            return False
        parts = string.Formatter().parse(self.path)
        pattern = [re.escape(text) + (r"[^/\\]*" if name else "") for text, name, *_ in parts]
        return re.fullmatch("".join(pattern), path) is not None


def _fields(path: str) -> list[str]:
    """The names of the fields in a path, or HyperparameterError."""
    try:
        return [name for _, name, _, _ in string.Formatter().parse(path) if name is not None]
    except ValueError as error:
        raise HyperparameterError(
            f"path is {shown(path)}: {error}; expected fields as in 'run-{{epoch:03d}}.safetensors'"
        ) from None
