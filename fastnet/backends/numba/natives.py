"""Native functions by name: loaded from the store of compiled code, or compiled and stored there.

The store contains Numba's object files. Numba's own cache does not suffice: it misses edits of functions
that are called from another file, and raises an error if its directory cannot be used.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import numba
import numpy as np
from numba import config
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.core.runtime.nrt import rtsys

from fastnet import parallel
from fastnet.backends.numba import blas
from fastnet.backends.numba.store import Store, directory

_PATIENCE = 1.0  # seconds of compilation before a message
_PACKAGE = Path(__file__).parents[2]


def _key() -> bytes | None:
    """Everything that compiled code depends on, or None if that cannot be determined.

    All sources of the package count, because a kernel is compiled together with the functions that it calls
    and with the declarations of ops and records.
    """
    sources = {str(p.relative_to(_PACKAGE)): p.read_bytes() for p in sorted(_PACKAGE.rglob("*.py"))}
    if not sources:
        return None
    settings = {
        name: str(value)
        for name, value in vars(config).items()
        if name.isupper() and name != "CACHE_DIR" and not name.endswith("NUM_THREADS")
    }
    versions = (sys.version, np.__version__, numba.__version__, llvmlite.__version__)
    machine = cpu_target.target_context.codegen().magic_tuple()
    known = (versions, machine, settings, blas.FOUND, sources)
    return repr(known).encode()


@cache
def _store() -> Store:
    base, key = directory(), None
    with suppress(Exception):  # if anything is unreadable or unknown, store nothing
        key = base and _key()
    return Store(base if key else None, key or b"")


class Loaded:
    """Code from the store, linked into this process; `address` is its function's.

    Each has its own linker, because Numba's function names are unique within one process only.
    """

    def __init__(self, stored: bytes) -> None:
        header, _, code = stored.partition(b"\n")
        described = json.loads(header)
        with global_compiler_lock:
            rtsys.initialize(cpu_target.target_context)  # gives Numba's runtime to linkers
        missing = [n for n in described["needs"] if not llvm.address_of_symbol(n)]
        if missing:  # the linker would terminate the process
            raise ImportError(f"unknown symbols: {missing}")
        target = llvm.Target.from_triple(llvm.get_process_triple())
        self._engine = llvm.create_mcjit_compiler(
            llvm.parse_assembly(""),
            target.create_target_machine(jit=True),
            use_lmm=getattr(config, "USE_LLVMLITE_MEMORY_MANAGER", None),
        )
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        self._engine.finalize_object()
        self.address = self._engine.get_function_address(described["function"])


def _storable(function: Any) -> bytes:
    """The code of a cfunc, after a line with its name and the symbols that it needs."""
    library = function._library
    _, _, (code, _) = library.serialize_using_object_code()
    module = library._final_module
    declared = [*module.functions, *module.global_variables]
    needs = [s.name for s in declared if s.is_declaration and not s.name.startswith("llvm.")]
    header = json.dumps({"function": function.native_name, "needs": needs})
    return header.encode() + b"\n" + bytes(code)


class Natives:
    """The native functions of this process. Several threads may request the same one."""

    def __init__(self) -> None:
        self._known: dict[str, Any] = {}  # cfuncs and Loaded, kept alive
        self._lock = parallel.across_forks(threading.RLock())  # held during compilation
        self._seconds = 0.0  # of compilation so far
        self._told = False

    def address(self, name: str, compile: Callable[[], Any], keep: bool = True) -> int:
        """The address of the function with this name; `compile` makes a new one, a cfunc.

        Code is stored on disk unless keep=False, which is for code that uses anything outside this package.
        Ctrl-C takes effect at once; a compilation that is under way still finishes, for the next request.
        """
        if name not in self._known:
            _elsewhere(lambda: self._find(name, compile, keep))
        return int(self._known[name].address)

    def _find(self, name: str, compile: Callable[[], Any], keep: bool) -> None:
        with self._lock:
            if name not in self._known:
                found = self._load(name) if keep else None
                self._known[name] = found or self._compile(name, compile, keep)

    def _load(self, name: str) -> Loaded | None:
        stored = _store().load(name)
        with suppress(Exception):  # on any error, compile as without a store
            return Loaded(stored) if stored else None
        return None

    def _compile(self, name: str, compile: Callable[[], Any], keep: bool) -> Any:
        if self._seconds > _PATIENCE and not self._told:
            self._told = True
            _tell()
        start = time.perf_counter()
        function = compile()
        if keep:
            with suppress(Exception):
                _store().save(name, _storable(function))
        self._seconds += time.perf_counter() - start
        return function


def _elsewhere(work: Callable[[], None]) -> None:
    """Do the work in another thread and wait for it.

    Signal handlers run in the main thread. If it compiled, LLVM's callbacks into Python would lose their
    exceptions, and no exception could interrupt LLVM between callbacks.
    """
    if threading.current_thread() is not threading.main_thread():
        work()
        return
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # raised again in the caller's thread
            raised.append(error)

    thread = threading.Thread(target=run, name="fastnet compiles")
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


def _tell() -> None:
    """Tell the user of a terminal that compilation takes the time."""
    place = _store().place
    often = (
        f"once, kept in {place.parent}" if place else "in every process: no directory to keep it"
    )
    with suppress(Exception):  # stderr may be None, closed, or any object
        if sys.stderr.isatty():
            print(f"fastnet: compiling for Numba ({often})", file=sys.stderr, flush=True)
