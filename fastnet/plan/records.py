"""The records that every backend reads: instructions, the context of a run, a chunk of training steps.

They are NumPy structured dtypes whose fields have the names, offsets and sizes of the C structs in
csrc/engine/fastnet.h; the C backend compares them field by field before it runs anything. Pointers are
integers (0: absent). A tensor is addressed by a segment and an offset in bytes.
"""

from __future__ import annotations

import sys

import numpy as np

# Who owns a segment: params, grads and buffers are the model's; state is the pair's of optimizer and
# model; workspace and derived are the plan's; x, y and w are this minibatch's inputs, targets and weights;
# training holds what a trainer adds to an optimizer's update: sums of gradients, their norm, averages of
# params; stage is the plan's too, with room for rows of x, y and w that cannot be used in place and for
# what the buffers held before the step.
SEGMENTS = (
    "params", "grads", "buffers", "state", "workspace", "derived", "x", "y", "w", "training", "stage",
)  # fmt: skip
SEGMENT = {name: number for number, name in enumerate(SEGMENTS)}
ABSENT = -1

MAX_TENSORS, MAX_SIZES, MAX_SCALARS = 12, 4, 4
ALIGNMENT = 64
HUGE_PAGE = 1 << 21  # bytes, of x86 and most others
SCRATCH = 1 << 20  # FN_SCRATCH: bytes of scratch memory of a thread of a native backend

# What arrays of user data may hold, by number; a plan's own dtype is 0 or 1.
KINDS = ("float32", "float64", "uint8", "int64")
KIND = {name: number for number, name in enumerate(KINDS)}

# How a chunk of steps, or a prediction, ended. HOST: not yet, Python has to do something first.
OK, NOT_FINITE, BAD_LABEL, OVERLAP, NORM_NOT_FINITE, HOST = range(6)

INSTRUCTION = np.dtype(
    [
        (
            "kernel",
            "i4",
        ),  # index into the kernels' names in order of registration; < 0: see CONTROL
        ("dtype", "i4"),  # KIND of the plan
        ("stream", "i8"),  # the op's stream of random numbers
        ("group", "i8"),  # update only: the row of hyper that applies
        ("accumulate", "i8"),  # 1: add to parameter gradients, whatever the context says
        ("entry", "i8"),  # native backends only: the address of the kernel's entry
        ("epilogue", "i8"),  # C only: the address of the next instruction's, if fused with this one
        ("relu_mask", "i8"),  # C only: that one as a mask which tiles can apply (fn_relu_mask)
        ("segment", "i4", (MAX_TENSORS,)),  # tensors in the order of the kernel's arguments
        ("offset", "i8", (MAX_TENSORS,)),  # bytes
        ("size", "i8", (MAX_SIZES,)),  # the op's dims, in order
        ("scalar", "f8", (MAX_SCALARS,)),  # the op's scalars, in order
    ],
    align=True,
)

CONTEXT = np.dtype(
    [
        ("segment", "i8", (len(SEGMENTS),)),  # base addresses
        ("hyper", "i8"),  # update only: doubles, a row for each group
        ("hyper_size", "i8"),  # doubles in a row
        ("rows", "i8"),  # rows of this minibatch
        ("seed", "u8"),
        ("step", "u8"),  # counter of the random draws
        ("accumulate", "i8"),  # 1: parameter gradients are added to
        ("scratch", "i8"),  # SCRATCH bytes for each of the threads
        ("threads", "i8"),  # at most so many threads share the work
        ("elements_to_fuse", "i8"),  # from so many elements on, epilogues are fused
    ],
    align=True,
)

# Instructions that a runner of steps carries out itself, and what they do. Their operands are tensors (T)
# and sizes (S) by place.
#
# keep    T0 ← the segment buffers. S0: its bytes. A step that is refused later puts them back.
# gather  The minibatch's rows of x, y and w, for which T0, T1 and T2 have room: they are copied there and
#         converted, unless they are one run of rows of the plan's dtype, which is used in place. The
#         segments x, y and w point to them. S0, S1: elements in a row of x and y. A label out of range ends
#         the chunk with BAD_LABEL.
# record  losses[step] ← T0; row_losses and outputs, where they are wanted, ← T1 and T2. S0: bytes of a
#         row of output.
# host    Ends the call with HOST; the next one goes on behind this instruction.
# check   A T0 that is not finite refuses the step, and the chunk ends with the status S0.
# unless  Where the first number of this instruction's row of the table is 0, the step ends here.
CONTROLS = ("keep", "gather", "record", "host", "check", "unless")
CONTROL = {name: -1 - number for number, name in enumerate(CONTROLS)}

TRAIN = np.dtype(
    [
        ("context", CONTEXT),  # in, out: that of the next step to be done, but for x, y, w and rows
        ("dtype", "i8"),  # KIND of the plan
        ("program", "i8"),  # the instructions of a step: address and length
        ("count", "i8"),
        ("before_update", "i8"),  # those before the update's
        ("at", "i8"),  # the instruction to begin with; out, with HOST: to go on with
        ("x", "i8"),  # the data set's inputs: row-major, of KIND x_kind
        ("x_kind", "i8"),
        ("y", "i8"),  # its targets, likewise
        ("y_kind", "i8"),
        ("classes", "i8"),  # > 0: targets are int64 labels and must lie in [0, classes)
        ("ignored", "i8"),  # or be this label
        ("w", "i8"),  # or 0: its samples' weights, of the plan's dtype
        ("batch_offsets", "i8"),  # int64[steps + 1] into index
        ("index", "i8"),  # int64: the rows of each minibatch
        ("table_bytes", "i8"),  # of a step's rows of hyper
        ("losses", "i8"),  # out: double[steps]
        ("row_losses", "i8"),  # out or 0: double, a row after the other
        ("outputs", "i8"),  # out or 0: rows of output, one after the other
        ("steps", "i8"),  # of which
        ("done", "i8"),  # in, out: so many are done
        ("status", "i8"),  # out
        ("bad_row", "i8"),  # out: the row of the data set with a bad label
        ("value", "f8"),  # out: what was not finite
        ("interleaved", "i8"),  # out, C only: products of the last step that updated parameters
    ],
    align=True,
)

PREDICT = np.dtype(
    [
        ("context", CONTEXT),  # x and rows are set by the call
        ("dtype", "i8"),  # KIND of the plan
        ("forward", "i8"),  # the program: address and length
        ("forward_count", "i8"),
        ("max_rows", "i8"),  # rows that the program takes at once
        ("rows_to_share", "i8"),  # fewer rows at once are left to one thread
        ("x_bytes", "i8"),  # a row
        ("output", "i8"),  # where the program leaves the output; 0: it is x itself
        ("output_bytes", "i8"),  # a row
    ],
    align=True,
)


def zeros_aligned(nbytes: int) -> np.ndarray:
    """`nbytes` zero bytes at a multiple of ALIGNMENT; more than SCRATCH lie in huge pages if possible.

    A step goes through all parameters several times, and the processor looks up each page's place anew
    where there are more pages than its table holds. Linux gives huge pages to who asks for them (the
    setting "madvise"), as NumPy does from 4 MiB on. One thread's scratch memory does not: small models
    have it too.
    """
    raw, multiple = _huge_pages(nbytes) if nbytes > SCRATCH else None, HUGE_PAGE
    if raw is None:
        raw, multiple = np.zeros(nbytes + ALIGNMENT, np.uint8), ALIGNMENT
    start = -raw.ctypes.data % multiple
    return raw[start : start + nbytes]


def _huge_pages(nbytes: int) -> np.ndarray | None:
    """So many zero bytes, and room to begin at a huge page; None where the system cannot be asked."""
    if sys.platform != "linux":
        return None
    import mmap  # not for small models

    size = (-(-nbytes // HUGE_PAGE) + 1) * HUGE_PAGE
    try:
        pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        pages.madvise(mmap.MADV_HUGEPAGE)
    except OSError:
        return None
    return np.frombuffer(pages, np.uint8)


def aligned(nbytes: int) -> int:
    """`nbytes` rounded up to a multiple of ALIGNMENT."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
