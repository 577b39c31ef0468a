"""Training in exported C: steps in fixed memory with the bits of fastnet's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import c_files
import numpy as np
import pytest
from c_files import STRICT, have, macro, run
from refusals import refused

import fastnet as fn
from fastnet.errors import HyperparameterError, UsageError

pytestmark = [
    pytest.mark.skipif(not have("gcc"), reason="no gcc"),
    pytest.mark.skipif(not fn.backends()["c"].available, reason="no C backend"),
]
STEPS, RATE = 200, 0.05
MAIN = """#include "net.h"
#include <stdio.h>
int main(int n, char **arguments) {
    static net_state state;
    static REAL scratch[NET_TRAIN_SCRATCH_BYTES / sizeof(REAL) + NET_SCRATCH_BYTES / sizeof(REAL)];
    static REAL x[NET_TRAIN_ROWS * NET_INPUTS], y[NET_OUTPUTS];
    static TARGET t[NET_TRAIN_ROWS * TARGETS];
    (void)n;
    net_start(&state);
    printf("%g\\n", (double)net_selftest(&state, scratch));
    FILE *file = fopen(arguments[1], "rb");
    while (fread(x, sizeof x, 1, file) == 1 && fread(t, sizeof t, 1, file) == 1)
        printf("%.17g\\n", net_train_step(&state, x, t, RATE, scratch));
    fclose(file);
    file = fopen(arguments[2], "wb");
    fwrite(state.parameters, sizeof state.parameters, 1, file);
    net_predict(&state, x, y, scratch);
    fwrite(y, sizeof y, 1, file);
    fclose(file);
    return 0;
}
"""


def mlp() -> list[Any]:
    return [fn.Linear(8, 20), fn.ReLU(), fn.Linear(20, 17), fn.Tanh(), fn.Linear(17, 3)]


def graph() -> list[Any]:
    """With statistics, dropout, a skip, branches and an activation that keeps a second result."""
    inner = fn.Sequential(fn.Linear(20, 5), fn.LinearTanh())
    layers = [fn.Linear(8, 20), fn.BatchNorm1d(20), fn.GELU(), fn.Dropout(0.2)]
    layers += [fn.Residual(fn.Linear(20, 20), fn.SiLU()), fn.Concat(fn.Linear(20, 4), inner)]
    return [*layers, fn.Linear(9, 3)]


def trained_by_c(folder: Path, x: Any, t: Any, *command: str, run_by: str = "") -> Any:
    """The losses of the steps on these minibatches, all parameters and the last outputs."""
    with open(folder / "data", "wb") as file:
        for rows, targets in zip(x, t, strict=True):
            whole = targets.dtype.kind == "i"
            file.write(rows.tobytes() + targets.astype("int32" if whole else x.dtype).tobytes())
    (folder / "main.c").write_text(MAIN)
    labels = t.dtype.kind == "i"
    real = "double" if x.dtype == np.float64 else "float"
    defined = [f"-DREAL={real}", f"-DTARGET={'int32_t' if labels else real}", f"-DRATE={RATE}"]
    defined += [f"-DTARGETS={1 if labels else t.shape[-1]}"]
    files = folder / "main.c", folder / "net.c", "-o", folder / "program", "-lm"
    run(*command, *STRICT, *defined, *files)
    program = [run_by] if run_by else []
    lines = run(*program, folder / "program", folder / "data", folder / "out").stdout.split()
    assert lines[0] == "0"
    count = macro(folder / "net.h", "NET_PARAMETERS")
    numbers = np.fromfile(folder / "out", x.dtype)
    return np.array(lines[1:], float), numbers[:count], numbers[count:]


def check(
    folder: Path, model: fn.Sequential, loss: Any, optimizer: Any, rows: int, trainable: Any,
    *command: str, run_by: str = "",
) -> None:  # fmt: skip
    random = np.random.default_rng(rows)
    x = random.normal(size=(STEPS, rows, 8)).astype(model.dtype)
    t = random.normal(size=(STEPS, rows, 3)).astype(model.dtype)
    if isinstance(loss, fn.CrossEntropyLoss):
        t = random.integers(3, size=(STEPS, rows))
    given = {"loss": loss, "optimizer": optimizer, "batch_size": rows}
    model.export_c(folder / "net.c", trainable=trainable, **given)
    losses, parameters, outputs = trained_by_c(folder, x, t, *command, run_by=run_by)
    able = [path for path, layer in model.layers if layer.state_dict()]
    if trainable != "all":
        model.freeze(*(f"{path}.*" for path in able[: -1 if trainable == "last" else -trainable]))
    model.eval()
    for rows_of_x, targets, found in zip(x, t, losses, strict=True):
        assert model.value_and_grad(loss, rows_of_x, targets) == found
        optimizer.step(model)
    assert losses[-1] != losses[0]
    want = [np.ravel(p.value) for p in model.bind().trainable()]
    np.testing.assert_array_equal(parameters, np.concatenate(want))
    np.testing.assert_array_equal(outputs, model.forward(x[-1])[0])


GCC = ("gcc", "-std=c99", "-O2", c_files.FMA)


@pytest.mark.parametrize("rows", [1, 4, 5, 40])
@pytest.mark.parametrize("loss", [fn.CrossEntropyLoss(), fn.MSELoss()], ids=["labels", "numbers"])
def test_200_steps_have_the_bits_of_fastnet(loss, rows, tmp_path):
    model = fn.Sequential(*mlp(), seed=0, backend="c", dtype="float64" if rows == 5 else "float32")
    check(tmp_path, model, loss, fn.SGD(RATE, momentum=0.9), rows, "all", *GCC)


@pytest.mark.parametrize(
    ("trainable", "optimizer"),
    [
        ("last", fn.SGD(RATE)),
        (1, fn.SGD(RATE, momentum=0.5)),
        (5, fn.SGD(RATE)),
        (2, fn.SGD(RATE, momentum=0.5, nesterov=True, weight_decay=1e-3)),
        ("all", fn.SGD(RATE, weight_decay=1e-3)),
    ],
    ids=["last", "one", "five", "two", "all"],
)
def test_some_layers_of_a_graph(trainable, optimizer, tmp_path):
    model = fn.Sequential(*graph(), seed=0, backend="c")
    check(tmp_path, model, fn.MSELoss(), optimizer, 3, trainable, *GCC)


@pytest.mark.parametrize(
    ("compiler", "emulator"),
    [("aarch64-linux-gnu-gcc", "qemu-aarch64"), ("arm-linux-gnueabihf-gcc", "qemu-arm")],
)
def test_steps_on_other_processors(compiler, emulator, tmp_path):
    if not have(compiler, emulator):
        pytest.skip(f"no {compiler} or {emulator}")
    model = fn.Sequential(*mlp(), seed=0, backend="c")
    command = compiler, "-std=c99", "-O2", "-static"
    loss, optimizer = fn.CrossEntropyLoss(), fn.SGD(RATE, momentum=0.9)
    check(tmp_path, model, loss, optimizer, 4, 2, *command, run_by=emulator)


def test_a_loss_that_is_not_finite_changes_nothing(tmp_path):
    model = fn.Sequential(*mlp(), seed=0, backend="c")
    x, t = np.zeros((1, 2, 8), "float32"), np.full((1, 2, 3), 3e38, "float32")
    model.export_c(tmp_path / "net.c", trainable="all", loss=fn.MSELoss(), batch_size=2)
    losses, parameters, _ = trained_by_c(tmp_path, x, t, *GCC)
    want = [np.ravel(p.value) for p in model.bind().trainable()]
    assert np.isinf(losses).all()
    np.testing.assert_array_equal(parameters, np.concatenate(want))


def test_the_loss_follows_from_the_trainer(tmp_path):
    model = fn.Sequential(fn.Linear(3, 4), seed=0)
    text = Path(model.export_c(tmp_path / "net.c", trainable="all")[1]).read_text("utf-8")
    assert "const float *t, double lr" in text
    x = np.random.default_rng(0).normal(size=(8, 3))
    fn.Trainer(model, fn.CrossEntropyLoss()).fit(x, np.arange(8) % 4, epochs=1, verbose=0)
    text = Path(model.export_c(tmp_path / "net.c", trainable="all")[1]).read_text("utf-8")
    assert "const int32_t *t, double lr" in text
    assert not model.frozen


def test_refusals(tmp_path):
    model, path = fn.Sequential(*mlp(), seed=0), tmp_path / "net.c"

    def check(kind: Any, message: str, made: Any = model, trainable: Any = "all", **options: Any):
        refused(lambda: made.export_c(path, trainable=trainable, **options), kind, message)

    for wrong in (0, 4, 1.5, "first"):
        check(HyperparameterError, "trainable is", trainable=wrong)
    check(UsageError, "no parameters", fn.Sequential(fn.ReLU()), input_shape=3)
    check(HyperparameterError, "loss is", loss="mse")
    check(UsageError, "loss is HuberLoss", loss=fn.HuberLoss())
    check(
        UsageError, "loss is CrossEntropyLoss.*without options", loss=fn.CrossEntropyLoss([1, 2, 3])
    )
    check(UsageError, "optimizer is", optimizer=fn.Adam())
    check(UsageError, "optimizer is", optimizer=fn.SGD(0.1, momentum=0.9, dampening=0.5))
    check(
        UsageError,
        "optimizer is",
        optimizer=fn.SGD(0.1, momentum=fn.schedules.CosineAnnealingLR(0.5, T_max=9)),
    )
    check(UsageError, "optimizer is", optimizer=fn.SGD(0.1, momentum=0.9, form="textbook"))
    check(HyperparameterError, "batch_size is", batch_size=513)
    normed = fn.Sequential(fn.Linear(8, 4), fn.LayerNorm(4), fn.Linear(4, 2), seed=0)
    check(UsageError, r"layer 1 \(LayerNorm\) has no C text of its gradient", normed)
    normed.export_c(path, trainable="last")
