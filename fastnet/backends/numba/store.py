"""Compiled code on disk. What cannot be read or written costs a compilation, never an error.

Whoever can write the code of this process's user acts as that user. So a directory is used only where
nobody else can write to it, to what leads there, or to a file in it.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
import warnings
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


def strangers(place: Path) -> str | None:
    """Who but this user and the system's could write what lies at a place, or None.

    Looked at is all that leads there, through links, as far as it exists; what does not is made by this
    user. A directory in which everybody makes files of their own, as /tmp, may be on the way.
    """
    if not hasattr(os, "getuid"):  # other systems say so in other ways
        return None
    place = Path(os.path.abspath(place))
    for path in (*reversed(place.parents), place):
        try:
            found = path.lstat()
        except OSError:
            return None
        if found.st_uid not in (0, os.getuid()):
            return f"{path} belongs to another user"
        if stat.S_ISLNK(found.st_mode):
            if told := strangers(Path(os.path.realpath(path))):
                return told
        elif found.st_mode & 0o022 and (path == place or not found.st_mode & stat.S_ISVTX):
            return f"{path} can be written by other users (chmod go-w)"
    return None


class Store:
    """Pieces of code by name, for one key: everything that the code depends on besides its name.

    A file is a digest and what it was taken of; a file is replaced whole. So one that was cut off,
    damaged, renamed or made for another key is as good as none, and so is one that another user could
    have written. A directory that others can write to is not used, which one warning says.
    """

    def __init__(self, base: Path | None, key: bytes) -> None:
        self._key = sha256(key)
        self.place = base / self._key.hexdigest()[:16] if base else None
        told = (strangers(base) or strangers(self.place)) if base and self.place else None
        if told:
            self.place = None
            warnings.warn(
                f"Numba's compiled code is not kept in {base}, nor taken from there: {told}; or name "
                "another directory by NUMBA_CACHE_DIR",
                RuntimeWarning,
                stacklevel=2,
            )

    def load(self, name: str) -> bytes | None:
        """The code of this name, or None."""
        if self.place is None:
            return None
        try:
            with open(self.place / name, "rb", opener=_own_file) as file:
                stored = file.read()
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
                for folder in (*reversed(self.place.parents), self.place):
                    with suppress(FileExistsError):
                        folder.mkdir(0o700)
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


def _own_file(path: str, flags: int) -> int:
    """Open a file that nobody but this user could have written; PermissionError where it is none."""
    handle = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0))
    found = os.fstat(handle)
    if hasattr(os, "getuid") and (found.st_uid != os.getuid() or found.st_mode & 0o022):
        os.close(handle)
        raise PermissionError(f"{path} can be written by other users")
    return handle
