"""The witness: a process beside rank 0 that sees whose process is gone, and says so if no rank can.

A launcher that sees a process die kills all others, perhaps before one of them has written which it was.
So the witness is no rank: it has a session of its own, which the launcher's signals do not reach, and a
connection from each rank. The kernel closes those of a process that ends, however it ends; of a machine
that has gone silent it does so when its probes are not answered (TCP keepalive).

    python witness.py SIZE    # reads the token of these ranks, and prints its port

It imports nothing of fastnet, as it starts with each job.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import sys
import time

PROBES = {"TCP_KEEPIDLE": 8, "TCP_KEEPINTVL": 4, "TCP_KEEPCNT": 3}  # seconds, seconds, number
SECONDS = 20.0  # in which all ranks connect
TOKEN = 16  # bytes, which strangers do not know
BYE, GONE = 1, 2  # messages: the rank with this number ends as it should, or is gone
MESSAGE = struct.Struct("<ii")
REASON = "its process was killed, crashed or ended within a fit"


def probe(connection: socket.socket) -> None:
    """Let the kernel notice that the machine at the other end has gone silent."""
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in PROBES.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def received(connection: socket.socket, count: int) -> bytes:
    """So many bytes; OSError where the other end is closed before."""
    found = b""
    while len(found) < count:
        part = connection.recv(count - len(found))
        if not part:
            raise ConnectionError("closed")
        found += part
    return found


def message(connection: socket.socket) -> tuple[int, int] | None:
    """The next message; None where the other end is gone."""
    try:
        kind, number = MESSAGE.unpack(received(connection, MESSAGE.size))
    except OSError:
        return None
    return kind, number


class Witness:
    """The connections of all ranks."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.rank_of: dict[socket.socket, int] = {}
        self.processes: dict[int, int] = {}  # of each rank

    def admit(self, server: socket.socket, token: bytes) -> int | None:
        """Wait until all ranks have connected; returns the first that has not."""
        end = time.monotonic() + SECONDS
        while len(self.rank_of) < self.size:
            try:
                server.settimeout(max(0.01, end - time.monotonic()))
                one, _ = server.accept()
            except TimeoutError:
                return min(set(range(self.size)) - set(self.rank_of.values()))
            one.settimeout(1.0)
            try:
                known = received(one, TOKEN) == token
                told = message(one) if known else None
            except OSError:
                told = None
            if told is None:
                one.close()  # a stranger
                continue
            probe(one)
            process, self.rank_of[one] = told
            self.processes[self.rank_of[one]] = process
        return None

    def watch(self) -> int | None:
        """Listen until all ranks have ended as they should, or one is gone, which is returned."""
        with selectors.DefaultSelector() as selector:
            for one in self.rank_of:
                selector.register(one, selectors.EVENT_READ)
            while selector.get_map():
                # In the order in which they closed: launchers kill the others after the first.
                for key, _ in selector.select():
                    other = key.fileobj
                    assert isinstance(other, socket.socket)
                    number = self.rank_of[other]
                    if message(other) is None:
                        return number
                    selector.unregister(other)
                    self.tell(BYE, number)
        return None

    def tell(self, kind: int, number: int) -> None:
        """Tell all ranks of one."""
        for one in self.rank_of:
            with contextlib.suppress(OSError):
                one.sendall(MESSAGE.pack(kind, number))

    def end(self, number: int, reason: str) -> None:
        """Say which rank is gone, here and to the others."""
        self.tell(GONE, number)
        process = f" (process {self.processes[number]})" if number in self.processes else ""
        text = f"fastnet: rank {number} of {self.size} is gone{process}: {reason}."
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def main() -> None:
    """Watch over ranks until they end."""
    witness = Witness(int(sys.argv[1]))
    token = sys.stdin.buffer.read(TOKEN)
    with socket.create_server(("", 0), backlog=witness.size) as server:
        sys.stdout.write(f"{server.getsockname()[1]}\n")
        sys.stdout.close()
        missing = witness.admit(server, token)
    if missing is not None:
        witness.end(missing, f"it has not connected within {SECONDS:.0f} s")
    elif (gone := witness.watch()) is not None:
        witness.end(gone, REASON)


if __name__ == "__main__":
    main()
