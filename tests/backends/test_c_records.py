"""The C structs and constants against the records, and the kernels against the ops."""

from __future__ import annotations

import platform

import numpy as np
import pytest

import fastnet as fn
from fastnet import parallel
from fastnet.backends.c import CBackend, extension
from fastnet.op import KERNELS
from fastnet.plan import records

if reason := fn.backends()["c"].reason:
    pytest.skip(reason, allow_module_level=True)

native = extension.extension()


def test_structs_have_the_records_fields():
    assert list(extension.differences(native.ffi)) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: [*fields[:-1], ("other", fields[-1][1])],
        lambda fields: [*fields, ("more", "i8")],
        lambda fields: [fields[1], fields[0], *fields[2:]],
        lambda fields: [(fields[0][0], "i2"), *fields[1:]],
    ],
    ids=["renamed", "longer", "swapped", "narrower"],
)
@pytest.mark.parametrize("struct", extension.STRUCTS)
def test_another_layout_is_refused_with_a_reason(monkeypatch, struct, change):
    old = extension.STRUCTS[struct]
    fields = [(name, old.fields[name][0]) for name in old.names]
    monkeypatch.setitem(extension.STRUCTS, struct, np.dtype(change(fields), align=True))
    with pytest.raises(fn.BackendUnavailable, match=rf"another version \({struct}\."):
        CBackend()


def test_constants_are_the_records():
    lib = native.lib
    numbers = {f"FN_{name.upper()}": n for name, n in (records.SEGMENT | records.KIND).items()}
    numbers |= {f"FN_{name.upper()}": n for name, n in records.CONTROL.items()}
    numbers |= {
        "FN_HOST_CALL": records.CONTROL["host"],
        "FN_HOST": records.HOST,  # the status
        "FN_OK": records.OK,
        "FN_NOT_FINITE": records.NOT_FINITE,
        "FN_BAD_LABEL": records.BAD_LABEL,
        "FN_OVERLAP": records.OVERLAP,
        "FN_NORM_NOT_FINITE": records.NORM_NOT_FINITE,
        "FN_PARAMS_NOT_FINITE": records.PARAMS_NOT_FINITE,
        "FN_BAD_COLUMN": records.BAD_COLUMN,
        "FN_SCRATCH": records.SCRATCH,
        "FN_MAX_THREADS": parallel.MAX_THREADS,
        "FN_SEGMENTS": len(records.SEGMENTS),
        "FN_TENSORS": records.MAX_TENSORS,
        "FN_SIZES": records.MAX_SIZES,
        "FN_SCALARS": records.MAX_SCALARS,
    }
    theirs = {name: getattr(lib, name) for name in dir(lib) if name.startswith("FN_")}
    assert theirs == numbers


def test_every_kernel_has_the_references_tensors():
    assert CBackend().kernels() == {name: kernel.tensors for name, kernel in KERNELS.items()}


def test_every_kernel_is_compiled_for_every_dtype_and_level_once():
    """A level with instructions for bfloat16 has float32's rounded products alone."""
    info, found = native.ffi.new("fn_kernel_info *"), []
    for i in range(native.lib.fn_kernel_count()):
        native.lib.fn_kernel_at(i, info)
        found.append((native.ffi.string(info.name).decode(), info.dtype, info.level))
    levels = {level for name, _, level in found if name == "linear_forward"}
    assert 0 in levels
    expected = [(name, kind, level) for name in KERNELS for kind in (0, 1) for level in levels]
    top = max(levels) + 1
    rounded = "linear_forward", "linear_vjp", "pairs_forward", "pairs_linear_forward"
    expected += [(f"bfloat16_{name}", 0, top) for name in rounded]
    wanted = {"x86_64": b"x86-64-v4-bf16", "aarch64": b"aarch64-bf16"}
    assert native.ffi.string(native.lib.fn_level_name(top)) == wanted[platform.machine()]
    assert sorted(found) == sorted(expected)


def test_a_missing_kernel_is_refused_by_name(product):
    program = np.zeros(1, records.INSTRUCTION)
    program["kernel"] = list(KERNELS).index("product_forward")
    with pytest.raises(
        ValueError, match=r"no kernel product_forward; use model\.to\('reference'\)"
    ):
        CBackend().prepare(program)
