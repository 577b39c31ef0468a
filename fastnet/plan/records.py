"""The records that every backend reads: instructions, the context of a run, a chunk of training steps.

They are NumPy structured dtypes whose fields have the names, offsets and sizes of the C structs in
csrc/engine/fastnet.h; the C backend compares them field by field before it runs anything. Pointers are
integers (0: absent). A tensor is addressed by a segment and an offset in bytes.
"""

from __future__ import annotations

import sys

import numpy as np

from fastnet import op

# Owners of segments. params, grads and buffers belong to the model, state to a pair of optimizer and model,
# workspace, derived and stage to the plan. x, y and w are the minibatch's inputs, targets and weights.
# training has what a trainer adds to an update: sums of gradients, their norm, averages of params. stage
# has room for rows of x, y and w that cannot be used in place, and for the buffers' values before the step.
# schedule has the numbers of a step's schedules, such as a dropout's p; it moves on with each step.
SEGMENTS = (
    "params", "grads", "buffers", "state", "workspace", "derived", "x", "y", "w", "training", "stage",
    "schedule",
)  # fmt: skip
SEGMENT = {name: number for number, name in enumerate(SEGMENTS)}
ABSENT = -1

MAX_TENSORS, MAX_SIZES, MAX_SCALARS = 12, 4, op.MAX_SCALARS
ALIGNMENT = 64
HUGE_PAGE = 1 << 21  # bytes, of x86 and most others
SCRATCH = 1 << 20  # FN_SCRATCH: bytes of scratch memory for each thread of a native backend

# The dtypes of users' arrays, by number; a plan's own dtype is 0 or 1.
KINDS = ("float32", "float64", "uint8", "int64")
KIND = {name: number for number, name in enumerate(KINDS)}

# How a chunk of steps or a prediction ended. HOST: it has not; Python must compute something first.
OK, NOT_FINITE, BAD_LABEL, OVERLAP, NORM_NOT_FINITE, HOST, PARAMS_NOT_FINITE, BAD_COLUMN = range(8)

INSTRUCTION = np.dtype(
    [
        (
            "kernel",
            "i4",
        ),  # index into the kernels' names in order of registration; < 0: see CONTROL
        ("dtype", "i4"),  # KIND of the plan
        ("stream", "i8"),  # the op's stream of random numbers
        ("group", "i8"),  # update only: its row of hyper
        ("accumulate", "i8"),  # 1: add to parameter gradients, even if the context's is 0
        ("more_rows", "i8"),  # rows of its tensors, beside one, for each row of the minibatch
        ("entry", "i8"),  # native backends only: address of the kernel's function
        ("epilogue", "i8"),  # C only: address of the next instruction's, if fused with this one
        ("relu_mask", "i8"),  # C only: that one as a mask which tiles can apply (fn_relu_mask)
        ("foreign", "i8"),  # C only: address of an elementwise kernel of other code (fn_foreign)
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
        ("hyper", "i8"),  # update only: doubles, one row for each group
        ("hyper_size", "i8"),  # doubles in a row
        ("rows", "i8"),  # rows of this minibatch
        ("seed", "u8"),
        ("step", "u8"),  # counter of the random draws
        ("accumulate", "i8"),  # 1: add to parameter gradients instead of overwriting them
        ("scratch", "i8"),  # SCRATCH bytes for each thread
        ("threads", "i8"),  # the most threads that may share the work
        ("elements_to_fuse", "i8"),  # from this many elements on, epilogues are fused
    ],
    align=True,
)

# Instructions that the runner of steps executes itself. Their operands are tensors (T) and sizes (S).
#
# keep    T0 ← the segment buffers; S0: its bytes. A refused step restores the buffers from T0.
# gather  Points the segments x, y and w to the minibatch's rows: in place if these are consecutive and have
#         the plan's dtype, else converted copies in T0, T1 and T2. S0, S1: elements in a row of x and y. A
#         label out of range ends the chunk with BAD_LABEL, a column with BAD_COLUMN.
# record  losses[step] ← T0; if requested, row_losses ← T1, outputs ← T2, decisions ← T3. S0: bytes of a row
#         of output.
# host    Ends the call with HOST; the next call continues after this instruction.
# check   If T0 is not finite, refuses the step and ends the chunk with the status S0.
# unless  Ends the step if the first number of the instruction's row of the table is 0.
# finite  If that number is not 0, and T0 (S0 bytes) holds a number that is not finite, ends the chunk after
#         this step with the status S1.
CONTROLS = ("keep", "gather", "record", "host", "check", "unless", "finite")
CONTROL = {name: -1 - number for number, name in enumerate(CONTROLS)}

TRAIN = np.dtype(
    [
        ("context", CONTEXT),  # in, out: that of the next step, except for x, y, w and rows
        ("dtype", "i8"),  # KIND of the plan
        ("program", "i8"),  # the instructions of a step: address and length
        ("count", "i8"),
        ("before_update", "i8"),  # number of instructions before the update's
        ("at", "i8"),  # the first instruction to run; out, with HOST: where to continue
        ("x", "i8"),  # inputs of the data set: row-major, of KIND x_kind
        ("x_kind", "i8"),
        ("x_scale", "f8"),  # their factor, which the gathered rows have; 0: none
        (
            "x_begins",
            "i8",
        ),  # 0, or x are the elements of sparse rows: int64, where each row's begin
        ("x_columns", "i8"),  # and int32, their columns, which grow within a row
        ("y", "i8"),  # its targets, likewise
        ("y_kind", "i8"),
        ("classes", "i8"),  # > 0: targets are int64 labels and must lie in [0, classes)
        ("ignored", "i8"),  # or be this label
        ("w", "i8"),  # or 0: weights of the samples, of the plan's dtype
        ("batch_offsets", "i8"),  # int64[steps + 1] into index
        ("index", "i8"),  # int64: the rows of each minibatch
        ("table_bytes", "i8"),  # bytes of a step's rows of hyper
        ("schedule_bytes", "i8"),  # bytes of a step's numbers in the segment schedule
        ("losses", "i8"),  # out: double[steps]
        ("row_losses", "i8"),  # out or 0: double for each row, in the order of index
        ("outputs", "i8"),  # out or 0: rows of output, in the order of index
        ("decisions", "i8"),  # out or 0: double for each row, in the order of index
        ("steps", "i8"),  # number of steps
        ("done", "i8"),  # in, out: number of steps done
        ("status", "i8"),  # out
        ("bad_row", "i8"),  # out: the row of the data set with a bad label
        ("value", "f8"),  # out: the number that was not finite
        ("interleaved", "i8"),  # out, C only: products interleaved with updates in the last step
        # Whole epochs: after each, all steps of another TRAIN run, whose row_losses and decisions have room
        # for all epochs, one after the other.
        ("evaluation", "i8"),  # or 0: its address
        ("epoch", "i8"),  # steps of an epoch
        ("evaluated", "i8"),  # in, out: number of epochs evaluated
        ("kept", "i8"),  # out or 0: after each, the segments params and buffers
        ("params_bytes", "i8"),
        ("buffers_bytes", "i8"),
        ("seconds", "f8"),  # in, out: that evaluations took
        ("goes_on", "i8"),  # C only: another call follows, and nobody reads gradients before
    ],
    align=True,
)

PREDICT = np.dtype(
    [
        ("context", CONTEXT),  # x and rows are set by the call
        ("dtype", "i8"),  # KIND of the plan
        ("forward", "i8"),  # the program: address and length
        ("forward_count", "i8"),
        ("max_rows", "i8"),  # rows of one run of the program
        ("rows_to_share", "i8"),  # a run with fewer rows uses one thread
        ("x", "i8"),  # where a copy of the inputs goes; 0: the program reads the caller's
        ("x_bytes", "i8"),  # bytes of a row
        ("output", "i8"),  # where the program writes the output; 0: the output is x itself
        ("output_bytes", "i8"),  # bytes of a row
    ],
    align=True,
)


def zeros_aligned(nbytes: int) -> np.ndarray:
    """`nbytes` zero bytes, aligned to ALIGNMENT; more than SCRATCH lie in huge pages if possible.

    A step reads all parameters several times, and small pages would cause misses in the processor's TLB.
    Linux gives huge pages on request (the setting "madvise"); NumPy requests them for large arrays too.
    """
    raw, multiple = _huge_pages(nbytes) if nbytes > SCRATCH else None, HUGE_PAGE
    if raw is None:
        raw, multiple = np.zeros(nbytes + ALIGNMENT, np.uint8), ALIGNMENT
    start = -raw.ctypes.data % multiple
    return raw[start : start + nbytes]


def scratch_memory(threads: int) -> np.ndarray:
    """SCRATCH bytes for each thread, aligned to ALIGNMENT; those of a single one are not initialised.

    Small models use little of it: what is never written to takes no memory.
    """
    if threads > 1:
        return zeros_aligned(threads * SCRATCH)
    raw = np.empty(SCRATCH + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + SCRATCH]


def _huge_pages(nbytes: int) -> np.ndarray | None:
    """`nbytes` zero bytes with room to align them to huge pages; None where these are not available."""
    if sys.platform != "linux":
        return None
    import mmap  # large models only

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
