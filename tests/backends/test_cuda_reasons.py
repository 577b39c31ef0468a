"""Why the CUDA backend cannot run here, as users are told."""

from __future__ import annotations

import gc
import re
from types import SimpleNamespace

import pytest

import fastnet as fn

pytest.importorskip("numba.cuda")

from fastnet.backends.cuda import backend, cublas, device, engine, simulator
from fastnet.backends.cuda.failures import failed

NO_LIBRARY = "CUDA driver library cannot be found.\nEnsure that a driver\nis installed."
NO_DEVICE = "CUDA_ERROR_NO_DEVICE (100)"


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (
            NO_LIBRARY,
            "no NVIDIA driver works here (CUDA driver library cannot be found. Ensure that",
        ),
        (NO_DEVICE, f"the driver finds no device ({NO_DEVICE}): see nvidia-smi and CUDA_VISIBLE"),
        (None, "numba-cuda finds no compiler for the device: pip install this"),
    ],
)
def test_what_is_missing_is_told_in_one_line_with_the_remedy(monkeypatch, error, wanted):
    cuda = SimpleNamespace(is_available=lambda: False, cuda_error=lambda: error)
    monkeypatch.setattr(engine, "SIMULATOR", False)
    monkeypatch.setattr(engine, "cuda", cuda)
    reason = engine.reason("pip install this")
    assert reason.startswith(wanted) and "\n" not in reason
    cuda.is_available = lambda: True
    cuda.driver = cuda.runtime = SimpleNamespace(get_version=lambda: (13, 0))
    assert engine.reason("pip install this") is None
    cuda.driver = SimpleNamespace(get_version=lambda: (12, 9))
    wanted = "the driver is of CUDA 12, numba-cuda's compiler of 13: pip install this"
    assert engine.reason("pip install this") == wanted

    def absent():
        raise RuntimeError("libnvrtc.so")

    cuda.runtime = SimpleNamespace(get_version=absent)
    wanted = "numba-cuda finds no compiler for the device: pip install this"
    assert engine.reason("pip install this") == wanted


def test_versions_that_do_not_fit_together_are_a_reason(monkeypatch):
    def broken(name):
        raise AttributeError("module 'numba.cuda.types' has no attribute 'NPDatetime'")

    monkeypatch.setattr(backend, "importlib", SimpleNamespace(import_module=broken))
    wanted = r"^numba\.cuda cannot be imported \(AttributeError: module 'numba\.cuda\."
    with pytest.raises(fn.BackendUnavailable, match=wanted):
        backend.load()


def test_failures_are_told_with_their_remedy():
    error = failed("a stream", RuntimeError("CUDA initialized before forking"))
    assert type(error) is fn.DeviceError
    assert re.match(r"a stream failed: this process was forked .*\.get_context", str(error))
    error = failed("a product", MemoryError("cuBLAS: cublasCreate finds no memory"))
    assert isinstance(error, MemoryError)


def test_a_cublas_that_refuses_is_done_without(monkeypatch):
    monkeypatch.setattr(cublas, "_refused", False)
    monkeypatch.setattr(cublas, "_library", lambda: SimpleNamespace(cublasCreate_v2=lambda _: 1))
    monkeypatch.setattr(cublas, "_workspace", lambda: 4)
    monkeypatch.setattr(cublas, "new_array", lambda size, dtype: None)
    stream = SimpleNamespace(handle=-1)
    with pytest.warns(RuntimeWarning, match="cublasCreate failed with status 1: matrix products"):
        assert cublas.handle(stream) is None
    assert cublas.handle(stream) is None  # and no warning


def test_a_stream_is_had_again_when_its_owner_has_died(monkeypatch):
    monkeypatch.setattr(device, "_idle", [])
    monkeypatch.setattr(device, "_streams", [])
    monkeypatch.setattr(device, "cuda", SimpleNamespace(stream=object))

    class Owner:
        pass

    owner, other = Owner(), Owner()
    stream = device.stream_for(owner)
    assert device.stream_for(other) is not stream
    del owner
    gc.collect()
    assert device.stream_for(Owner()) is stream


def test_what_a_device_would_not_launch():
    for blocks, threads in ((0, 4), ((1, 0), 4), ((1, 65536), 4), (1, (64, 32)), (1, 0)):
        with pytest.raises(AssertionError):
            simulator.check(blocks, threads)
    simulator.check((1 << 20, 65535), (32, 32))
