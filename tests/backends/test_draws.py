"""Draws of 64 bits, which a backend's native code makes where it is loaded."""

from __future__ import annotations

import numpy as np
import pytest

import fastnet
from fastnet import random
from fastnet.backends import registry

if reason := fastnet.backends()["c"].reason:
    pytest.skip(reason, allow_module_level=True)

STREAMS = [0, random.stream_of(random.INIT, 3), 2**32 - 1]


@pytest.mark.parametrize("seed", [0, 7, 2**64 - 1])
@pytest.mark.parametrize("first", [0, 2, 62, 64, random.PIECE, 2**32 - 6])
def test_native_draws_are_those_of_the_generator(monkeypatch, seed, first):
    registry.get("c")
    assert random.native is not None
    cases = [
        (count, seed, stream, step, first)
        for count in (0, 1, 2, 3, 31, 33, 64, 127, 1000)
        for stream in STREAMS
        for step in (0, 7, 2**32 + 3, 2**40)
    ]
    found = [random.words64(*case) for case in cases]
    monkeypatch.setattr(random, "native", None)
    for words, case in zip(found, cases, strict=True):
        np.testing.assert_array_equal(words, random.words64(*case), str(case))
