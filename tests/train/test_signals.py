"""Signals during a fit with a checkpoint: the file is complete, and the model at a minibatch's end."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import textwrap
import time

import child
import numpy as np
import pytest

import fastnet as fn
from fastnet.errors import FastnetError
from fastnet.files import atomic, tensors

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


@pytest.fixture(autouse=True)
def handlers():
    """Python's own, also where the tests run in the background of a shell, which ignores SIGINT there."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


# A fit that tells when it begins, and trains for a minute if nobody stops it.
FIT = """
    import sys, numpy as np, fastnet as fn
    kind, path, batch = sys.argv[1], sys.argv[2], int(sys.argv[3])
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4000, 8)).astype("f"), rng.integers(0, 3, 4000)
    layers = fn.Linear(8, 32), fn.BatchNorm1d(32), fn.ReLU(), fn.Dropout(0.2), fn.Linear(32, 3)
    model = fn.Sequential(*layers, backend=kind, seed=1)
    trainer = fn.Trainer(model, fn.CrossEntropyLoss(), fn.Adam(), seed=2)
    class Told(fn.Callback):
        def on_train_begin(self):
            print("fitting", flush=True)
    trainer.fit(x, y, epochs=10**6, batch_size=batch, validation_data=(x[:1000], y[:1000]), verbose=0,
                callbacks=[Told()], checkpoint=path, checkpoint_every=sys.argv[4])
"""


def started(kind, path, batch, every="1 h"):
    """A process that is fitting."""
    process = subprocess.Popen(
        child.command(textwrap.dedent(FIT), kind, path, batch, every),
        env=child.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    line = process.stdout.readline()
    assert line == "fitting\n", process.stderr.read()
    return process


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("batch", [32, 4000])
def test_a_signal_saves_and_leaves(backend, tmp_path, number, status, batch):
    path = tmp_path / "run.safetensors"
    process = started(backend, path, batch)
    time.sleep(random.uniform(0.05, 0.5))
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    # Python itself dies of the SIGINT that nobody caught, after its traceback.
    assert process.returncode in (status, -number), told
    trainer = fn.Trainer.load(path, callbacks=[Told()])
    assert trainer._unfinished is not None and trainer.step > 0
    assert trainer.optimizer.state_dict(trainer.model)["steps"] == trainer.step
    at = trainer._unfinished[0]["position"]["done"]
    assert trainer.step == trainer.epoch * -(-4000 // batch) + at
    assert os.listdir(tmp_path) == [path.name]


class Told(fn.Callback):
    """Stands for the one in the other process."""


def make():
    layers = fn.Linear(3, 4), fn.Tanh(), fn.Linear(4, 1)
    return fn.Trainer(fn.Sequential(*layers, backend="reference", seed=1), fn.MSELoss(), seed=2)


X = np.random.default_rng(0).normal(size=(40, 3)).astype("f")
Y = X[:, :1]


class Raises(fn.Callback):
    """Sends this process a signal after an epoch."""

    def __init__(self, number, times=1):
        super().__init__(number=number, times=times)

    def on_epoch_end(self, epoch, logs):
        if epoch == 2:
            for _ in range(self.times):
                signal.raise_signal(self.number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_handler_of_the_users_own_is_called_and_put_back(tmp_path, number):
    path, came = tmp_path / "run", []

    def own(signum, frame):
        came.append((signum, path.exists()))

    before = signal.signal(number, own)
    expected = KeyboardInterrupt if number == signal.SIGINT else SystemExit
    try:
        trainer = make()
        with pytest.raises(expected) as raised:
            trainer.fit(X, Y, epochs=9, verbose=0, callbacks=[Raises(number)], checkpoint=path)
        assert signal.getsignal(number) is own
    finally:
        signal.signal(number, before)
    assert came == [(number, True)] and trainer.epoch == 2  # saved before the handler is called
    assert trainer.stop_reason == expected.__name__
    if number == signal.SIGTERM:
        assert raised.value.code == 143
    state = tensors.read(path).described("trainer")["fit"]
    assert state["reason"] is None and state["position"]["done"] == 0


def test_handlers_are_there_with_a_checkpoint_alone(tmp_path):
    seen = []

    class Looks(fn.Callback):
        def on_epoch_end(self, epoch, logs):
            seen.append(signal.getsignal(signal.SIGTERM))

    make().fit(X, Y, verbose=0, callbacks=[Looks()])
    make().fit(X, Y, verbose=0, callbacks=[Looks()], checkpoint=tmp_path / "run")
    assert seen[0] == signal.SIG_DFL != seen[1]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_ignored_signal_stays_ignored(tmp_path):
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        trainer = make()
        called = [Raises(signal.SIGTERM)]
        trainer.fit(X, Y, epochs=3, verbose=0, callbacks=called, checkpoint=tmp_path / "run")
        assert trainer.epoch == 3
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_second_one_acts_at_once(tmp_path):
    path = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        make().fit(X, Y, epochs=3, verbose=0, callbacks=[Raises(signal.SIGINT, 2)], checkpoint=path)
    assert not path.exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_save_that_fails_leaves_the_training_intact(tmp_path, monkeypatch):
    straight, trainer = make(), make()
    straight.fit(X, Y, epochs=4, verbose=0)
    path = tmp_path / "run"
    trainer.fit(X, Y, epochs=1, verbose=0, checkpoint=path)
    before = path.read_bytes()
    with monkeypatch.context() as broken:

        def full(*_):
            raise OSError(28, "No space left on device")

        broken.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left on device") as raised:
            trainer.fit(X, Y, epochs=3, verbose=0, checkpoint=path, checkpoint_every="1 epoch")
    assert isinstance(raised.value, FastnetError) and raised.value.filename == str(path)
    assert path.read_bytes() == before and trainer.epoch == 2  # which was to be saved
    trainer.fit(X, Y, epochs=2, verbose=0)
    assert trainer.model.predict(X).tobytes() == straight.model.predict(X).tobytes()


SAVES = """
    import sys, numpy as np, fastnet as fn
    path = sys.argv[1]
    layers = fn.Linear(20, 200), fn.ReLU(), fn.Linear(200, 200), fn.ReLU(), fn.Linear(200, 1)
    model = fn.Sequential(*layers, backend="reference", seed=1)
    trainer = fn.Trainer(model, fn.MSELoss(), fn.Adam(), seed=2)
    x = np.random.default_rng(0).normal(size=(64, 20)).astype("f")
    print("saving", flush=True)
    trainer.fit(x, x[:, :1], 10**6, 16, verbose=0, checkpoint=path, checkpoint_every="1 step")
"""


def kills(tmp_path, count, seed):
    """Kill a process that saves all the time, again and again; each goes on from what the last has left."""
    path, draw, steps = tmp_path / "run.safetensors", random.Random(seed), 0
    for _ in range(count):
        process = subprocess.Popen(
            child.command(textwrap.dedent(SAVES), path),
            env=child.environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout.readline() == "saving\n"
        time.sleep(draw.expovariate(1 / 0.05))
        process.kill()
        process.communicate()
        if path.exists():
            trainer = fn.Trainer.load(path)  # its digest is right
            assert trainer.step >= steps
            assert trainer.optimizer.state_dict(trainer.model)["steps"] == trainer.step
            steps = trainer.step
    trainer = fn.Trainer.load(path)
    tensors.write(path, {"kind": "test"}, {})
    assert os.listdir(tmp_path) == [path.name]  # and no temporary file
    return trainer


def test_kills_at_random_moments_lose_nothing(tmp_path):
    kills(tmp_path, 30, 0)


@pytest.mark.slow
def test_many_kills_at_random_moments_lose_nothing(tmp_path):
    kills(tmp_path, 300, 1)


def test_a_killed_save_leaves_what_the_next_one_removes(tmp_path):
    path = tmp_path / "net.safetensors"
    code = """
        import os, signal, sys, fastnet as fn
        os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)
        fn.Sequential(fn.Linear(2, 1)).save(sys.argv[1])
    """
    done = subprocess.run(
        child.command(textwrap.dedent(code), path), env=child.environment(), check=False
    )
    assert done.returncode == -signal.SIGKILL
    (left,) = os.listdir(tmp_path)
    assert left.endswith(atomic.ENDING)
    fn.Sequential(fn.Linear(2, 1)).save(path)
    assert os.listdir(tmp_path) == [path.name]
