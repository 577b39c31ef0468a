"""scikit-learn's own tests of its MLPs, with our classes in the place of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("scipy")

# What reads or writes private attributes of scikit-learn's classes.
PRIVATE = {
    "test_gradient": "_loss_grad_lbfgs",
    "test_learning_rate_warmstart": "_optimizer",
    "test_adaptive_learning_rate": "_optimizer",
}
# The plugin puts our classes where the file imports its own from.
PLUGIN = """
import sklearn.neural_network
import fastnet.sklearn
sklearn.neural_network.MLPClassifier = fastnet.sklearn.MLPClassifier
sklearn.neural_network.MLPRegressor = fastnet.sklearn.MLPRegressor
"""


def test_their_tests_pass(tmp_path):
    (tmp_path / "our_classes.py").write_text(PLUGIN)
    found = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "our_classes", "-p", "no:cacheprovider"),
            *("-p", "no:xdist", "-W", "ignore", "--rootdir", str(tmp_path), "-c", "/dev/null"),
            *("-k", " and ".join(f"not {name}" for name in PRIVATE)),
            *("--pyargs", "sklearn.neural_network.tests.test_mlp"),
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**_environment(), "PYTHONPATH": str(tmp_path)},
        check=False,
    )
    assert found.returncode == 0, found.stdout[-6000:] + found.stderr[-2000:]
    assert " passed" in found.stdout


def _environment():
    import os

    return {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
