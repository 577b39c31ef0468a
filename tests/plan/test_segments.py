"""Packing by lifetimes, the layout of parameters, and the records that backends share."""

from __future__ import annotations

import errno
import mmap
import re
import sys
from itertools import combinations

import numpy as np
import pytest

import fastnet as fn
from fastnet.init import Zeros
from fastnet.op import CONTEXT as CONTEXT_ARGUMENTS
from fastnet.op import KERNELS
from fastnet.parameter import Parameter
from fastnet.plan.records import (
    ALIGNMENT,
    CONTEXT,
    HUGE_PAGE,
    INSTRUCTION,
    KINDS,
    MAX_SCALARS,
    MAX_SIZES,
    MAX_TENSORS,
    SCRATCH,
    SEGMENTS,
    TRAIN,
    aligned,
    zeros_aligned,
)
from fastnet.plan.segments import Storage, pack


def blocks(seed):
    """Random blocks: (bytes, birth, death), from few to many, some of no size."""
    random = np.random.default_rng(seed)
    count = int(random.integers(1, 25))
    births = random.integers(0, 20, count)
    deaths = births + random.integers(0, 8, count)
    sizes = random.choice([0, 1, 63, 64, 65, 256, 1000, 4096], count)
    return list(zip(sizes.tolist(), births.tolist(), deaths.tolist(), strict=True))


@pytest.mark.parametrize("seed", range(200))
def test_blocks_alive_together_never_overlap(seed):
    items = blocks(seed)
    offsets, total = pack(items)
    for (i, (n, b, d)), (j, (m, c, e)) in combinations(enumerate(items), 2):
        together = b <= e and c <= d
        apart = offsets[i] + n <= offsets[j] or offsets[j] + m <= offsets[i] or not n or not m
        assert apart or not together, (items[i], offsets[i], items[j], offsets[j])
    assert all(offset % ALIGNMENT == 0 for offset in offsets)
    assert total == max(o + aligned(n) for o, (n, _, _) in zip(offsets, items, strict=True))


@pytest.mark.parametrize("seed", range(20))
def test_packing_is_close_to_what_is_alive_at_once(seed):
    items = blocks(seed)
    alive = max(sum(aligned(n) for n, b, d in items if b <= t <= d) for t in range(30))
    assert alive <= pack(items)[1] <= 1.5 * alive


def test_packing_reuses_what_is_free():
    assert pack([(64, 0, 1), (64, 2, 3), (128, 4, 5)]) == ([0, 0, 0], 128)
    assert pack([(64, 0, 2), (64, 2, 3)]) == ([0, 64], 128)  # times are inclusive
    assert pack([]) == ([], 0)


def test_parameters_and_gradients_share_one_aligned_layout():
    shapes = [(3, 5), (5,), (1,), (16,)]
    held = [
        Parameter(f"p{i}", shape, Zeros(), value=np.full(shape, i + 1.0))
        for i, shape in enumerate(shapes)
    ]
    held.insert(2, Parameter("m", (5,), Zeros(), buffer=True, value=np.full(5, 9.0)))
    held.append(Parameter("n", (1,), Zeros(), buffer=True, dtype="int64", value=np.array([7])))
    storage = Storage(held, "float32")
    assert storage.segments["params"].nbytes == 4 * 64
    assert storage.segments["grads"].nbytes == 4 * 64
    assert storage.segments["buffers"].nbytes == 2 * 64
    for p in held:
        segment, offset = storage.place(p)
        assert segment == ("params" if p.trainable else "buffers")
        assert p.value.ctypes.data == storage.segments[segment].ctypes.data + offset
        assert p.value.ctypes.data % ALIGNMENT == 0
        assert p.value.dtype == (p.dtype or "float32")
        if p.trainable:
            assert p.grad.ctypes.data == storage.segments["grads"].ctypes.data + offset
            assert not p.grad.any()
        else:
            assert p.grad is None
    values = [int(p.value.ravel()[0]) for p in held]
    assert values == [1, 2, 9, 3, 4, 7]
    assert storage.flat("params").sum() == 15 * 1 + 5 * 2 + 1 * 3 + 16 * 4  # padding is zero


@pytest.mark.parametrize("nbytes", [1, 64, 1000, SCRATCH, SCRATCH + 1, HUGE_PAGE, HUGE_PAGE + 1])
def test_zeros_are_aligned(nbytes):
    for _ in range(5):
        block = zeros_aligned(nbytes)
        assert block.ctypes.data % ALIGNMENT == 0
        assert block.nbytes == nbytes
        assert not block.any()
        block[:] = 1  # all of it is there


def asked_for_huge_pages(block):
    """Whether all of its memory is marked so in the system's list: "hg" among the flags."""
    begin = block.ctypes.data
    with open("/proc/self/smaps") as listing:
        mapping = None
        for line in listing:
            if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
                mapping = [int(text, 16) for text in found.groups()]
            elif line.startswith("VmFlags:") and mapping and mapping[0] <= begin < mapping[1]:
                return begin + block.nbytes <= mapping[1] and "hg" in line.split()
    return False


linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux is asked for huge pages")


@linux
def test_large_blocks_ask_for_huge_pages():
    assert asked_for_huge_pages(zeros_aligned(SCRATCH + 1))
    assert asked_for_huge_pages(zeros_aligned(3 * HUGE_PAGE + 1))


@linux
def test_small_models_do_without_huge_pages(monkeypatch):
    monkeypatch.setattr(mmap, "mmap", None)
    fn.Sequential(fn.Linear(7, 3), backend="reference").predict(np.zeros((2, 7), np.float32))
    with pytest.raises(TypeError):
        zeros_aligned(SCRATCH + 1)


@linux
@pytest.mark.parametrize("refuses", ["mmap", "madvise"])
def test_without_huge_pages_there_is_memory_all_the_same(monkeypatch, refuses):
    class Refusing(mmap.mmap):
        def __new__(cls, *arguments, **named):
            if refuses == "mmap":
                raise OSError(errno.ENOMEM, "Cannot allocate memory")
            return super().__new__(cls, *arguments, **named)

        def madvise(self, *_):
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(mmap, "mmap", Refusing)
    block = zeros_aligned(HUGE_PAGE)
    assert block.nbytes == HUGE_PAGE and block.ctypes.data % ALIGNMENT == 0 and not block.any()


@pytest.mark.parametrize("record", [INSTRUCTION, CONTEXT, TRAIN])
def test_records_are_laid_out_as_c_does(record):
    end = 0
    for name in record.names:
        field, offset = record.fields[name][:2]
        align = 4 if field.base == np.int32 else 8
        assert offset == -(-end // align) * align, name
        end = offset + field.itemsize
    assert record.itemsize == -(-end // 8) * 8
    assert record.isalignedstruct


def test_records_have_room_for_every_kernel():
    for kernel in KERNELS.values():
        assert len(kernel.tensors) <= MAX_TENSORS, kernel.name
        assert len(kernel.op.dims) <= MAX_SIZES, kernel.name
        assert len(kernel.op.scalars) <= MAX_SCALARS, kernel.name
    assert INSTRUCTION["segment"].shape == INSTRUCTION["offset"].shape == (MAX_TENSORS,)
    assert INSTRUCTION["size"].shape == (MAX_SIZES,)
    assert INSTRUCTION["scalar"].shape == (MAX_SCALARS,)
    assert CONTEXT["segment"].shape == (len(SEGMENTS),)


def test_every_context_argument_has_its_field():
    fields = {*CONTEXT.names, *INSTRUCTION.names}
    assert set(CONTEXT_ARGUMENTS) <= fields
    assert [np.dtype(kind).itemsize for kind in KINDS] == [4, 8, 1, 8]
