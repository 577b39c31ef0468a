"""Other commits of this repository, built beside the working tree, each once."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastnet" / "commits"


class BuildError(Exception):
    """A commit that is unknown or cannot be built here."""


def checked(*command: str, env: dict[str, str] | None = None) -> str:
    """What a command prints; BuildError with the end of its complaint where it fails."""
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise BuildError(f"{command[0]} is not installed") from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise BuildError(f"{' '.join(command[:3])} … failed: {' / '.join(said[-3:])[-400:]}")
    return done.stdout.strip()


def commit_of(name: str) -> str:
    """The full hash of a commit."""
    return checked("git", "-C", str(ROOT), "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")


@contextmanager
def worktree(commit: str) -> Iterator[Path]:
    """The sources of a commit in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="fastnet-") as folder:
        tree = Path(folder) / "tree"
        checked("git", "-C", str(ROOT), "worktree", "add", "--detach", str(tree), commit)
        try:
            yield tree
        finally:
            checked("git", "-C", str(ROOT), "worktree", "remove", "--force", str(tree))


def install(tree: Path, *options: str, python: Path | None = None) -> None:
    """`pip install` a source tree, without its dependencies, for this interpreter or another."""
    isolated = ["--no-build-isolation"] if importlib.util.find_spec("scikit_build_core") else []
    pip = [sys.executable, "-m", "pip", *(["--python", str(python)] if python else [])]
    required = {**os.environ, "FASTNET_REQUIRE_C": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    checked(*pip, "install", "-q", "--no-deps", *isolated, *options, str(tree), env=required)


def interpreter(commit: str) -> Path:
    """A Python that imports fastnet as of `commit`, and all else as this one does; builds it if need be."""
    commit = commit_of(commit)
    home = (
        CACHE
        / f"{commit}-{sysconfig.get_platform()}-{sys.version_info.major}.{sys.version_info.minor}"
    )
    python, done = home / "bin" / "python", home / "built"
    if not done.exists():
        venv.create(home, clear=True, symlinks=True)
        scheme = {"base": str(home), "platbase": str(home)}
        packages = Path(sysconfig.get_path("purelib", "venv", scheme))
        others = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
        (packages / "others.pth").write_text("\n".join(others) + "\n", encoding="utf-8")
        with worktree(commit) as tree:
            install(tree, python=python)
        done.touch()
    return python
