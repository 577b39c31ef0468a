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


def run(code: str, *arguments: Any, path: tuple[Path, ...] = (), **variables: str) -> Any:
    """What the code prints, read as JSON; it finds `arguments` in sys.argv."""
    # -P: the directory of this process is no more on the child's path than on this one's.
    command = [sys.executable, "-P", "-c", code, *map(str, arguments)]
    env = environment(*path, **variables)
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout)
