"""Why the CUDA backend cannot run here, as users are told."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("numba.cuda")

from fastnet.backends.cuda import engine

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
    assert engine.reason("pip install this") is None
