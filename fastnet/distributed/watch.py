"""Watch: notices that the process of a rank is gone, and ends this one with a message that names it.

A rank that is killed, or whose machine fails, joins no further exchange, and the others would wait for it
in MPI for ever, out of Python's reach. So each process has a connection to a witness, which is a process
of rank 0's machine, and a thread that listens. A process that ends as it should says so before, which is
an error only for those that are in a fit, or begin one.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import subprocess
import sys
import threading
from typing import Any, NoReturn

import numpy as np

from fastnet.distributed import witness
from fastnet.errors import RankError

GRACE = 5.0  # seconds in which a fit that is over everywhere else is over here too
EXIT = 1  # the exit status of ranks that end because another is gone
ADDRESS = 256  # bytes for a host's name and a port


class Watch:
    """The connection of this process to the witness of its ranks, and the thread that listens.

    group: the ranks, which make their watches together.
    """

    def __init__(self, group: Any) -> None:
        self.rank, self.size = group.rank, group.size
        self.closed = False
        self.left: int | None = None  # a rank that has ended as it should
        self._inside = self._fits = 0  # fits that this rank is in, and how many it has begun
        self._process = os.getpid()
        token = np.frombuffer(os.urandom(witness.TOKEN), np.uint8).copy()
        group.share(token)
        letters = np.zeros(ADDRESS, np.uint8)
        if self.rank == 0:
            address = _begun(self.size, token.tobytes()).encode()[:ADDRESS]
            letters[: len(address)] = np.frombuffer(address, np.uint8)
        group.share(letters)
        address = letters.tobytes().rstrip(b"\0")
        if not address:
            raise RankError(
                f"rank 0 of {self.size} could not start {sys.executable}, the process that notices killed "
                "ranks; expected that this Python can run itself"
            )
        host, port = address.decode().split()
        if host == socket.gethostname():
            host = "127.0.0.1"
        self._witness = socket.create_connection((host, int(port)), witness.SECONDS)
        self._witness.sendall(token.tobytes() + witness.MESSAGE.pack(self._process, self.rank))
        witness.probe(self._witness)
        threading.Thread(target=self._run, daemon=True, name="fastnet ranks").start()
        atexit.register(self.close)

    def _run(self) -> None:
        """Listen until a rank is gone, or this process ends."""
        while True:
            found = witness.message(self._witness)
            if self.closed:
                return
            if found is None:
                self._end(0, "the connection to its machine is closed")
            kind, number = found
            if kind == witness.GONE:
                self._end(number, witness.REASON)
            self._note(number)

    def enter(self) -> None:
        """A fit begins."""
        self._fits += 1
        self._inside += 1

    def leave(self) -> None:
        """It is over."""
        self._inside -= 1

    def _note(self, number: int) -> None:
        """A rank has ended as it should: wait for the end of a fit that goes on."""
        self.left = number if self.left is None else self.left
        later = threading.Timer(GRACE, self._check, (number, self._fits))
        later.daemon = True
        later.start()

    def _check(self, number: int, fits: int) -> None:
        if self._inside and self._fits == fits and not self.closed:
            self._end(number, witness.REASON)

    def _end(self, number: int, reason: str) -> NoReturn:
        """Say who is gone, and end this process."""
        sys.stderr.write(
            f"fastnet: rank {number} of {self.size} is gone: {reason}. Rank {self.rank} ends too.\n"
        )
        sys.stderr.flush()
        os._exit(EXIT)  # the main thread may wait in MPI, which nothing interrupts

    def close(self) -> None:
        """Say that this process ends as it should."""
        if not self.closed and os.getpid() == self._process:
            self.closed = True
            with contextlib.suppress(OSError):
                self._witness.sendall(witness.MESSAGE.pack(witness.BYE, self.rank))


def _begun(size: int, token: bytes) -> str:
    """Start the witness; returns its host and port, or nothing where it does not start."""
    command = [sys.executable, "-I", "-S", witness.__file__, str(size)]
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        assert process.stdin is not None and process.stdout is not None
        with process.stdin, process.stdout:
            process.stdin.write(token)
            process.stdin.close()
            port = process.stdout.readline().decode().strip()
    except OSError:
        return ""
    process.returncode = 0  # nobody waits for it: it ends after this process
    return f"{socket.gethostname()} {port}" if port else ""
