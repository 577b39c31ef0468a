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

import fastnet as fn

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


def test_a_bar_on_a_terminal():
    shown = on_a_terminal("end")
    for epoch in (1, 2, 3):
        assert re.search(rf"epoch {epoch}/3:   0%\|", shown)
    assert re.search(r"epoch 1/3: +[1-9]\d*%\|.*, loss \d\.\d{4}\]", shown)
    *lines, last = screen(shown)
    assert last == "" and len(lines) == 3  # the bars have gone
    assert all(re.fullmatch(LINE, line) for line in lines)


def test_a_bar_without_an_end_where_minibatches_come():
    shown = on_a_terminal("minibatches")
    assert re.search(r"epoch 1/3: +\d[\d.]*k? samples \[.*, loss \d\.\d{4}\]", shown)
    *lines, last = screen(shown)
    assert last == "" and all(re.fullmatch(LINE, line) for line in lines)


def test_lines_go_to_a_file_and_the_bar_to_the_terminal(tmp_path):
    with open(tmp_path / "out", "wb") as out:
        shown = on_a_terminal("end", stdout=out)
    assert "epoch 1/3:   0%|" in shown and screen(shown) == [""]
    lines = (tmp_path / "out").read_text().splitlines()
    assert len(lines) == 3 and all(re.fullmatch(LINE, line) for line in lines)


def test_no_bar_where_standard_error_is_a_file(tmp_path):
    with open(tmp_path / "err", "wb") as err:
        *lines, last = screen(on_a_terminal("end", stderr=err))
    assert last == "" and len(lines) == 3 and all(re.fullmatch(LINE, line) for line in lines)
    assert (tmp_path / "err").read_bytes() == b""


def test_the_bar_goes_when_a_fit_fails():
    shown = on_a_terminal("fail")
    assert "epoch 1/3:   0%|" in shown
    assert screen(shown) == ["failed", ""]
