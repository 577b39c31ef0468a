"""docs/scaling.md: its programs run and print what stands beside them, and its table is the program's."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "scaling.md").read_text("utf-8")
MANY = TEXT[TEXT.index("## Many fits") :]
BLOCKS = re.findall(r"^```python ?(\w*)\n(.*?)^```", MANY, re.DOTALL | re.MULTILINE)


def run(kinds, tmp_path):
    """Run the blocks of these kinds as a script, as users do; returns what it printed and was to print."""
    code = "\n".join(block for kind, block in BLOCKS if kind in kinds)
    first = code.index("(X, y)")
    body = "".join(f"    {line}\n" if line else "\n" for line in code[first:].splitlines())
    script = f"{code[:first]}\nif __name__ == '__main__':\n{body}"
    path = tmp_path / "many.py"
    path.write_text(script, "utf-8")
    command = [sys.executable, "-W", "ignore", str(path)]
    environment = {"PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"}
    done = subprocess.run(
        command,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split(), re.findall(r"^ *print\(.*\)  # (.*)$", code, re.MULTILINE)


@pytest.mark.parametrize("kind", ["", "dask", "ray"])
def test_its_programs_print_what_stands_beside_them(kind, tmp_path):
    pytest.importorskip("sklearn")
    if kind:
        pytest.importorskip({"dask": "dask.distributed", "ray": "ray"}[kind])
    printed, told = run({"", kind}, tmp_path)
    assert printed == told
    assert len(told) >= 2


@pytest.mark.parametrize("program", ["scaling.py", "overlap.py"])
def test_its_predictions_are_those_of_the_programs(program):
    pytest.importorskip("mpi4py")
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench" / program), "--predict"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() in TEXT
