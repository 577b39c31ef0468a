"""Blocks, `with …:`, that give back what they take: wherever Ctrl-C comes, whoever keeps its traceback."""

from __future__ import annotations

import contextlib
import copy
import dis
import functools
import os
import signal
import sys

import numpy as np
import on_cuda
import pytest

import fastnet as fn
from fastnet.errors import UsageError

MODEL = fn.Sequential(fn.Linear(2, 1), backend="reference", seed=1)
FILES = (os.path.dirname(fn.__file__), contextlib.__file__)


def edited():
    with MODEL.edit() as p:
        p["0.bias"][...] += 1


def edit_is_over():
    storage = MODEL.bind()
    with MODEL.training_lock():
        return not storage.editing


def counted():
    with fn.threads(3):
        pass


def threads_are_as_before():
    return fn.get_num_threads() == 2


def resident():
    with executor().resident():
        pass


def nothing_is_resident():
    return not executor().memory._resident


@functools.cache
def executor():
    model, loss = copy.deepcopy(MODEL).to("cuda"), fn.MSELoss()
    return model.training_executor(model.data(loss, np.ones((1, 2)), [1.0], "x", "y"), 1, loss)


BLOCKS = {
    "edit": (edited, edit_is_over),
    "threads": (counted, threads_are_as_before),
    "resident": (resident, nothing_is_resident),
}
CASES = [name if name != "resident" else pytest.param(name, marks=on_cuda.MARKS) for name in BLOCKS]


def interrupted(call, number):
    """What Ctrl-C raises at so manieth call within the package, after which Python looks for signals."""
    seen, last = 0, {}

    def trace(frame, event, _):
        nonlocal seen
        if not frame.f_code.co_filename.startswith(FILES):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            before = last.get(frame)
            last[frame] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            if before is not None and before.startswith("CALL"):
                seen += 1
                if seen == number:
                    signal.raise_signal(signal.SIGINT)
        return trace

    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt as error:
        return error  # with its traceback, and what that holds
    finally:
        sys.settrace(None)
        last.clear()
    return None


@pytest.mark.parametrize("block", CASES)
def test_ctrl_c_leaves_nothing_taken_wherever_it_comes(block, heeding_ctrl_c):
    call, over = BLOCKS[block]
    call()
    errors = []
    with fn.threads(2):
        while (error := interrupted(call, len(errors) + 1)) is not None:
            errors.append(error)
            assert over(), f"at the {len(errors)}th place"
    assert len(errors) > 3
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_block_that_nobody_ends_is_over_when_it_is_dropped():
    block = MODEL.edit()
    p = block.__enter__()
    with pytest.raises(UsageError, match="trained or edited elsewhere"):
        MODEL.training_lock()
    del block
    assert edit_is_over()
    assert not p["0.bias"].flags.writeable


def test_a_block_can_be_entered_once_at_a_time():
    block, before = MODEL.edit(), MODEL.state_dict()["0.bias"]
    with block as p:
        with pytest.raises(UsageError, match="open already"):
            block.__enter__()
        p["0.bias"][...] += 1
    with block as p:
        p["0.bias"][...] += 1
    np.testing.assert_array_equal(MODEL.state_dict()["0.bias"], before + 2)
    assert edit_is_over()
