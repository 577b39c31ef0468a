"""Python in a process of its own, which imports what this one imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def environment(*first: Path, **variables: str) -> dict[str, str]:
    """This process's environment, where Python finds modules as here, those in `first` before."""
    path = os.pathsep.join([*map(str, first), *(p or os.getcwd() for p in sys.path)])
    return {**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "", **variables}


def command(code: str, *arguments: Any) -> list[str]:
    """What starts Python on the code, which finds the arguments in sys.argv."""
    # -P: the child's directory is no more on its path than on this process's.
    return [sys.executable, "-P", "-c", code, *map(str, arguments)]


def run(code: str, *arguments: Any, path: tuple[Path, ...] = (), **variables: str) -> Any:
    """The last line that the code prints, read as JSON."""
    done = subprocess.run(
        command(code, *arguments),
        env=environment(*path, **variables),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout.splitlines()[-1])
