"""Fits under a real mpiexec: bits at 1 to 4 ranks, and ranks that fail. Skipped without MPI."""

import json
import os
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from rank_cases import CASES

HERE = Path(__file__).parent
BESIDE = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
MPIEXEC = shutil.which("mpiexec", path=BESIDE)
OPEN_MPI = {  # which other implementations do not read: more ranks than cores, and root
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
}
SECONDS = 30  # within which all ranks end where one has failed

pytest.importorskip("mpi4py")
pytestmark = [
    pytest.mark.skipif(MPIEXEC is None, reason="there is no mpiexec"),
    pytest.mark.xdist_group("mpiexec"),
]


def started(count, program, *arguments, seconds=120, **more):
    """What mpiexec has done with so many ranks of a program of this folder."""
    environment = {**os.environ, **OPEN_MPI, "FASTNET_NUM_THREADS": "1", **more}
    paths = HERE.parents[1], HERE.parent / "support"
    environment["PYTHONPATH"] = os.pathsep.join(map(str, paths))
    command = [MPIEXEC, "-n", str(count), sys.executable, str(HERE / program)]
    return subprocess.run(
        [*command, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def ranks(count, how, who=0, epochs=3, **more):
    """The exit status, output and errors of ranks of program.py, and the seconds they took."""
    begun = time.monotonic()
    done = started(count, "program.py", how, who, epochs, **more)
    return done.returncode, done.stdout, done.stderr, time.monotonic() - begun


def test_bits_are_equal_at_any_number_of_ranks(tmp_path):
    found = []
    for count in (1, 2, 3, 4):
        folder = tmp_path / str(count)
        folder.mkdir()
        done = started(count, "cases.py", folder, seconds=300)
        assert done.returncode == 0, done.stderr
        each = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
        assert len(each) == count
        found += each
    assert found[0].keys() > CASES.keys()
    for name in found[0]:
        assert len({one[name] for one in found}) == 1, name


def test_all_ranks_have_the_same_parameters():
    status, out, errors, _ = ranks(3, "sum")
    assert status == 0, errors
    assert len(set(out.split())) == 2  # "bits" and the digest


FAILURES = {
    "nan": "has ended the training: the loss of step",
    "raise": "has ended the training: ValueError: a callback of its own",
    "exit": "has ended the training: SystemExit: 3",
    "kill": "is gone",
    "all": "is gone",
}


@pytest.mark.parametrize("how", FAILURES)
def test_a_rank_that_fails_ends_all_with_its_name(how):
    status, _, errors, seconds = ranks(3, how, who=1, epochs=100_000)
    assert status != 0
    assert seconds < SECONDS
    told = [line for line in errors.splitlines() if "rank 1 of 3" in line]
    assert told
    assert all(FAILURES[how] in line for line in told)


@pytest.mark.slow
@pytest.mark.parametrize("trial", range(50))
def test_no_rank_hangs_whenever_one_is_killed(trial):
    after = 0.001 + 0.003 * (trial % 25)
    how, who = ("soon", "all")[trial % 2], trial % 3
    status, _, errors, seconds = ranks(3, how, who, 1_000_000, AFTER=str(after))
    assert status != 0
    assert seconds < SECONDS
    told = [line for line in errors.splitlines() if line.startswith("fastnet: rank")]
    assert told
    assert all(line.startswith(f"fastnet: rank {who} of 3 is gone") for line in told)


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
