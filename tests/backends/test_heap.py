"""Training steps of the C backend make no heap call after the first."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import child
import pytest

import fastnet as fn

if reason := fn.backends()["c"].reason:
    pytest.skip(reason, allow_module_level=True)

# Preloaded: counts the heap calls of the process, whoever makes them, while one function runs.
COUNTER = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

static long calls;
#define COUNT __atomic_fetch_add(&calls, 1, __ATOMIC_SEQ_CST)

void *malloc(size_t n) { COUNT; return __libc_malloc(n); }
void *calloc(size_t k, size_t n) { COUNT; return __libc_calloc(k, n); }
void *realloc(void *p, size_t n) { COUNT; return __libc_realloc(p, n); }
void free(void *p) { COUNT; __libc_free(p); }
void *memalign(size_t a, size_t n) { COUNT; return __libc_memalign(a, n); }
void *aligned_alloc(size_t a, size_t n) { COUNT; return __libc_memalign(a, n); }
int posix_memalign(void **p, size_t a, size_t n) {
    COUNT;
    *p = __libc_memalign(a, n);
    return *p ? 0 : ENOMEM;
}
void *mmap(void *p, size_t n, int protection, int flags, int file, off_t offset) {
    COUNT;
    return (void *)syscall(SYS_mmap, p, n, protection, flags, file, offset);
}
int munmap(void *p, size_t n) { COUNT; return (int)syscall(SYS_munmap, p, n); }

long calls_of(void (*function)(void *), void *argument) {
    const long before = __atomic_load_n(&calls, __ATOMIC_SEQ_CST);
    function(argument);
    return __atomic_load_n(&calls, __ATOMIC_SEQ_CST) - before;
}
"""

# Loaded later, as the extension is: functions that make two heap calls each, and one in a thread.
CONTROL = r"""
#define _GNU_SOURCE
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

static void *volatile kept;

void none(void *unused) { (void)unused; }
void with_malloc(void *unused) { (void)unused; kept = malloc(64); free(kept); }
void with_calloc(void *unused) { (void)unused; kept = calloc(8, 8); free(kept); }
void with_realloc(void *unused) { (void)unused; kept = realloc(NULL, 64); free(kept); }
void with_memalign(void *unused) { (void)unused; kept = memalign(64, 64); free(kept); }
void with_aligned_alloc(void *unused) { (void)unused; kept = aligned_alloc(64, 64); free(kept); }
void with_posix_memalign(void *unused) {
    (void)unused;
    void *block;
    if (!posix_memalign(&block, 64, 64))
        free(kept = block);
}
void with_mmap(void *unused) {
    (void)unused;
    kept = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(kept, 4096);
}
static void *in_thread(void *unused) { with_malloc(unused); return NULL; }
void with_thread(void *unused) {
    pthread_t thread;
    if (!pthread_create(&thread, NULL, in_thread, unused))
        pthread_join(thread, NULL);
}
"""

CONTROLS = """
import ctypes, json, sys

counter, control = (ctypes.CDLL(path) for path in sys.argv[1:3])
counter.calls_of.restype = ctypes.c_long
print(json.dumps({
    name: counter.calls_of(getattr(control, name), None) for name in sys.argv[3:]
}))
"""

TRAINING = """
import ctypes, itertools, json, sys
import numpy as np
import fastnet as fn
from fastnet.backends import registry
from fastnet.backends.c.extension import extension
from fastnet.train import run

counter = ctypes.CDLL(sys.argv[1])
counter.calls_of.restype = ctypes.c_long
counter.calls_of.argtypes = ctypes.c_void_p, ctypes.c_void_p
backend = registry.get("c")
native = extension()
entry = int(native.ffi.cast("intptr_t", native.ffi.addressof(native.lib, "fn_train")))
chunks = []
run.first_chunk = lambda seconds: 1  # as where steps are long, so that there is a second chunk

def train(args):
    calls = counter.calls_of(entry, args.ctypes.data)
    assert args["done"][0] == args["steps"][0]
    chunks.append((int(args["steps"][0]), calls))

backend.train = train

def net(dtype, wide=False):
    if wide:
        layers = fn.Linear(20, 600), fn.ReLU(), fn.Linear(600, 700), fn.Linear(700, 3)
        return fn.Sequential(*layers, dtype=dtype, backend="c", seed=0)
    inner = fn.BatchNorm1d(33), fn.ReLU(), fn.Dropout(0.3), fn.Linear(33, 9), fn.LeakyReLU()
    return fn.Sequential(
        fn.Linear(20, 33), *inner, fn.Sigmoid(), fn.BatchNorm1d(9), fn.Tanh(), fn.Linear(9, 3),
        dtype=dtype, backend="c", seed=0,
    )

rng = np.random.default_rng(0)
x, labels = rng.normal(size=(401, 20)), rng.integers(0, 3, size=401)
targets = rng.normal(size=(401, 3))
kinds = [x.astype("f"), x, (40 * x).astype("u1")]
losses = [(fn.CrossEntropyLoss(), labels), (fn.MSELoss(), targets)]
optimizers = [fn.Adam(), fn.AdamW(), fn.SGD(), fn.SGD(momentum=0.9), fn.SGD(0.1, 0.9, nesterov=True)]
report = []

def fit(model, loss, optimizer, X, y, batch_size):
    chunks.clear()
    trainer = fn.Trainer(model, loss, optimizer, seed=0)
    trainer.fit(X, y, epochs=1, batch_size=batch_size, drop_last=True, verbose=0)
    what = f"{backend.levels()[backend.level()]} {model.dtype} {loss!r} {X.dtype} {optimizer!r}"
    report.append((what, len(X) // batch_size, list(chunks)))

for level, dtype in itertools.product(range(len(backend.levels())), ["float32", "float64"]):
    backend.set_level(level)
    for (loss, y), X in itertools.product(losses, kinds):
        for optimizer in optimizers[: None if X is x else 1]:
            fit(net(dtype), loss, optimizer, X, y, 2)
    fit(net(dtype, wide=True), fn.MSELoss(), fn.Adam(), x, targets, 64)
print(json.dumps(report))
"""


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
    """The counter and the control, compiled."""
    compiler = next(filter(None, map(shutil.which, ("gcc", "cc", "clang"))), None)
    if compiler is None:
        pytest.skip("needs a C compiler, for the library that counts heap calls")
    if not sys.platform.startswith("linux") or "libasan" in os.environ.get("LD_PRELOAD", ""):
        pytest.skip("needs Linux and a heap of its own")
    root = tmp_path_factory.mktemp("heap")
    paths = []
    for name, source in (("counter", COUNTER), ("control", CONTROL)):
        (root / f"{name}.c").write_text(source)
        paths.append(root / f"{name}.so")
        flags = "-shared", "-fPIC", "-O1", "-fno-builtin", "-Wall", "-Werror", "-pthread"
        command = compiler, *flags, "-o", paths[-1], root / f"{name}.c"
        subprocess.run(command, check=True, timeout=120)
    return paths


def test_the_counter_sees_every_heap_call_of_another_library(libraries):
    kinds = "malloc", "calloc", "realloc", "memalign", "aligned_alloc", "posix_memalign", "mmap"
    names = ["none", *(f"with_{kind}" for kind in kinds), "with_thread"]
    found = child.run(CONTROLS, *libraries, *names, LD_PRELOAD=str(libraries[0]))
    in_thread = found.pop("with_thread")
    assert found == {name: 0 if name == "none" else 2 for name in names[:-1]}
    assert in_thread >= 2  # and what starting a thread takes


def test_training_makes_no_heap_call_after_its_first_step(libraries):
    report = child.run(TRAINING, libraries[0], LD_PRELOAD=str(libraries[0]))
    assert report
    for what, steps, (first, *chunks) in report:
        assert first[0] == 1, what
        assert sum(count for count, _ in chunks) == steps - 1 > 0, what
        assert [calls for _, calls in chunks] == [0] * len(chunks), what
