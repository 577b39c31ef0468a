"""Fits under a real mpiexec: bits at 1 to 4 ranks, and ranks that fail. Skipped without MPI."""

import os
import shutil
import struct
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
BESIDE = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
MPIEXEC = shutil.which("mpiexec", path=BESIDE)
OPEN_MPI = {  # which other implementations do not read: more ranks than cores, and root
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
}
# MPICH's mpiexec kills all ranks with the first that dies, perhaps before they say which it was.
KEEPS = ["-disable-auto-cleanup"]
SECONDS = 30  # within which all ranks end where one has failed

pytest.importorskip("mpi4py")
pytestmark = [
    pytest.mark.skipif(MPIEXEC is None, reason="there is no mpiexec"),
    pytest.mark.xdist_group("mpiexec"),
]


@cache
def started():
    """The command that starts ranks and leaves to them how they end."""
    told = subprocess.run([MPIEXEC, "--version"], capture_output=True, text=True, check=False)
    return [MPIEXEC, *(KEEPS if "HYDRA" in told.stdout else [])]


def ranks(count, how, who=0, epochs=3, **more):
    """The exit status, output and errors of so many ranks, and the seconds they took."""
    environment = {**os.environ, **OPEN_MPI, "FASTNET_NUM_THREADS": "1", **more}
    environment["PYTHONPATH"] = str(HERE.parents[1])
    command = [*started(), "-n", str(count), sys.executable, str(HERE / "program.py")]
    begun = time.monotonic()
    done = subprocess.run(
        [*command, how, str(who), str(epochs)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr, time.monotonic() - begun


def test_bits_are_equal_at_any_number_of_ranks():
    found = {}
    for count in (1, 2, 3, 4):
        status, out, errors, _ = ranks(count, "bits")
        assert status == 0, errors
        found[count] = [line for line in out.splitlines() if line.startswith("bits")]
        assert len(found[count]) == count
    assert len({line for lines in found.values() for line in lines}) == 1


def test_all_ranks_have_the_same_parameters():
    status, out, errors, _ = ranks(3, "sum")
    assert status == 0, errors
    assert len(set(out.split())) == 2  # "bits" and the digest


FAILURES = {
    "nan": "has ended the training: the loss of step",
    "raise": "has ended the training: ValueError: a callback of its own",
    "exit": "has ended the training: SystemExit: 3",
    "kill": "is gone",
}


@pytest.mark.parametrize("how", FAILURES)
def test_a_rank_that_fails_ends_all_with_its_name(how):
    status, out, errors, seconds = ranks(3, how, who=1, epochs=100_000)
    assert status != 0
    assert seconds < SECONDS
    told = [line for line in errors.splitlines() if "rank 1 of 3" in line]
    # Where mpiexec sees the end first, it may end the others before they speak, and says so.
    assert told or (how == "kill" and "BAD TERMINATION" in out + errors)
    assert all(FAILURES[how] in line for line in told)


@pytest.mark.slow
@pytest.mark.parametrize("trial", range(50))
def test_no_rank_hangs_whenever_one_is_killed(trial):
    after = 0.001 + 0.003 * (trial % 25)
    status, out, errors, seconds = ranks(3, "soon", trial % 3, 1_000_000, AFTER=str(after))
    assert status != 0
    assert seconds < SECONDS
    # Where mpiexec sees the end first, it may signal the others before they speak, and says so.
    assert f"rank {trial % 3} of 3 is gone" in errors or "EXIT STRING: Terminated" in out + errors


def idx(path, array):
    """Write an array as an IDX file of bytes."""
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(head + array.astype(np.uint8).tobytes())


@pytest.mark.parametrize("count", [1, 3])
def test_the_example_runs_on_ranks(count, tmp_path):
    rng = np.random.default_rng(0)
    for name, rows in (("train", 200), ("t10k", 50)):
        idx(tmp_path / f"{name}-images-idx3-ubyte", rng.integers(0, 256, (rows, 28, 28)))
        idx(tmp_path / f"{name}-labels-idx1-ubyte", rng.integers(0, 10, rows))
    command = [MPIEXEC, "-n", str(count), sys.executable, "-m", "fastnet.examples.mnist"]
    environment = {**os.environ, **OPEN_MPI, "PYTHONPATH": str(HERE.parents[1])}
    done = subprocess.run(
        [*command, "--data", str(tmp_path), "--mpi", "--epochs", "2"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 1/1") == 1
    assert f"{count} ranks" in done.stdout
    assert "test accuracy" in done.stdout
