"""Compiled code on disk. What cannot be read or written costs a compilation, never an error."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

_KEPT = 16  # directories of other versions, machines and settings, the latest written


def directory() -> Path | None:
    """Where compiled code is kept: by NUMBA_CACHE_DIR, else in the user's directory of caches."""
    if chosen := os.environ.get("NUMBA_CACHE_DIR"):
        return Path(chosen) / "fastnet"
    for base in (os.environ.get("XDG_CACHE_HOME", ""), os.path.expanduser("~/.cache")):
        if os.path.isabs(base):  # "~" stays where there is no home
            return Path(base) / "fastnet" / "numba"
    return None


class Store:
    """Pieces of code by name, for one key: everything that the code depends on besides its name.

    A file is a digest and what it was taken of; a file is replaced whole. So one that was cut off,
    damaged, renamed or made for another key is as good as none.
    """

    def __init__(self, base: Path | None, key: bytes) -> None:
        self._key = sha256(key)
        self.place = base / self._key.hexdigest()[:16] if base else None

    def load(self, name: str) -> bytes | None:
        """The code of this name, or None."""
        if self.place is None:
            return None
        try:
            stored = (self.place / name).read_bytes()
        except OSError:
            return None
        digest, code = stored[:32], stored[32:]
        return code if digest == self._digest(name, code) else None

    def save(self, name: str, code: bytes) -> None:
        """Keep the code under this name, if that is possible."""
        if self.place is None:
            return
        with suppress(OSError):
            if not self.place.is_dir():
                self.place.mkdir(parents=True, exist_ok=True)
                self._prune(self.place.parent)
            handle, temporary = tempfile.mkstemp(dir=self.place)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(self._digest(name, code) + code)
                os.replace(temporary, self.place / name)
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary)
                raise

    def _digest(self, name: str, code: bytes) -> bytes:
        digest = self._key.copy()
        digest.update(b"\0".join((b"", name.encode(), code)))
        return digest.digest()

    @staticmethod
    def _prune(base: Path) -> None:
        """Remove what was written longest ago, of directories that bear the name of a key."""
        with suppress(OSError):
            ours = [d for d in base.iterdir() if re.fullmatch("[0-9a-f]{16}", d.name)]
            for old in sorted(ours, key=lambda d: -d.stat().st_mtime)[_KEPT:]:
                shutil.rmtree(old, ignore_errors=True)
