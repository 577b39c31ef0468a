"""Watch: notices that the process of a rank is gone, and ends the others with a message that names it.

A rank that is killed, or whose machine fails, joins no further exchange, and the others would wait for it
in MPI for ever, out of Python's reach. So each process has a connection to that of rank 0, and a thread
that listens. The kernel closes the connections of a process that ends, however it ends; of a machine that
has gone silent it does so when its probes are not answered (TCP keepalive). Rank 0 tells the others who it
was. A process that ends as it should says so before, which is an error only for those that are in a fit,
or begin one.
"""

from __future__ import annotations

import atexit
import os
import selectors
import socket
import struct
import sys
import threading
from typing import Any

import numpy as np

PROBES = {"TCP_KEEPIDLE": 8, "TCP_KEEPINTVL": 4, "TCP_KEEPCNT": 3}  # seconds, seconds, number
SECONDS = 30.0  # to connect
GRACE = 5.0  # in which a fit that is over everywhere else is over here too
BYE, GONE = 1, 2  # messages: the rank with this number ends as it should, or is gone
MESSAGE = struct.Struct("<ii")
EXIT = 1  # the exit status of ranks that end because another is gone


class Watch:
    """The connections of this process to those of other ranks, and the thread that listens."""

    def __init__(self, group: Any) -> None:
        self.rank, self.size = group.rank, group.size
        self.closed = False
        self.left: int | None = None  # a rank that has ended as it should
        self._inside = self._fits = 0  # whether this rank is in a fit, and how many it has begun
        self._process = os.getpid()
        self._of: dict[socket.socket, int] = {}  # the rank at the other end of each connection
        token = np.frombuffer(os.urandom(16), np.uint8).copy()
        group.share(token)
        if self.rank == 0:
            self._listen(group, token)
        else:
            self._connect(group, token)
        for one in self._of:
            one.settimeout(None)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in PROBES.items():
                if hasattr(socket, name):
                    one.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        threading.Thread(target=self._run, daemon=True, name="fastnet ranks").start()
        atexit.register(self.close)

    def _listen(self, group: Any, token: Any) -> None:
        with socket.create_server(("", 0), backlog=self.size) as server:
            server.settimeout(SECONDS)
            address = f"{socket.gethostname()} {server.getsockname()[1]}".encode()[:255]
            letters = np.zeros(256, np.uint8)
            letters[: len(address)] = np.frombuffer(address, np.uint8)
            group.share(letters)
            while len(self._of) < self.size - 1:
                one, _ = server.accept()
                one.settimeout(SECONDS)
                if _received(one, 16) == token.tobytes():  # else a stranger
                    self._of[one] = MESSAGE.unpack(_received(one, MESSAGE.size))[0]
                else:
                    one.close()

    def _connect(self, group: Any, token: Any) -> None:
        letters = np.zeros(256, np.uint8)
        group.share(letters)
        host, port = letters.tobytes().rstrip(b"\0").decode().split()
        if host == socket.gethostname():
            host = "127.0.0.1"
        one = socket.create_connection((host, int(port)), SECONDS)
        one.sendall(token.tobytes() + MESSAGE.pack(self.rank, 0))
        self._of[one] = 0

    def _run(self) -> None:
        """Listen until a rank is gone, or this process ends."""
        with selectors.DefaultSelector() as selector:
            for one in self._of:
                selector.register(one, selectors.EVENT_READ)
            while selector.get_map():
                for key, _ in selector.select():
                    other: Any = key.fileobj
                    kind, number = self._message(other)
                    if self.closed:
                        return
                    if kind == GONE:
                        self._end(number)
                    if self.rank == 0 or number == 0:
                        selector.unregister(other)
                    self._note(number)

    def enter(self) -> None:
        """A fit begins."""
        self._fits += 1
        self._inside = 1

    def leave(self) -> None:
        """It is over."""
        self._inside = 0

    def _note(self, number: int) -> None:
        """A rank has ended as it should: tell the others, and wait for the end of a fit that goes on."""
        if self.rank == 0:
            self._tell(BYE, number)
        self.left = number if self.left is None else self.left
        later = threading.Timer(GRACE, self._check, (number, self._fits))
        later.daemon = True
        later.start()

    def _check(self, number: int, fits: int) -> None:
        if self._inside and self._fits == fits and not self.closed:
            self._end(number)

    def _message(self, one: socket.socket) -> tuple[int, int]:
        try:
            found: tuple[int, int] = MESSAGE.unpack(_received(one, MESSAGE.size))
        except OSError:
            return GONE, self._of[one]
        return found

    def _end(self, number: int) -> None:
        """Tell the others, say who is gone, and end this process."""
        if self.rank == 0:
            self._tell(GONE, number)
        sys.stderr.write(
            f"fastnet: rank {number} of {self.size} is gone: its process was killed, crashed or ended "
            f"within a fit. Rank {self.rank} ends too.\n"
        )
        sys.stderr.flush()
        os._exit(EXIT)  # the main thread may wait in MPI, which nothing interrupts

    def _tell(self, kind: int, number: int) -> None:
        for one in list(self._of):
            try:
                one.sendall(MESSAGE.pack(kind, number))
            except OSError:
                continue

    def close(self) -> None:
        """Say that this process ends as it should."""
        if not self.closed and os.getpid() == self._process:
            self.closed = True
            self._tell(BYE, self.rank)


def _received(one: socket.socket, count: int) -> bytes:
    """So many bytes; OSError where the other end is closed before."""
    found = b""
    while len(found) < count:
        part = one.recv(count - len(found))
        if not part:
            raise ConnectionError("closed")
        found += part
    return found
