"""What a fit shows: nothing, plain lines, or lines under a bar on a terminal."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import termios
from contextlib import suppress

import child
import numpy as np
import pytest

import fastnet as fn
from fastnet.train import progress

X = np.random.default_rng(0).normal(size=(40, 3))
LABELS = np.arange(40) % 2

NUMBER = r"\d+\.\d{4}"
TRAINING = rf"loss {NUMBER}  accuracy {NUMBER}"
SPEED = r"\d+\.\d{3} s  [\d,]+ samples/s"
VALIDATION = rf"val_loss {NUMBER}  val_accuracy {NUMBER}"


def fit(epochs=3, **options):
    model = fn.Sequential(fn.Linear(3, 2), seed=0)
    return fn.Trainer(model, fn.CrossEntropyLoss(), seed=0).fit(X, LABELS, epochs, **options)


def test_a_silent_fit(capfd):
    fit(verbose=0, validation_data=(X, LABELS))
    assert capfd.readouterr() == ("", "")


def test_plain_lines_where_there_is_no_terminal(capfd):
    history = fit(validation_data=(X, LABELS))
    out, err = capfd.readouterr()
    lines = out.splitlines()
    assert err == "" and len(lines) == 3
    for number, (line, record) in enumerate(zip(lines, history.records, strict=True), 1):
        assert re.fullmatch(rf"epoch {number}/3  {TRAINING}  {VALIDATION}  {SPEED}", line)
        assert f"loss {record['loss']:.4f}  accuracy {record['accuracy']:.4f}" in line
        assert f"val_loss {record['val_loss']:.4f}" in line


def test_a_process_without_streams(monkeypatch):
    """Under pythonw, for one, sys.stdout and sys.stderr are None."""
    with monkeypatch.context() as without:
        without.setattr(sys, "stdout", None)
        without.setattr(sys, "stderr", None)
        assert len(fit()) == 3


def test_lines_of_a_fit_that_goes_on(capfd):
    model = fn.Sequential(fn.Linear(3, 2))
    trainer = fn.Trainer(model, fn.CrossEntropyLoss(), metrics={"rows": lambda y, output: len(y)})
    trainer.fit(X, LABELS, 9)
    capfd.readouterr()
    trainer.fit(X, LABELS, 3)
    lines = capfd.readouterr().out.splitlines()
    for number, line in zip((10, 11, 12), lines, strict=True):
        assert re.fullmatch(rf"epoch {number}/12  loss {NUMBER}  rows 40\.0000  {SPEED}", line)


FIT = """
import json, sys, time
import numpy as np
import fastnet as fn

def metric(y, output):
    if len(y) == 3 and sys.argv[1] == "fail":
        raise LookupError("spam")
    time.sleep(0.05)  # four times an epoch: tqdm shows what is new after 0.1 s
    return 0.0

rng = np.random.default_rng(0)
x, labels = rng.normal(size=(2000, 3)), rng.integers(0, 2, size=2000)
model = fn.Sequential(fn.Linear(3, 2), fn.Dropout(0.5), seed=0, backend="reference")
trainer = fn.Trainer(model, fn.CrossEntropyLoss(), metrics={"metric": metric}, seed=0)
data = {"X": x, "y": labels, "batch_size": 10}
if sys.argv[1] == "minibatches":
    data = {"X": [(x[i : i + 10], labels[i : i + 10]) for i in range(0, 2000, 10)]}
try:
    trainer.fit(**data, epochs=3, validation_data=(x[:3], labels[:3]))
except LookupError:
    print("failed")
"""
LINE = (
    rf"epoch [123]/3  loss {NUMBER}  metric 0\.0000  val_loss {NUMBER}  val_metric 0\.0000  {SPEED}"
)


def on_a_terminal(*arguments, **streams):
    """What a fit in a process of its own writes to a terminal, which all its streams are save these."""
    terminal, end = pty.openpty()
    termios.tcsetwinsize(end, (24, 100))
    with open(terminal, "rb", buffering=0) as shown:
        process = subprocess.Popen(
            child.command(FIT, *arguments),
            env=child.environment(TERM="xterm"),
            **{"stdin": end, "stdout": end, "stderr": end, **streams},
        )
        os.close(end)
        blocks = []
        with suppress(OSError):  # what Linux says once nobody holds the other end
            while block := shown.read(1 << 16):
                blocks.append(block)
        assert process.wait(60) == 0, blocks
    return b"".join(blocks).decode()


def screen(text):
    """The lines that a terminal shows in the end."""
    lines = []
    for line in text.split("\n"):
        cells, column = {}, 0
        for character in line:
            if character == "\r":
                column = 0
            else:
                assert character.isprintable(), repr(character)
                cells[column] = character
                column += 1
        lines.append("".join(cells.get(i, " ") for i in range(max(cells, default=-1) + 1)).rstrip())
    return lines


BAR = r"epoch [123]/3: +\d+%\|.*\[\d\d:\d\d<\d\d:\d\d, .* samples/s, loss \d\.\d{4}\]"


def test_a_bar_on_a_terminal():
    """Over all epochs, with the loss and the time left, drawn ten times a second at most."""
    shown = on_a_terminal("end")
    bars = [part for part in re.split("[\r\n]", shown) if "%|" in part]
    assert all(re.fullmatch(BAR, bar) for bar in bars), bars
    shares = [int(re.search(r"(\d+)%", bar)[1]) for bar in bars]
    assert shares == sorted(shares) and shares[0] < 34 and shares[-1] > 67
    assert {bar[:9] for bar in bars} == {f"epoch {n}/3" for n in (1, 2, 3)}
    *lines, last = screen(shown)
    assert last == "" and len(lines) == 3  # the bar has gone
    assert all(re.fullmatch(LINE, line) for line in lines)
    assert len(bars) <= 10 * sum(float(line.split()[-4]) for line in lines) + 1


def test_a_bar_without_an_end_where_minibatches_come():
    shown = on_a_terminal("minibatches")
    assert re.search(r"epoch 1/3: +\d[\d.]*k? samples \[.*, loss \d\.\d{4}\]", shown)
    *lines, last = screen(shown)
    assert last == "" and all(re.fullmatch(LINE, line) for line in lines)


def test_lines_go_to_a_file_and_the_bar_to_the_terminal(tmp_path):
    with open(tmp_path / "out", "wb") as out:
        shown = on_a_terminal("end", stdout=out)
    assert re.search(BAR, shown) and screen(shown) == [""]
    lines = (tmp_path / "out").read_text().splitlines()
    assert len(lines) == 3 and all(re.fullmatch(LINE, line) for line in lines)


def test_no_bar_where_standard_error_is_a_file(tmp_path):
    with open(tmp_path / "err", "wb") as err:
        *lines, last = screen(on_a_terminal("end", stderr=err))
    assert last == "" and len(lines) == 3 and all(re.fullmatch(LINE, line) for line in lines)
    assert (tmp_path / "err").read_bytes() == b""


def test_the_bar_goes_when_a_fit_fails():
    shown = on_a_terminal("fail")
    assert re.search(BAR, shown)
    assert screen(shown) == ["failed", ""]


def test_small_numbers_have_digits():
    record = {"epoch": 7, "loss": 1.234e-9, "accuracy": 0.0, "seconds": 0.5}
    record |= {"samples_per_second": 2.0, "tiny": -0.00099, "small": 0.001, "bad": float("nan")}
    line = progress.epoch_line(record, 10)
    assert line.startswith(
        "epoch  7/10  loss 1.23e-09  accuracy 0.0000  tiny -9.90e-04  small 0.0010"
    )
    assert "  bad nan  " in line


class Clock:
    """Stands for the module `time`: each epoch takes so many seconds."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


class Terminal:
    """Stands for a standard error that is a terminal or not."""

    def __init__(self, there):
        self.there, self.encoding = there, "utf-8"

    def isatty(self):
        return self.there

    def write(self, text):
        pass

    def flush(self):
        pass


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


def records(first, count):
    return {
        "epoch": range(first, first + count),
        "loss": [0.5] * count,
        "seconds": [1e-6] * count,
        "samples_per_second": [1e6] * count,
    }


def numbers(text):
    return [int(re.match(r"epoch +(\d+)/", line)[1]) for line in text.splitlines()]


def run(shown, clock, epochs, seconds, at_once, stop=None):
    """Epochs that take so long, of which a native call runs so many; they stop before their time."""
    shown.begin(0, epochs)
    for first in range(1, (stop or epochs) + 1, at_once):
        clock.now += at_once * seconds
        if at_once == 1:
            shown.advance(4, lambda: 0.5)
            shown.epoch_ended({name: part[0] for name, part in records(first, 1).items()})
        else:
            shown.advance(4 * at_once, lambda: 0.5)
            shown.epochs_ended(records(first, at_once))
    shown.close()


def test_each_epoch_has_a_line_where_it_takes_a_tenth_of_a_second(clock, capsys):
    run(progress.Progress(1, 4), clock, 300, 0.1001, 1)
    assert numbers(capsys.readouterr().out) == [*range(1, 301)]


@pytest.mark.parametrize("at_once", [1, 50])
def test_of_short_epochs_few_have_lines(clock, capsys, at_once):
    """The first twenty, then multiples of a round number, about ten a second, and the last."""
    run(progress.Progress(1, 4), clock, 100_000, 1e-3, at_once)
    found = numbers(capsys.readouterr().out)
    assert found[:20] == [*range(1, 21)] and found[-1] == 100_000
    assert found[20:] == [*range(found[20], 100_001, 100)] and 100 <= found[20] <= 200


def test_of_a_hundred_thousand_epochs_in_a_tenth_of_a_second_the_first_and_the_last(clock, capsys):
    run(progress.Progress(1, 4), clock, 100_000, 1e-6, 20_000)
    assert numbers(capsys.readouterr().out) == [*range(1, 21), 100_000]


def test_lines_become_more_where_epochs_become_longer(clock, capsys):
    shown = progress.Progress(1, 4)
    shown.begin(0, 20_100)
    for epoch in range(1, 20_101):
        clock.now += 1e-4 if epoch <= 20_000 else 0.11
        shown.epoch_ended({name: part[0] for name, part in records(epoch, 1).items()})
    found = numbers(capsys.readouterr().out)
    assert len(found) < 20 + 20 + 101 and found[-95:] == [*range(20_006, 20_101)]


def test_the_last_epoch_of_a_fit_that_stops_has_a_line(clock, capsys):
    run(progress.Progress(1, 4), clock, 100_000, 1e-3, 1, stop=777)
    found = numbers(capsys.readouterr().out)
    assert found[-1] == 777 and found.count(777) == 1


def test_the_bar_of_short_epochs_is_drawn_ten_times_a_second(clock, monkeypatch):
    from tqdm import tqdm

    drawn = []
    monkeypatch.setattr(tqdm, "refresh", lambda bar, **_: drawn.append((bar.n, bar.desc)))
    monkeypatch.setattr(sys, "stderr", Terminal(True))
    shown = progress.Progress(1, 4)
    run(shown, clock, 20_000, 1e-3, 1)
    assert shown.bar is None and 190 <= len(drawn) <= 200
    assert drawn[0][0] >= 4 * 100 and drawn[-1][0] > 4 * 19_000
    for n, text in drawn:
        assert text == f"epoch {n // 4}/20000"


def test_a_fit_of_less_than_a_tenth_of_a_second_has_no_bar(clock, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal(True))
    monkeypatch.setitem(sys.modules, "tqdm", None)  # nor is it loaded
    run(progress.Progress(1, 4), clock, 99, 1e-3, 1)


def test_an_xor_fit_shows_its_progress_by_few_calls(monkeypatch, capsys):
    """By design: as many calls as native ones, of which each runs thousands of epochs."""
    calls = []
    for name in ("begin", "advance", "epoch_ended", "epochs_ended", "close"):
        plain = getattr(progress.Progress, name)

        def counted(self, *args, plain=plain, name=name):
            calls.append((name, len(args[0]["epoch"]) if name == "epochs_ended" else 0))
            return plain(self, *args)

        monkeypatch.setattr(progress.Progress, name, counted)
    x, y = np.array([[0, 0], [0, 1], [1, 0], [1, 1.0]]), np.array([[0], [1], [1], [0.0]])
    model = fn.Sequential(fn.Linear(2, 4), fn.Tanh(), fn.Linear(4, 1), seed=0)
    if model.backend != "c":
        pytest.skip("other backends run fewer epochs in a native call")
    history = fn.Trainer(model, fn.MSELoss(), fn.Adam(0.01), seed=0).fit(x, y, 100_000, 4)
    ended = [count for name, count in calls if name == "epochs_ended"]
    assert sum(ended) == len(history) == 100_000 and len(calls) <= 2 * len(ended) + 2
    assert len(ended) < 1000
    found = numbers(capsys.readouterr().out)
    assert found[:20] == [*range(1, 21)] and found[-1] == 100_000
    assert len(found) <= 22 + 10 * sum(history.history["seconds"]) * 5


def test_the_bits_of_a_fit_that_shows_its_progress(backend, capsys):
    def fitted(verbose):
        model = fn.Sequential(fn.Linear(3, 2), fn.Dropout(0.2), backend=backend, seed=0)
        trainer = fn.Trainer(model, fn.CrossEntropyLoss(), seed=0)
        history = trainer.fit(X, LABELS, 50, 7, verbose=verbose)
        values = [value.tobytes() for value in model.state_dict().values()]
        return values, history.history["loss"], history.history["accuracy"]

    assert fitted(0) == fitted(1)
    found = numbers(capsys.readouterr().out)
    assert found[:20] == [*range(1, 21)] and found[-1] == 50
