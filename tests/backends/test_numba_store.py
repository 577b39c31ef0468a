"""The store of compiled code: what it does not give back, where it lies, how it stays small."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastnet.backends.numba.store import Store, directory

CODE = bytes(range(256)) * 9


def test_gives_back_what_was_kept_for_the_same_key_and_name(tmp_path):
    store = Store(tmp_path, b"key")
    assert store.load("a") is None
    store.save("a", CODE)
    store.save("b", b"")
    assert (store.load("a"), store.load("b")) == (CODE, b"")
    assert Store(tmp_path, b"key").load("a") == CODE
    assert Store(tmp_path, b"another").load("a") is None
    store.save("a", CODE[:5])
    assert store.load("a") == CODE[:5]


@pytest.mark.parametrize("length", [0, 1, 31, 32, 33, 100, len(CODE) + 31])
def test_a_file_that_was_cut_off_is_none(tmp_path, length):
    store = Store(tmp_path, b"key")
    store.save("a", CODE)
    os.truncate(store.place / "a", length)
    assert store.load("a") is None


@pytest.mark.parametrize("place", [0, 31, 32, 500, len(CODE) + 31])
def test_a_file_that_was_damaged_is_none(tmp_path, place):
    store = Store(tmp_path, b"key")
    store.save("a", CODE)
    content = bytearray((store.place / "a").read_bytes())
    content[place] ^= 1
    (store.place / "a").write_bytes(content)
    assert store.load("a") is None


def test_a_file_of_another_name_or_key_is_none(tmp_path):
    store, other = Store(tmp_path, b"key"), Store(tmp_path, b"another")
    store.save("a", CODE)
    (store.place / "a").rename(store.place / "b")
    assert store.load("b") is None
    other.save("c", CODE)
    (other.place / "c").rename(store.place / "c")
    assert store.load("c") is None


@pytest.mark.parametrize("place", ["file", "file/below", "directory"])
def test_a_place_that_cannot_be_used_is_a_place_without_code(tmp_path, place):
    (tmp_path / "file").write_text("text")
    store = Store(tmp_path / place, b"key")
    if place == "directory":  # of the name of the code
        (store.place / "a").mkdir(parents=True)
    store.save("a", CODE)
    assert store.load("a") is None
    assert not list(tmp_path.rglob("tmp*"))


def test_without_a_place_nothing_is_kept():
    store = Store(None, b"key")
    store.save("a", CODE)
    assert store.load("a") is None


def test_keys_that_were_written_longest_ago_are_removed_and_nothing_else(tmp_path):
    others = [tmp_path / f"other{number}" for number in range(30)]
    for other in others:
        other.mkdir()
        os.utime(other, (0, 0))
    for number in range(40):
        store = Store(tmp_path, b"%d" % number)
        store.save("a", CODE)
        os.utime(store.place, (number, number))
    store.save("b", CODE)
    left = [number for number in range(40) if Store(tmp_path, b"%d" % number).load("a")]
    assert left == list(range(24, 40))
    assert all(other.is_dir() for other in others)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"NUMBA_CACHE_DIR": "/n", "XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/n/fastnet"),
        ({"NUMBA_CACHE_DIR": "", "XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/x/fastnet/numba"),
        ({"XDG_CACHE_HOME": "relative", "HOME": "/h"}, "/h/.cache/fastnet/numba"),
        ({"HOME": "/h"}, "/h/.cache/fastnet/numba"),
        ({"HOME": "relative"}, None),
    ],
)
@pytest.mark.skipif(os.name != "posix", reason="other systems tell of a home in other ways")
def test_the_place_is_chosen_by_the_environment(monkeypatch, variables, expected):
    for name in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert directory() == (expected and Path(expected))


posix = pytest.mark.skipif(not hasattr(os, "getuid"), reason="other systems have other rules")


def filled(base):
    """A directory with code in it, which this user alone can write."""
    Store(base, b"key").save("a", CODE)
    assert Store(base, b"key").load("a") == CODE
    return base


@posix
@pytest.mark.parametrize("place", [".", "base", "base/key"])
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_directory_that_others_can_write_to_is_not_used(tmp_path, place, mode):
    base = filled(tmp_path / "base")
    written = Store(base, b"key").place if place == "base/key" else tmp_path / place
    written.chmod(mode)
    with pytest.warns(RuntimeWarning, match="can be written by other users") as told:
        store = Store(base, b"key")
    store.save("b", CODE)
    assert len(told) == 1 and store.load("a") is None
    assert not [path for path in tmp_path.rglob("b") if path.is_file()]
    written.chmod(0o700)
    assert Store(base, b"key").load("a") == CODE


@posix
def test_a_directory_under_one_for_all_is_used(tmp_path):
    tmp_path.chmod(0o1777)  # as /tmp
    filled(tmp_path / "base")
    with pytest.warns(RuntimeWarning, match="can be written by other users"):
        Store(tmp_path, b"key")


@posix
def test_a_link_leads_to_a_directory_that_is_looked_at(tmp_path):
    base, link = filled(tmp_path / "shared" / "base"), tmp_path / "link"
    link.symlink_to(base)
    assert Store(link, b"key").load("a") == CODE
    base.parent.chmod(0o777)
    with pytest.warns(RuntimeWarning, match="shared can be written by other users"):
        assert Store(link, b"key").load("a") is None


@posix
@pytest.mark.skipif(getattr(os, "getuid", int)() != 0, reason="needs to give files away")
@pytest.mark.parametrize("place", ["base", "base/key", "base/key/a"])
def test_what_belongs_to_another_user_is_not_used(tmp_path, place):
    base = filled(tmp_path / "base")
    os.chown(str(tmp_path / place).replace("key", Store(base, b"key").place.name), 4321, -1)
    if place == "base/key/a":  # a file is one of many: it is compiled anew
        assert Store(base, b"key").load("a") is None
    else:
        with pytest.warns(RuntimeWarning, match="belongs to another user"):
            assert Store(base, b"key").load("a") is None


@posix
def test_a_file_that_others_can_write_or_a_link_is_none(tmp_path):
    store = Store(filled(tmp_path), b"key")
    (store.place / "b").symlink_to(store.place / "a")
    assert store.load("b") is None
    (store.place / "a").chmod(0o666)
    assert store.load("a") is None
