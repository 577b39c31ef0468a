"""safetensors files: equal to what other programs read, and refused where anything is wrong with them."""

from __future__ import annotations

import json
import time
import tracemalloc

import numpy as np
import pytest
import safetensors.numpy

from fastnet.errors import FileError, UsageError
from fastnet.files import strict_json, tensors, tree

RNG = np.random.default_rng(0)
ARRAYS = {
    "0.weight": RNG.normal(size=(3, 4)).astype("float32"),
    "turned": RNG.normal(size=(4, 3)).T,
    "strided": np.arange(12)[::3],
    "count": np.array(7),
    "none": np.zeros((0, 3), "uint8"),
    "flags": np.array([True, False]),
    "big": np.arange(3, dtype=">f8"),
}
DESCRIPTION = {"kind": "test", "numbers": [1, 2.5, None, "é"], "draws": 2**63}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "some.safetensors"


def test_what_is_written_is_read(path):
    tensors.write(path, DESCRIPTION, ARRAYS)
    found = tensors.read(path)
    assert found.description == DESCRIPTION and found.path == path
    assert found.tensors.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found.tensors[name].dtype == array.dtype.newbyteorder("=")
        assert found.tensors[name].shape == array.shape
        np.testing.assert_array_equal(found.tensors[name], array)
    by_others = safetensors.numpy.load_file(path)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(by_others[name], array)


def test_a_file_of_another_program_has_no_description(path):
    safetensors.numpy.save_file({"0.weight": ARRAYS["0.weight"]}, path, {"format": "np"})
    found = tensors.read(path)
    assert found.description is None and list(found.tensors) == ["0.weight"]
    with pytest.raises(FileError, match=r"fastnet has not written it; make a model"):
        found.described("model")


def test_another_kind_and_another_version(path):
    tensors.write(path, DESCRIPTION, {})
    with pytest.raises(FileError, match="holds a test; expected a model"):
        tensors.read(path).described("model")
    tensors.write(path, {"version": 2, **DESCRIPTION}, {})
    with pytest.raises(FileError, match=r"version 2 of the format; this one reads version 1"):
        tensors.read(path)


@pytest.mark.parametrize("array", [np.zeros(2, "complex128"), np.array(["a"]), np.zeros(2, object)])
def test_dtypes_that_no_file_keeps(path, array):
    with pytest.raises(UsageError, match=r"x has dtype .*; expected one of float64"):
        tensors.write(path, DESCRIPTION, {"x": array})
    assert not path.exists()


def test_every_flipped_bit_is_noticed(path):
    """Or changes nothing: what is read then equals what was written."""
    arrays = {"0.weight": ARRAYS["0.weight"], "count": ARRAYS["count"]}
    tensors.write(path, {"kind": "test"}, arrays)
    good = path.read_bytes()
    noticed = 0
    for bit in range(8 * len(good)):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        try:
            found = tensors.parsed(path, bytes(bad))
        except FileError:
            noticed += 1
            continue
        if (
            found.description is None
        ):  # the name "fastnet" itself was hit: no model, so an error of load
            noticed += 1
            continue
        assert found.description == {"kind": "test"}
        assert {n: a.tobytes() for n, a in found.tensors.items()} == {
            n: a.tobytes() for n, a in arrays.items()
        }
    assert noticed > 0.99 * 8 * len(good)


def header(text, data=b""):
    raw = text if isinstance(text, bytes) else text.encode()
    return len(raw).to_bytes(8, "little") + raw + data


def entry(begin=0, end=4, dtype="F32", shape=(1,)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def of(entries, data=b"\0" * 8):
    return header(json.dumps(entries), data)


def described(description, arrays=None, digest=None):
    """A file with a good digest of a doubtful description."""
    arrays = arrays or {}
    text = description if isinstance(description, str) else json.dumps(description)
    known = tensors.digest(text, arrays) if digest is None else digest
    return safetensors.numpy.save(arrays, {"fastnet": text, "sha256": known})


MODEL = '{"version":1,"kind":"test","a":%s}'
HOSTILE = {
    "empty": b"",
    "seven bytes": b"\0" * 7,
    "no header": b"\0" * 8,
    "longer than the file": (1 << 40).to_bytes(8, "little") + b"{}",
    "longest": b"\xff" * 8 + b"{}",
    "truncated header": of({"a": entry(0, 8, shape=[2])})[:20],
    "truncated data": of({"a": entry(0, 8, shape=[2])})[:-1],
    "longer data": of({"a": entry(0, 8, shape=[2])}, b"\0" * 9),
    "no JSON": header("hello"),
    "a list": header("[]"),
    "a number": header("1"),
    "a leading blank": header(" {}"),
    "a leading newline": header("\n{}"),
    "a byte-order mark": header(b"\xef\xbb\xbf{}"),
    "no UTF-8": header(b'{"\xff": 1}'),
    "twice the same name": header(
        '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
        '"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',
        b"\0" * 8,
    ),
    "twice a dtype": header(
        '{"a":{"dtype":"F32","dtype":"F64","shape":[1],"data_offsets":[0,8]}}', b"\0" * 8
    ),
    "twice the metadata": header('{"__metadata__":{"a":"b"},"__metadata__":{}}'),
    "NaN as a size": header('{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,4]}}', b"\0" * 4),
    "overlapping": of({"a": entry(0, 8, shape=[2]), "b": entry(4, 8)}),
    "a gap": of({"a": entry(0, 2, "U8", [2]), "b": entry(4, 8)}),
    "out of bounds": of({"a": entry(0, 16, shape=[4])}),
    "backwards": of({"a": entry(8, 0)}),
    "negative": of({"a": entry(-4, 4)}),
    "a negative size": of({"a": entry(0, 8, shape=[-2])}),
    "huge counts": of({"a": entry(0, 8, shape=[2**62, 4])}),
    "a count beyond 64 bits": of({"a": entry(0, 8, shape=[2**70])}),
    "counts whose product is 0": of({"a": entry(0, 0, shape=[2**40, 2**40, 0])}),
    "a fraction of a size": of({"a": entry(0, 8, shape=[1.5])}),
    "a size as text": of({"a": entry(0, 8, shape=["2"])}),
    "a size that does not fit": of({"a": entry(0, 8, shape=[3])}),
    "an unknown dtype": of({"a": entry(0, 8, "F33")}),
    "a dtype that NumPy lacks": of({"a": entry(0, 2, "BF16")}, b"\0" * 2),
    "a dtype as a number": of({"a": entry(0, 8, 32)}),
    "no dtype": of({"a": {"shape": [2], "data_offsets": [0, 8]}}),
    "no shape": of({"a": {"dtype": "F32", "data_offsets": [0, 8]}}),
    "no offsets": of({"a": {"dtype": "F32", "shape": [2]}}),
    "another field": of({"a": {**entry(0, 8, shape=[2]), "more": 1}}, b"\0" * 8),
    "an entry that is a list": of({"a": [1, 2]}),
    "an entry that is null": of({"a": None}),
    "offsets as text": of({"a": {"dtype": "F32", "shape": [2], "data_offsets": "08"}}),
    "metadata that are a list": of({"__metadata__": [1]}, b""),
    "metadata with a number": of({"__metadata__": {"a": 1}}, b""),
    "deep JSON": header("[" * 100_000),
    "deep objects": header('{"a":' * 50_000),
    "a deep header": header('{"a":' + "[" * 90_000 + "]" * 90_000 + "}"),
    "many names": header("{" + ",".join(f'"{i}":1' for i in range(300_000)) + "}"),
    "a long number": header('{"a":' + "9" * 100_000 + "}"),
    "no digest": safetensors.numpy.save({}, {"fastnet": '{"version":1}'}),
    "an empty digest": described({"version": 1}, digest=""),
    "another digest": described({"version": 1}, digest="0" * 64),
    "more metadata": safetensors.numpy.save({}, {"fastnet": "{}", "sha256": "", "more": ""}),
    "a description that is a list": described([1]),
    "a description that is null": described("null"),
    "an empty description": described(""),
    "no version": described({"kind": "test"}),
    "a version as text": described({"version": "1"}),
    "version 0": described({"version": 0}),
    "a description with a name twice": described('{"version":1,"version":1}'),
    "a description with NaN": described(MODEL % "NaN"),
    "a description with Infinity": described(MODEL % "-Infinity"),
    "a blank before it": described(" " + MODEL % "1"),
    "something behind it": described(MODEL % "1" + "1"),
    "a deep description": described(MODEL % ("[" * 100_000)),
    "a description of half a character": described(MODEL % '"\\ud800', digest="0" * 64),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_errors_soon_and_in_little_memory(path, name):
    data = HOSTILE[name]
    path.write_bytes(data)
    tracemalloc.start()
    begun = time.perf_counter()
    try:
        with pytest.raises(FileError, match=r"some\.safetensors") as raised:
            tensors.read(path).described("model")
        seconds = time.perf_counter() - begun
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "array(" not in str(raised.value) and len(str(raised.value)) < 500
    assert peak <= 2 * len(data) + (1 << 20), peak
    assert seconds < 2  # a bound against hanging; the time itself is bench's


def test_there_are_many_hostile_files():
    assert len(HOSTILE) >= 60


def test_what_is_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        tensors.read(tmp_path / "nowhere")
    with pytest.raises(OSError):
        tensors.read(tmp_path)
    with pytest.raises(FileError, match="it has 0 bytes"):
        tensors.read("/dev/null")


@pytest.mark.parametrize("text", ["", " 1", "1 2", '{"a":1,"a":1}', "NaN", "[1e]", "[" * 10**5])
def test_strict_json_refuses(text):
    with pytest.raises(ValueError):
        strict_json.read(text)


def test_states_become_json_and_arrays_and_come_back():
    state = {
        "none": None,
        "flag": np.bool_(True),
        "count": np.uint64(2**64 - 1),
        "infinite": [-np.inf, np.inf, 0.1, np.float32(0.5)],
        "text": "é",
        "inner": {"a": np.arange(3), "b": [np.zeros((2, 0))]},
    }
    arrays = {}
    text = strict_json.written(tree.split("it", state, arrays))
    found = tree.join(strict_json.read(text), arrays)
    assert list(arrays) == ["it/inner/a", "it/inner/b/0"]
    assert found["infinite"] == [-np.inf, np.inf, 0.1, 0.5] and found["flag"] is True
    assert found["count"] == 2**64 - 1 and found["none"] is None and found["text"] == "é"
    assert (found["inner"]["a"] == np.arange(3)).all()
    nan = tree.join(tree.split("it", float("nan"), {}), {})
    assert nan != nan


@pytest.mark.parametrize(
    ("value", "match"),
    [
        ({1, 2}, r"it is .*, which no file can keep"),
        ({"a": object()}, "it/a is"),
        ([print], r"it/0 is <built-in function print>"),
        ({1: 2}, "it has the name 1; expected strings"),
        ({"$array": "x"}, r"it has the name '\$array'; expected strings without"),
        (np.array(["a"]), "it is an array"),
    ],
)
def test_states_that_no_file_keeps(value, match):
    with pytest.raises(UsageError, match=match):
        tree.split("it", value, {})


@pytest.mark.parametrize(
    "value", [{"$array": "x"}, {"$array": 3}, {"$float": "one"}, {"$float": []}]
)
def test_states_that_no_file_has(value):
    with pytest.raises(FileError):
        tree.join(value, {})
