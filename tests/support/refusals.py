"""What tests of refusals share: the check of an error, and values that are no good anywhere."""

from __future__ import annotations

import inspect
import re

import numpy as np
import pytest

import fastnet as fn

NOT_NUMBERS = ["0.1", b"1", None, True, 1j, [0.5], np.array([0.5]), object(), float]
NOT_FINITE = [np.nan, np.inf, -np.inf, np.float32("inf"), 10**400]
NOT_INTEGERS = [*NOT_NUMBERS, *NOT_FINITE[:4], 2.0, np.float64(2.0), 1.5]


def refused(call, kind, message):
    """The call raises this error of fastnet, whose message has these words; a ValueError, save for
    calls that come out of order."""
    assert issubclass(kind, (ValueError, fn.errors.UsageError)) and issubclass(
        kind, fn.FastnetError
    )
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert re.search(message, str(caught.value)), str(caught.value)


def arguments(call, *kinds):
    """The names of its arguments whose annotations have one of these words."""
    given = inspect.signature(call).parameters.values()
    return {p.name for p in given if {*kinds} & set(re.findall(r"\w+", str(p.annotation)))}
