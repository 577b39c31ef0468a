"""Compiled code on disk. A failure to read or write costs a compilation and never raises an error.

Whoever can write code for this process acts as its user. So the store uses a directory only if no other
user can write to it, to a file in it or to a directory above it.
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

_KEPT = 16  # directories kept for other versions, machines and settings, the latest written


def directory() -> Path | None:
    """The directory of compiled code: in NUMBA_CACHE_DIR, else in the user's cache directory."""
    if chosen := os.environ.get("NUMBA_CACHE_DIR"):
        return Path(chosen) / "fastnet"
    for base in (os.environ.get("XDG_CACHE_HOME", ""), os.path.expanduser("~/.cache")):
        if os.path.isabs(base):  # expanduser keeps "~" if there is no home
            return Path(base) / "fastnet" / "numba"
    return None


def strangers(place: Path) -> str | None:
    """A sentence that names another user's access to a place, or None.

    Checks each existing directory on the way, through links; this user will create the missing ones. A
    directory such as /tmp, in which all users create files of their own, may be on the way.
    """
    if not hasattr(os, "getuid"):  # other systems have no such permissions
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
    """Pieces of code by name, for one key: everything else that the code depends on.

    A file contains a digest and the digested bytes, and is always replaced as a whole. So a file that is
    truncated, damaged, renamed, of another key, or writable by another user counts as missing. The store
    does not use a directory to which others can write, and warns once.
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
        """The code with this name, or None."""
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
        """Store the code under this name, if possible."""
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
        """Remove the oldest directories with names of keys."""
        with suppress(OSError):
            ours = [d for d in base.iterdir() if re.fullmatch("[0-9a-f]{16}", d.name)]
            for old in sorted(ours, key=lambda d: -d.stat().st_mtime)[_KEPT:]:
                shutil.rmtree(old, ignore_errors=True)


def _own_file(path: str, flags: int) -> int:
    """Open a file that only this user could have written, else raise PermissionError."""
    handle = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0))
    found = os.fstat(handle)
    if hasattr(os, "getuid") and (found.st_uid != os.getuid() or found.st_mode & 0o022):
        os.close(handle)
        raise PermissionError(f"{path} can be written by other users")
    return handle
