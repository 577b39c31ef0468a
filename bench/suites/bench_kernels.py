"""Every kernel of every backend at a small and a big size, seconds per call.

Not CUDA's, whose operands would go to the device and back in each call.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from contenders.repeated import Repeated
from fastnet.backends import registry
from fastnet.op import KERNELS
from measure import machine

# Those of lazy ops and of trees need operands that are no random numbers: see `sparse` in contenders/. The
# learned optimizer's number of units is bounded, and its weights follow from that.
OTHERS = {"nodes", "weights"}
RANDOM = [n for n, k in KERNELS.items() if not k.op.lazy and not OTHERS & k.op.inputs.keys()]
SIZES = {"small": (32, 32), "big": (256, 512)}  # rows, and every other dimension


@pytest.mark.parametrize("backend", [b for b in machine.backends() if b != "cuda"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kernel", RANDOM)
def bench_kernel(kernel: str, size: str, backend: str, timed: Callable[..., None]):
    """One call of a kernel."""
    if kernel not in registry.get(backend).kernels():
        pytest.skip(f"backend {backend} has no {kernel}")
    rows, width = SIZES[size]
    op = KERNELS[kernel].op
    # An update of one flat vector: as long as the others' matrices.
    is_flat = KERNELS[kernel].phase == "update" and len(op.dims) == 1
    flat = rows * width if is_flat else width
    sizes = op.fitted(dict.fromkeys(op.dims, flat))
    repeated = Repeated(KERNELS[kernel], backend, rows, sizes)
    timed(repeated.run, group=f"{kernel}, {size} ({rows} × {width})")
