"""The native engine in other builds, which replay what this process computes: for aarch64 under an
emulator, and with sanitizers, every tensor at the end of a piece of the heap."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sizes
from bits import net, train
from engines import fma_levels
from gradcheck import written
from instructions import by_bfdot, linear_of
from onecall import Call, calls_at
from recorded import Job, Recorder, one_kernel

import fastnet as fn
from fastnet.backends import registry
from fastnet.layers.bfloat16_linear import round_to_bfloat16
from fastnet.op import KERNELS, Array

if reason := fn.backends()["c"].reason:
    pytest.skip(reason, allow_module_level=True)

NATIVE = Path(__file__).parents[1] / "native"
C: Any = registry.get("c")
LEVELS = range(len(C.levels()))
# So that levels have the same numbers in a build as here.
SCALAR_LEVEL = f"-DFASTNET_SCALAR_LEVEL={'ON' if 'x86-64-fma' in C.levels() else 'OFF'}"
CROSS = "aarch64-linux-gnu-gcc"
EMULATOR = "qemu-aarch64"
PROCESSOR = "QEMU_CPU"  # by which the emulator takes another than its best
BFDOT_LEVEL = 1  # of aarch64


class Replay:
    """A build of replay, and which of its levels are to equal which of this process's."""

    def __init__(
        self, root: Path, options: Iterable[str], prefix: list[str], levels: dict[int, int]
    ) -> None:
        self.levels = levels
        cmake = found("cmake")
        self._command = [*prefix, str(root / "replay")]
        subprocess.run([cmake, "-S", NATIVE, "-B", root, *options], check=True, timeout=120)
        cores = str(len(os.sched_getaffinity(0)))
        subprocess.run([cmake, "--build", root, "--parallel", cores], check=True, timeout=900)

    def __call__(self, jobs: list[Job], level: int, threads: int) -> list[dict[str, Array]]:
        """The results of each job."""
        written = io.BytesIO()
        for job in jobs:
            job.write(written)
        done = subprocess.run(
            [*self._command, str(level), str(threads)],
            input=written.getvalue(),
            capture_output=True,
            timeout=900,
            check=False,
            env={name: v for name, v in os.environ.items() if name != "LD_PRELOAD"},
        )
        complaint = done.stderr.decode()
        assert (done.returncode, complaint) == (0, ""), complaint
        results = io.BytesIO(done.stdout)
        found = [job.read(results) for job in jobs]
        assert not results.read()
        return found


def found(tool: str) -> str | None:
    """Where a tool is: beside this Python, or on the path."""
    return shutil.which(tool, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")


def missing(*tools: str) -> str | None:
    """Why a build is not possible here, in words."""
    if gone := [tool for tool in tools if not found(tool)]:
        return f"needs {', '.join(gone)}"
    cmake = subprocess.run([found("cmake") or "", "--version"], capture_output=True, check=True)
    version = re.search(r"(\d+)\.(\d+)", cmake.stdout.decode())
    if version is None or tuple(map(int, version.groups())) < (3, 26):
        return "needs CMake 3.26"
    return None


@pytest.fixture(scope="module")
def aarch64(tmp_path_factory: pytest.TempPathFactory) -> Replay:
    reason = missing("cmake", CROSS, EMULATOR) or (None if fma_levels() else "needs FMA")
    if reason and os.environ.get("FASTNET_REQUIRE_QEMU", "0") != "0":
        pytest.fail(f"FASTNET_REQUIRE_QEMU is set: {reason}")
    if reason:
        pytest.skip(f"{reason} (Debian: gcc-aarch64-linux-gnu, libc6-dev-arm64-cross, qemu-user)")
    options = {
        "BUILD_TYPE": "Release",
        "SYSTEM_NAME": "Linux",
        "SYSTEM_PROCESSOR": "aarch64",
        "C_COMPILER": CROSS,
        "EXE_LINKER_FLAGS": "-static",
    }
    given = [f"-DCMAKE_{name}={value}" for name, value in options.items()]
    emulator = found(EMULATOR)
    assert emulator
    return Replay(tmp_path_factory.mktemp("aarch64"), given, [emulator], {0: fma_levels()[-1]})


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Replay:
    if reason := missing("cmake", "gcc"):
        pytest.skip(reason)
    options = ["-DCMAKE_BUILD_TYPE=Sanitize", "-DCMAKE_C_COMPILER=gcc", SCALAR_LEVEL]
    return Replay(tmp_path_factory.mktemp("sanitized"), options, [], {n: n for n in LEVELS})


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> Replay:
    """Under the thread sanitizer, which sees where two threads of a team touch one place."""
    if reason := missing("cmake", "gcc"):
        pytest.skip(reason)
    flag = "-fsanitize=thread"
    program = ["gcc", flag, "-x", "c", "-", "-o", os.devnull]
    if subprocess.run(program, input=b"int main(void) { return 0; }", check=False).returncode:
        pytest.skip("gcc has no thread sanitizer")
    options = [f"-DCMAKE_C_FLAGS={flag} -g", f"-DCMAKE_EXE_LINKER_FLAGS={flag}"]
    options += ["-DCMAKE_C_COMPILER=gcc", SCALAR_LEVEL]
    return Replay(tmp_path_factory.mktemp("raced"), options, [], {n: n for n in LEVELS})


BUILDS = ["aarch64", *(pytest.param(b, marks=pytest.mark.slow) for b in ("sanitized", "raced"))]


@pytest.fixture(params=BUILDS)
def replay(request: pytest.FixtureRequest) -> Iterator[Replay]:
    before = C.level()
    yield request.getfixturevalue(request.param)
    C.set_level(before)


def check(replay: Replay, made: list[Call], threads: int) -> None:
    """Every call gives the same bits in the other build as here on one thread."""
    jobs = [one_kernel(call) for call in made]
    for theirs, ours in replay.levels.items():
        C.set_level(ours)
        for call, results in zip(made, replay(jobs, theirs, threads), strict=True):
            for name, want in call.run(C).items():
                have = results[name]
                message = f"{call.kernel.name}, {call.dtype}, {name}, level {theirs}"
                np.testing.assert_array_equal(have.view("u1"), want.view("u1"), err_msg=message)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kernels_at_small_sizes(replay, dtype, threads):
    made = []
    for kernel in KERNELS.values():
        made += calls_at([*sizes.small(kernel), (19, (67, 33))], kernel, dtype)
    check(replay, made, threads)


@pytest.mark.slow
@pytest.mark.parametrize("name", KERNELS)
def test_kernels_at_awkward_sizes(replay, name):
    kernel = KERNELS[name]
    for dtype in ("float32", "float64"):
        for options in [{}, {"shift": 3}, *([{"inplace": True}] if kernel.op.inplace else [])]:
            some = [*sizes.awkward(kernel), (130, (97, 97))]
            check(replay, list(calls_at(some, kernel, dtype, **options)), threads=1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "steps", [pytest.param(60, id="60"), pytest.param(500, id="500", marks=pytest.mark.slow)]
)
def test_training(replay, dtype, steps):
    """Whole steps of a net with batchnorm, dropout, Adam and a smaller last minibatch."""
    for theirs, ours in replay.levels.items():
        C.set_level(ours)
        with Recorder() as recorder:
            train(net(dtype), steps, recorder=recorder)
        for threads in (1, 3):
            (results,) = replay([recorder.job], theirs, threads)
            assert results.keys() == recorder.results.keys()
            for name, want in recorder.results.items():
                have = results[name]
                np.testing.assert_array_equal(have.view("u1"), want.view("u1"), err_msg=name)


# Rows, inputs and outputs: odd numbers along k, edges of tiles, few rows, blocks of k and of rows.
PRODUCTS = [
    (1, (1, 1)),
    (1, (33, 70)),
    (4, (2, 7)),
    (8, (31, 67)),
    (9, (67, 31)),
    (33, (1029, 5)),
    (127, (5, 2051)),
    (515, (3, 130)),
]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("phase", ["forward", "vjp"])
def test_bfdot_adds_up_as_its_model(aarch64, phase, threads):
    """Products at the level with BFDOT have the bits of NumPy's model of it, at every size.

    They are within 1e-5 of float64's products of the rounded operands."""
    kernel = KERNELS[f"bfloat16_linear_{phase}"]
    made = list(calls_at(PRODUCTS, kernel, "float32", shift=1))
    results = aarch64([one_kernel(call) for call in made], BFDOT_LEVEL, threads)
    for call, have in zip(made, results, strict=True):
        want = call.run(C) | linear_of(by_bfdot, call.given, call.into or {})  # db has no products
        for name in written(kernel):
            if name in have:
                np.testing.assert_array_equal(have[name], want[name], err_msg=f"{call}: {name}")
                near = call.expected()[name]
                assert np.abs(have[name] - near).max() <= 1e-5 * np.abs(near).max()


def test_bfdot_rounds_operands_and_lets_nan_through(aarch64):
    """Products with ones: ties, overflow, infinity, NaN; denormal numbers become zero."""
    words = [0x3F808000, 0x3F818000, 0x3F808001, 0xBF818000, 0x7F7F8000, 0xFF800000, 0x7FC00000]
    words += [0x00800000, 0x007FFFFF, 0x807FFFFF, 1, 0]
    x = np.array(words, np.uint32).view(np.float32)[:, None]
    for given in ({"x": x, "w": np.ones((1, 1), "f4")}, {"x": np.ones((1, 1), "f4"), "w": x.T}):
        rows, outputs = len(given["x"]), given["w"].shape[1]
        call = Call(
            KERNELS["bfloat16_linear_forward"],
            "float32",
            rows,
            {"I": 1, "O": outputs},
            given,
            absent=("b",),
        )
        (results,) = aarch64([one_kernel(call)], BFDOT_LEVEL, 1)
        np.testing.assert_array_equal(results["y"], round_to_bfloat16(given["x"] * given["w"]))


def test_without_bfdot_the_level_below_runs(aarch64, monkeypatch):
    """Which instructions a processor has is asked at run time."""
    monkeypatch.setenv(PROCESSOR, "cortex-a72")
    kernel = KERNELS["bfloat16_linear_forward"]
    made = list(calls_at(PRODUCTS, kernel, "float32"))
    C.set_level(aarch64.levels[0])
    results = aarch64([one_kernel(call) for call in made], BFDOT_LEVEL, 1)
    for call, have in zip(made, results, strict=True):
        np.testing.assert_array_equal(have["y"].view("u1"), call.run(C)["y"].view("u1"))


def test_training_by_bfdot(aarch64):
    """Whole steps have the same bits on any number of threads, and nearly those of multiply-adds."""
    C.set_level(aarch64.levels[0])
    with Recorder() as recorder:
        train(net(precision="bfloat16"), 60, recorder=recorder)
    one, three = (aarch64([recorder.job], BFDOT_LEVEL, threads)[0] for threads in (1, 3))
    for name in recorder.results:
        np.testing.assert_array_equal(one[name].view("u1"), three[name].view("u1"), err_msg=name)
    assert not np.array_equal(one["params"], recorder.results["params"])
    np.testing.assert_allclose(one["losses"], recorder.results["losses"], rtol=0.002)
