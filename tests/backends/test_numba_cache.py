"""Compiled code in later processes: it is used, only where it fits, and nothing that befalls it matters."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import child
import pytest

import fastnet

pytest.importorskip("numba")

if os.environ.get("NUMBA_DISABLE_JIT") == "1":
    pytest.skip("nothing is compiled", allow_module_level=True)

# Predicts, after training or not; prints how often Numba compiled, and what was predicted.
USE = """
import json, os, sys
import numpy as np
from numba.core import event
import fastnet as fn

x = np.arange(24).reshape(8, 3) / 24

def use(train=False):
    model = fn.Sequential(fn.Linear(3, 2), fn.Sigmoid(), backend="numba", seed=1)
    if train:
        trainer = fn.Trainer(model, fn.MSELoss(), fn.SGD(0.1), seed=2)
        trainer.fit(x, x[:, :2], epochs=2, batch_size=4, verbose=0)
    return model.predict(x).tolist()

def report(**options):
    with event.install_recorder("numba:compile") as recorder:
        found = use(**options)
    print(json.dumps([len(recorder.buffer), found]))
"""
RUN = USE + "report()"
TRAIN = USE + "report(train=True)"


def run(place, code=RUN, path=(), **variables):
    return child.run(code, path=path, NUMBA_CACHE_DIR=str(place), **variables)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A filled cache, and what the process that filled it found."""
    place = tmp_path_factory.mktemp("cache")
    compiled, found = run(place)
    assert compiled > 0
    return place, found


@pytest.fixture
def cache(first, tmp_path):
    """A copy of it, to be maltreated."""
    shutil.copytree(first[0], tmp_path / "cache")
    return tmp_path / "cache"


def files(place):
    return sorted(p for p in Path(place).rglob("*") if p.is_file())


def test_a_later_process_compiles_nothing(first):
    place, found = first
    before = {p: p.stat().st_mtime_ns for p in files(place)}
    assert run(place) == [0, found]
    assert {p: p.stat().st_mtime_ns for p in files(place)} == before


def test_training_keeps_what_it_used_and_nothing_else(tmp_path):
    compiled, found = run(tmp_path, code=TRAIN)
    assert compiled > 0
    kernels = [
        f"{op}_{phase}" for op in ("linear", "mse", "sigmoid") for phase in ("forward", "vjp")
    ]
    expected = [f"{kernel}-float32" for kernel in (*kernels, "sgd_update")]
    converted = "convert-float64-float32"
    assert [p.name for p in files(tmp_path)] == sorted([converted, *expected, "run", "train"])
    assert run(tmp_path, code=TRAIN) == [0, found]


def test_files_that_are_damaged_or_in_each_others_place_are_made_anew(first, cache):
    one, two, three = files(cache)
    two.write_bytes(one.read_bytes())
    os.truncate(one, one.stat().st_size // 2)
    three.write_bytes(os.urandom(5000))
    compiled, found = run(cache)
    assert compiled > 0
    assert found == first[1]
    assert run(cache) == [0, found]


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/no/such"])
def test_a_directory_that_cannot_be_made(first, tmp_path, place):
    (tmp_path / "file").write_text("text")
    compiled, found = run(tmp_path / place)
    assert compiled > 0
    assert found == first[1]


def test_no_directory_at_all(first):
    absent = {"HOME": "nowhere", "XDG_CACHE_HOME": ""}
    assert run("", **absent)[1] == first[1]


def test_a_full_disk(first, tmp_path):
    pytest.importorskip("resource")
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
    compiled, found = run(tmp_path, code=limit + RUN)
    assert compiled > 0
    assert found == first[1]
    assert files(tmp_path) == []


def test_an_edit_of_what_a_kernel_calls_in_another_file(first, cache, tmp_path):
    shutil.copytree(Path(fastnet.__file__).parent, tmp_path / "edited" / "fastnet")
    edited = tmp_path / "edited"
    assert run(cache, path=(edited,)) == [0, first[1]], "the same sources in another place"
    source = edited / "fastnet/backends/numba/elementary.py"
    text = source.read_text()
    assert text.count("e = exp(-abs(x))") == 1
    source.write_text(text.replace("e = exp(-abs(x))", "e = exp(-abs(x)) / type(x)(2)"))
    compiled, found = run(cache, path=(edited,))
    assert compiled > 0
    assert found != first[1]
    assert run(cache, path=(edited,)) == [0, found]
    assert run(cache) == [0, first[1]]


@pytest.mark.parametrize(
    "setting", [{"NUMBA_OPT": "1"}, {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}]
)
def test_other_settings_of_numba_have_code_of_their_own(cache, setting):
    assert run(cache, **setting)[0] > 0


def test_processes_that_compile_at_once(first, tmp_path):
    started = [
        subprocess.Popen(
            child.command(RUN),
            env=child.environment(NUMBA_CACHE_DIR=str(tmp_path)),
            stdout=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    for process in started:
        assert json.loads(process.communicate(timeout=300)[0])[1] == first[1]
        assert process.returncode == 0
    assert [p.name for p in files(tmp_path)] == [p.name for p in files(first[0])]
    assert run(tmp_path) == [0, first[1]]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("busy", ["idle", "compiling"])
def test_a_fork_after_use_or_while_a_thread_compiles(first, cache, tmp_path, busy):
    code = """
import threading
if BUSY:
    compiling = threading.Event()
    from fastnet.backends.numba.natives import Natives
    compile = Natives._compile
    Natives._compile = lambda *args: (compiling.set(), compile(*args))[1]
    thread = threading.Thread(target=use)
    thread.start()
    assert compiling.wait(60)
else:
    use()
pid = os.fork()
if pid == 0:
    signal.alarm(60)
    report()
    sys.stdout.flush()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
"""
    text = USE + "import signal\n" + code.replace("BUSY", str(busy == "compiling"))
    compiled, found = run(cache if busy == "idle" else tmp_path / "empty", code=text)
    assert found == first[1]
    assert compiled == 0 or busy == "compiling"


def test_a_kernel_of_somebody_else_is_neither_kept_nor_replaced(first, cache):
    code = """
from fastnet.backends.numba.kernels.registry import kernel

@kernel
def sigmoid_forward(y, x):
    y[:] = 7
"""
    compiled, found = run(cache, code=USE + code + "report()")
    assert compiled > 0
    assert found == [[7, 7]] * 8
    assert run(cache) == [0, first[1]]


def test_code_that_needs_what_is_not_in_the_process_is_refused():
    from fastnet.backends.numba.natives import Loaded

    header = json.dumps({"function": "f", "needs": ["memcpy", "no_such_function_here"]})
    with pytest.raises(ImportError, match="no_such_function_here"):
        Loaded(header.encode() + b"\n")


def test_nothing_is_kept_without_jit(tmp_path):
    compiled, _ = run(tmp_path, NUMBA_DISABLE_JIT="1")
    assert compiled == 0
    assert files(tmp_path) == []
