"""Many exported nets in one program, on other processors, under sanitizers, and without FMA."""

from __future__ import annotations

from pathlib import Path

import c_files
import numpy as np
import pytest
import random_nets
from c_files import Compiled, have, macro, run

import fastnet as fn

pytestmark = [
    pytest.mark.skipif(not have("gcc"), reason="no gcc"),
    pytest.mark.skipif(not fn.backends()["c"].available, reason="no C backend"),
]
CHECKS = "-fsanitize=address,undefined", "-fno-sanitize-recover=all"
STATIC = "-O2", "-static"
WAYS = {
    "aarch64": ("aarch64-linux-gnu-gcc", ("-std=gnu11", *STATIC), ("qemu-aarch64",)),
    "armv7": ("arm-linux-gnueabihf-gcc", ("-mfpu=neon-vfpv4", *STATIC), ("qemu-arm",)),
    "riscv64": ("riscv64-linux-gnu-gcc", ("-std=gnu11", *STATIC), ("qemu-riscv64",)),
    "sanitizers": ("gcc", ("-O1", c_files.FMA, *CHECKS), ()),
    "valgrind": ("gcc", ("-O1", c_files.FMA), ("valgrind", "-q", "--error-exitcode=9")),
}


def program(folder: Path, seeds: range) -> list[Path]:
    """The sources of a program that runs the self-tests of random models, each on all of its rows.

    It prints the number of each model whose outputs have other bits, and at the end "done".
    """
    sources, tests, most = [folder / "main.c"], "", 0
    for seed in seeds:
        dtype, real = (("float64", "double"), ("float32", "float"))[seed % 3 != 0]
        model = random_nets.model(seed, backend="c", dtype=dtype)
        name, rows = f"net{seed}", random_nets.inputs(seed)
        made = model.export_c(folder / f"{name}.c", name, rows=rows, input_shape=8)
        sources.append(made[0])
        most = max(most, macro(made[1], f"{name.upper()}_SCRATCH_BYTES"))
        call = f"{name}_selftest(({real} *)(void *)scratch)"
        tests += f'    if ({call} != 0)\n        printf("%d\\n", {seed});\n'
    includes = "".join(f'#include "{path.stem}.h"\n' for path in sources[1:])
    sources[0].write_text(
        f"#include <stdio.h>\n{includes}\nint main(void) {{\n    static double scratch[{most // 8 + 1}];\n"
        f'{tests}    puts("done");\n    return 0;\n}}\n'
    )
    return sources


@pytest.mark.parametrize("count", [4, pytest.param(60, marks=pytest.mark.slow)])
@pytest.mark.parametrize("way", WAYS)
def test_bits(way, count, tmp_path):
    compiler, flags, runner = WAYS[way]
    if not have(compiler, *runner[:1]):
        pytest.skip(f"no {compiler} or {runner[0]}")
    sources = program(tmp_path, range(count))
    run(compiler, *flags, *sources, "-o", tmp_path / "nets", "-lm")
    assert run(*runner, tmp_path / "nets").stdout == "done\n"


@pytest.mark.parametrize("seed", [28, 40, 50])
def test_without_fma_the_last_digits_differ(seed, tmp_path):
    model, x = random_nets.model(seed, backend="c"), random_nets.inputs(seed).astype("float32")
    path = Path(model.export_c(tmp_path / "net.c", rows=x[:3], input_shape=8)[0])
    want = model.predict(x).reshape(len(x), -1)
    found = Compiled(path, "-O1", "-DNET_NO_FMA").predict(x)
    assert (found != want).any()
    np.testing.assert_allclose(found, want, rtol=0, atol=2e-5 * np.abs(want).max())
