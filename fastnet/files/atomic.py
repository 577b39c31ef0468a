"""Replacing a file as a whole: whatever fails, a reader finds the old content or the new one."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from fastnet.errors import SaveError

try:
    import fcntl
except ImportError:  # Windows, where no open file can be removed: that is the lock
    fcntl = None  # type: ignore[assignment]

PIECE = 1 << 24  # bytes of a write
ENDING = ".fastnet-tmp"


def replace(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Write a file that consists of these parts, in place of what has this path.

    The parts go to a temporary file beside the target, which gets the target's permissions. It is synced,
    renamed, and the folder is synced: then the file is there, even if the machine loses power. A link
    stays a link, and its target is replaced. Temporary files that processes left behind when they were
    killed are removed first; another process that writes to the same path keeps its own. Raises
    SaveError, and leaves the old file and no other.
    """
    target = Path(os.path.realpath(path))
    temporary = None
    try:
        remove_stale(target)
        temporary, file = _created(target)
        try:
            with suppress(OSError, AttributeError):  # no old file, or no permissions here
                os.fchmod(file, stat.S_IMODE(os.stat(target).st_mode))
            for part in parts:
                _write(file, memoryview(part).cast("B"))
            os.fsync(file)
        finally:
            os.close(file)
        os.replace(temporary, target)
        temporary = None
        _sync_folder(target.parent)
    except OSError as error:
        raise SaveError(
            error.errno,
            f"cannot save: {error.strerror or error}; what had been saved there before is unchanged",
            str(path),
        ) from error
    finally:
        if temporary is not None:
            with suppress(OSError):
                os.unlink(temporary)


def remove_stale(target: Path) -> None:
    """Remove temporary files of this target whose processes have ended."""
    begin = f".{target.name}."
    with suppress(OSError):  # the folder cannot be listed
        for name in os.listdir(target.parent):
            if not (name.startswith(begin) and name.endswith(ENDING)):
                continue
            other = target.parent / name
            with suppress(OSError):  # locked by a living process, or gone meanwhile
                file = os.open(other, os.O_RDWR)
                try:
                    _lock(file)
                    os.unlink(other)
                finally:
                    os.close(file)


def _created(target: Path) -> tuple[Path, int]:
    """A new temporary file beside the target, open and locked."""
    while True:
        temporary = target.parent / f".{target.name}.{os.urandom(8).hex()}{ENDING}"
        binary = getattr(os, "O_BINARY", 0)
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | binary, 0o666)
        try:
            with suppress(OSError):  # a file system without locks, or another process is first
                _lock(file)
            if os.path.samestat(os.stat(temporary), os.fstat(file)):
                return temporary, file
        except FileNotFoundError:  # removed as stale, before it was locked
            pass
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _lock(file: int) -> None:
    """Lock a file until it is closed; OSError where another process has."""
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _write(file: int, part: memoryview) -> None:
    while len(part):
        done = os.write(file, part[:PIECE])
        if done <= 0:
            raise OSError(None, "the system wrote nothing")
        part = part[done:]


def _sync_folder(folder: Path) -> None:
    """Make a rename in a folder durable, where a folder can be opened."""
    try:
        file = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    except OSError:
        return  # Windows, or a folder that must not be read
    try:
        os.fsync(file)
    finally:
        os.close(file)
