"""Memory maps six times as large as the memory that a process may have train and predict."""

from __future__ import annotations

import sys
import textwrap

import child
import numpy as np
import pytest

from fastnet.errors import DataError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA is Linux's")

# RLIMIT_DATA counts private memory; a map of a file that is only read is none of it.
LIMITED = """
    import json, resource, sys
    import numpy as np, fastnet as fn
    kind, dtype, path, limit = *sys.argv[1:4], int(sys.argv[4])
    width = 1024
    row = width * np.dtype(dtype).itemsize
    with open(path, "wb") as file:  # sparse, but for its first rows
        file.write((20 * np.random.default_rng(0).normal(size=(500, width))).astype(dtype).tobytes())
        file.truncate(6 * limit // row * row)
    X = np.memmap(path, dtype, "r").reshape(-1, width)
    y = (np.arange(len(X)) % 2).astype("f")[:, None]
    model = fn.Sequential(fn.Linear(width, 4), fn.Tanh(), fn.Linear(4, 1), backend=kind, seed=0)
    trainer = fn.Trainer(model, fn.MSELoss(), fn.SGD(1e-4), seed=0)
    def uses(x, y):
        trainer.fit(x, y, batch_size=1024, validation_data=(x, y), verbose=0)
        outputs = [model.predict(x), model.predict(np.asarray(x)), model.predict(x, batch_size=100)]
        assert all(np.allclose(outputs[0], one, atol=1e-4) for one in outputs)
        return trainer.evaluate(x, y)["loss"]
    uses(X[:2000], y[:2000])
    with open("/proc/self/status") as file:
        now = next(1024 * int(line.split()[1]) for line in file if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (now + limit, now + limit))
    try:
        np.array(X)
    except MemoryError:
        print(json.dumps([uses(X, y), trainer.step, len(X)]))
"""


@pytest.mark.parametrize("dtype", ["float32", "uint8", "float64"])
def test_a_map_six_times_as_large_as_the_memory(backend, dtype, tmp_path):
    path, limit = tmp_path / "x", 40 << 20
    loss, steps, rows = child.run(textwrap.dedent(LIMITED), backend, dtype, path, limit)
    assert rows * 1024 * np.dtype(dtype).itemsize == path.stat().st_size == 6 * limit
    assert steps == 2 + rows // 1024 and 0.2 < loss < 0.5


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(300_001,), (70_001, 3), (300, 999), (2, 200_000), (3, 40, 999)])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39])
def test_a_bad_value_in_any_block_is_found(dtype, shape, bad):
    from fastnet.data import arrays

    x = np.ones(shape, dtype)
    for order in x, np.asfortranarray(x):
        arrays.check_finite("X", order, np.float32)
        for place in (0, x.size // 2, x.size - 1):
            where = np.unravel_index(place, shape)
            with np.errstate(over="ignore"):
                order[where] = bad
            with pytest.raises(DataError, match=r"^X holds 1 values that are NaN") as caught:
                arrays.check_finite("X", order, np.float32)
            assert str(caught.value).endswith(f"at index {tuple(map(int, where))}")
            order[where] = 1
