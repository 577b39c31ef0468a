"""A file is replaced as a whole: whatever fails, the old content or the new one is there."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from fastnet.errors import SaveError
from fastnet.files import atomic

posix = pytest.mark.skipif(os.name != "posix", reason="permissions, links and locks of POSIX")


@pytest.fixture
def target(tmp_path):
    path = tmp_path / "net.safetensors"
    path.write_bytes(b"old")
    return path


def only(target):
    return os.listdir(target.parent) == [target.name]


def test_parts_are_joined(target):
    atomic.replace(target, [b"new", memoryview(b" and longer")])
    assert target.read_bytes() == b"new and longer" and only(target)
    other = target.with_name("first")
    atomic.replace(other, [])
    assert other.read_bytes() == b""


@pytest.mark.parametrize("what", ["write", "fsync", "replace", "open", "short"])
@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS, errno.EACCES]
)
@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_fault_leaves_what_was_there(target, monkeypatch, what, number, call):
    real = getattr(os, {"short": "write"}.get(what, what))
    calls = 0

    def failing(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls >= call:
            if what == "short" and calls == call:
                return real(args[0], args[1][:1])  # the disk fills up within this write
            raise OSError(number, os.strerror(number))
        return real(*args, **kwargs)

    monkeypatch.setattr(atomic, "PIECE", 2)
    monkeypatch.setattr(os, "write" if what == "short" else what, failing)
    error = None
    try:
        atomic.replace(target, [b"new", b"content"])
    except SaveError as raised:
        error = raised
    monkeypatch.undo()
    # The folder's own fsync, and its open, come after the rename: then the new content is there.
    assert target.read_bytes() == (b"old" if only_before(what, call) else b"newcontent")
    if what in ("write", "short") or (what, call) in (("fsync", 1), ("replace", 1), ("open", 1)):
        assert error is not None and error.errno == number and str(target) in str(error)
    assert only(target)
    atomic.replace(target, [b"later"])
    assert target.read_bytes() == b"later" and only(target)


def only_before(what, call):
    return what in ("write", "short") or call == 1


def test_a_full_disk_for_real(target):
    """The kernel refuses, not a replaced function."""
    resource = pytest.importorskip("resource")
    import signal

    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(SaveError, match="cannot save: File too large; what had been saved"):
            atomic.replace(target, [bytes(2000)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert target.read_bytes() == b"old" and only(target)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(SaveError, match="No such file or directory"):
        atomic.replace(tmp_path / "nowhere" / "net", [b"new"])


@posix
def test_permissions_and_links_stay(target, tmp_path):
    target.chmod(0o640)
    link = tmp_path / "link"
    link.symlink_to(target)
    atomic.replace(link, [b"new"])
    assert link.is_symlink() and target.read_bytes() == b"new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


@posix
def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(target):
    folder = target.parent
    stale = folder / f".{target.name}.0123{atomic.ENDING}"
    stale.write_bytes(b"half")
    others = [folder / f".other.0123{atomic.ENDING}", folder / f"{target.name}.0123{atomic.ENDING}"]
    for path in others:
        path.write_bytes(b"")
    mine, file = atomic._created(target)
    try:
        atomic.replace(target, [b"new"])
        assert not stale.exists() and mine.exists() and all(map(Path.exists, others))
    finally:
        os.close(file)
    atomic.replace(target, [b"newer"])
    assert not mine.exists() and target.read_bytes() == b"newer"


def test_an_error_in_the_middle_of_the_parts(target):
    def parts():
        yield b"new"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atomic.replace(target, parts())
    assert target.read_bytes() == b"old" and only(target)
