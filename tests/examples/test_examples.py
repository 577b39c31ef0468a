"""The examples as a newcomer runs them: in a process of their own, from any folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastnet
import fastnet as fn
from fastnet import datasets

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def run(example: str, cwd: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run an example against the fastnet under test; one BLAS thread, as cores may be busy."""
    package = Path(fastnet.__file__).resolve().parents[1]
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", f"fastnet.examples.{example}", *options],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(package), "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )


def trained(example: str, cwd: Path, *options: str) -> tuple[float, list[str]]:
    """The test accuracy that the last line gives, and the lines of the epochs."""
    done = run(example, cwd, *options)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    last = re.fullmatch(r"test accuracy (\d\.\d{4})", lines[-1])
    assert last, lines[-1]
    return float(last[1]), [line for line in lines if line.startswith("epoch ")]


@pytest.fixture(scope="module")
def mnist_folder() -> Path:
    beside = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    folder = Path(os.environ.get("FASTNET_DATA", beside)) / "mnist"
    if not folder.is_dir():
        pytest.skip(f"no MNIST at {folder}; FASTNET_DATA names the folder that holds mnist/")
    return folder


def test_digits_reach_97_percent_on_every_backend(backend: str, tmp_path: Path) -> None:
    accuracy, epochs = trained("digits", tmp_path, "--backend", backend)
    assert accuracy >= 0.97
    assert [line.split()[1] for line in epochs] == [f"{n}/20" for n in range(1, 21)]


@pytest.mark.parametrize("seed", ["1", "2", "3"])
def test_digits_reach_97_percent_from_any_seed(seed: str, tmp_path: Path) -> None:
    backend = next(name for name, info in fastnet.backends().items() if info.available)
    assert trained("digits", tmp_path, "--backend", backend, "--seed", seed)[0] >= 0.97


def test_digits_are_reproducible(backend: str, tmp_path: Path) -> None:
    def values() -> list[str]:
        options = ("--backend", backend, "--epochs", "2", "--seed", "7")
        accuracy, epochs = trained("digits", tmp_path, *options)
        assert len(epochs) == 2
        return [str(accuracy), *(re.sub(r"  \S+ s  \S+ samples/s", "", line) for line in epochs)]

    assert values() == values()


@pytest.mark.parametrize("example", ["digits", "mnist", "autoencoder", "optimizers"])
def test_help(example: str, tmp_path: Path) -> None:
    done = run(example, tmp_path, "--help")
    assert done.returncode == 0
    assert f"python -m fastnet.examples.{example}" in done.stdout
    for option in ("--backend", "--epochs", "--seed"):
        assert option in done.stdout


@pytest.mark.slow
def test_mnist_reaches_97_5_percent_in_five_epochs(mnist_folder: Path, tmp_path: Path) -> None:
    backend = next(name for name, info in fastnet.backends().items() if info.available)
    options = ("--data", str(mnist_folder), "--backend", backend)
    accuracy, epochs = trained("mnist", tmp_path, *options)
    assert accuracy >= 0.975
    assert len(epochs) == 5


def test_mnist_learns_in_one_epoch(backend: str, mnist_folder: Path, tmp_path: Path) -> None:
    options = ("--data", str(mnist_folder), "--backend", backend, "--epochs", "1")
    accuracy, epochs = trained("mnist", tmp_path, *options)
    assert accuracy >= 0.95
    assert len(epochs) == 1


def test_the_autoencoder_runs_on_a_few_rows(mnist_folder: Path, tmp_path: Path) -> None:
    small = ("--rows", "2000", "--pretraining", "8", "--epochs", "3")
    done = run("autoencoder", tmp_path, "--data", str(mnist_folder), *small)
    assert done.returncode == 0 and done.stderr == ""
    lines = done.stdout.splitlines()
    told = [re.search(r"error (\d\.\d{5}), accuracy of codes (\d\.\d{4})$", x) for x in lines[3:]]
    found = [(float(one[1]), float(one[2])) for one in told if one]
    assert len(found) == 4 and [x.split(":")[0] for x in lines[:3]] == [
        f"layer {n}" for n in (1, 2, 3)
    ]
    before, together, alone, longer = found
    assert together[0] < before[0] and together[0] < 0.9 * min(alone[0], longer[0])
    assert min(accuracy for _, accuracy in found) > 0.5


def table_of(lines: list[str], head: str) -> tuple[list[str], list[list[float]]]:
    """The first column of a table of percentages, and the others; 100 for what has diverged."""
    begin = next(i for i, line in enumerate(lines) if line.startswith(head)) + 1
    rows = [line.split() for line in lines[begin : lines.index("", begin)]]
    numbers = [[100.0 if x == "diverged" else float(x.rstrip("%")) for x in r[1:]] for r in rows]
    return [row[0] for row in rows], numbers


@pytest.mark.slow
def test_adadelta_depends_less_on_its_numbers_than_others(tmp_path: Path) -> None:
    """Both tables on digits: the median of Adadelta's is less than that of each of the others."""
    done = run("optimizers", tmp_path, "--epochs", "6")
    assert done.returncode == 0 and done.stderr == ""
    lines = done.stdout.splitlines()
    rates, others = table_of(lines, "lr")
    epsilons, adadelta = table_of(lines, "Adadelta's eps")
    assert rates == ["1", "0.1", "0.01", "0.001", "0.0001"] and len(others[0]) == 3
    assert epsilons == ["0.01", "0.0001", "1e-06", "1e-08"] and len(adadelta[0]) == 3
    assert np.min(others) < 5 and (np.max(others, axis=0) > 50).all()
    assert np.median(adadelta) < np.median(others, axis=0).min()
    untuned = dict(line.split(", not tuned: ") for line in lines[-2:])
    assert untuned.keys() == {"Adam", "YellowFin"}


def test_the_optimizers_run_on_a_few_rows(mnist_folder: Path, tmp_path: Path) -> None:
    for data in ([], ["--data", str(mnist_folder)]):
        done = run("optimizers", tmp_path, *data, "--epochs", "1", "--rows", "200")
        assert done.returncode == 0 and done.stderr == ""
        lines = done.stdout.splitlines()
        assert lines[0] == "test error after 1 epochs on 200 rows"
        for head in ("lr", "Adadelta's eps"):
            numbers = np.array(table_of(lines, head)[1])
            assert numbers.shape[1] == 3 and numbers.min() < 60 and numbers.max() > 60


@pytest.mark.parametrize("folder", [None, "", "nowhere", "empty", "damaged"])
def test_mnist_without_its_files_says_so_in_one_line(folder: str | None, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    for name in FILES:
        (tmp_path / "damaged" / name).write_bytes(b"not IDX")
    done = run("mnist", tmp_path, *([] if folder is None else ["--data", folder]))
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and done.stderr.endswith("\n")
    if folder == "damaged":
        assert FILES[0] in done.stderr and "expected 00 00" in done.stderr
        return
    with pytest.raises(FileNotFoundError) as error:
        datasets.mnist(tmp_path / "nowhere")
    told = str(error.value).split("; ", 1)[1]
    assert "https://" in told and all(name in told for name in FILES)
    assert done.stderr.rstrip("\n").endswith(told)


def test_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).resolve().parents[2] / "README.md").read_text("utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    exec(block, names)
    model, X_test = names["model"], names["X_test"]
    assert names["trainer"].evaluate(X_test, names["y_test"])["accuracy"] > 0.95
    kept = fn.load("digits.safetensors").predict(X_test)
    np.testing.assert_array_equal(kept, model.predict(X_test))
    assert "net_predict" in (tmp_path / "digits.c").read_text("utf-8")


def test_the_saddle_is_left_and_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    done = run("saddle", tmp_path, "--plot", "saddle.png")
    assert done.returncode == 0, done.stderr
    free, newton, descent = done.stdout.splitlines()
    counts = [int(re.search(r"leaves after (\d+) iterations", line)[1]) for line in (free, descent)]
    assert counts[0] <= 30 and counts[1] >= 10 * counts[0]
    assert newton == "Newton: never leaves; ends at 1 of the saddle's loss"
    assert (tmp_path / "saddle.png").stat().st_size > 5000
