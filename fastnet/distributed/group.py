"""Group: the processes that train one model together, as ranks of a communicator of MPI.

All ranks run the same program, so that their calls meet. A rank that fails must not leave the others
waiting for it. So every exchange that may follow a failure carries the state of each rank: such exchanges
are the group's **meetings**. The group knows which kind of meeting comes next (`expects`); a rank that
fails goes there, says so, and all learn who it was and why.
"""

from __future__ import annotations

import hashlib
import io
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np

from fastnet.distributed.watch import Watch
from fastnet.errors import (
    DataError,
    DivergenceError,
    FastnetError,
    HyperparameterError,
    RankError,
    UsageError,
    shown,
)
from fastnet.op import Array

NEEDED = ("Allreduce", "Bcast", "Get_rank", "Get_size")
KINDS: tuple[type[FastnetError], ...] = (
    RankError,
    DivergenceError,
    DataError,
    HyperparameterError,
    UsageError,
)  # errors that keep their class on other ranks
MOST_TEXT = 2000  # characters of a message that others get

_watches: dict[bytes, Watch] = {}  # by the processes of their ranks, of which many groups may be


class Vector:
    """What a meeting adds up: numbers, and behind them one number for each rank that tells its state.

    chain: the ranks add one after the other, each to the sum of those before it, so that the order of
    adding is known; else one all-reduce adds in an order of its own.
    """

    def __init__(self, group: Group, count: int, dtype: Any, *, chain: bool = False) -> None:
        self.chain, self.count = chain, count
        self.sent = _aligned(count + group.size, dtype)
        self.total = _aligned(count + group.size, dtype)

    @property
    def numbers(self) -> Array:
        """The numbers that this rank adds."""
        return self.sent[: self.count]

    @property
    def sums(self) -> Array:
        """The sums over all ranks."""
        return self.total[: self.count]


def _aligned(count: int, dtype: Any) -> Array:
    """Zeros that begin at a multiple of 64 bytes."""
    itemsize = np.dtype(dtype).itemsize
    block = np.zeros(count * itemsize + 64, np.uint8)
    begin = -block.ctypes.data % 64
    found: Array = block[begin : begin + count * itemsize].view(dtype)
    return found


class Group:
    """The ranks of a communicator.

    comm: mpi4py's, such as MPI.COMM_WORLD, or any object with its Allreduce(send, receive), which adds,
        Bcast(array, root), Get_rank() and Get_size().
    """

    def __init__(self, comm: Any) -> None:
        if missing := [name for name in NEEDED if not callable(getattr(comm, name, None))]:
            raise HyperparameterError(
                f"comm is {shown(comm)}, which lacks {', '.join(missing)}; expected a communicator such "
                "as mpi4py.MPI.COMM_WORLD"
            )
        self.comm = comm
        self.rank, self.size = int(comm.Get_rank()), int(comm.Get_size())
        self.small = Vector(self, 1, np.float64)
        self.expects = self.small  # the next meeting
        self._agreed = False  # whether the error that is being raised is known to all
        self._watch: Watch | None = None
        self._watched = False  # whether `_watch` has been found

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which prints and saves."""
        return self.rank == 0

    def __repr__(self) -> str:
        return f"Group(rank {self.rank} of {self.size})"

    # Meetings.

    @contextmanager
    def together(self) -> Iterator[None]:
        """A fit of all ranks: an error in one of them ends the block in all of them."""
        self.expects, self._agreed = self.small, False
        if not self._watched and self.size > 1:
            self._watch, self._watched = self._find_watch(), True
        if self._watch is not None:
            if (left := self._watch.left) is not None:
                raise RankError(f"rank {left} of {self.size} has ended already; no fit can begin")
            self._watch.enter()
        try:
            yield
            self.meet()
        except BaseException as error:
            if not self._agreed:
                self.add(self.expects, failed=error)
            raise
        finally:
            if self._watch is not None:
                self._watch.leave()

    def _find_watch(self) -> Watch | None:
        """The watch over these processes, made where there is none; threads of one process need none."""
        digest = hashlib.sha256(f"{socket.gethostname()} {os.getpid()}".encode()).digest()
        own = np.frombuffer(digest[:8], np.int64) >> 12  # which a float64 holds
        found = self.gathered(own)
        if not (found != found[0]).any():
            return None
        processes = found.tobytes()
        if processes not in _watches:
            _watches[processes] = Watch(self)
        return _watches[processes]

    def meet(self, number: float = 0.0) -> float:
        """A small meeting: the sum of a number over all ranks."""
        self.small.numbers[0] = number
        self.add(self.small)
        return float(self.small.sums[0])

    def add(self, vector: Vector, add_own: Any = None, failed: BaseException | None = None) -> None:
        """A meeting that sums vectors; raises on all ranks where one has failed.

        add_own: of a chain, a function that adds this rank's numbers to a vector. failed: why this rank has
        failed, if it has; its numbers do not matter then.
        """
        count, at = vector.count, vector.count + self.rank
        if vector.chain:
            total = vector.total
            if self.rank == 0:
                total[:] = 0
            for turn in range(self.size):
                if turn == self.rank:
                    if failed is None and add_own is not None:
                        add_own(vector.sums)
                    total[at] = failed is not None
                if self.size > 1:
                    self.comm.Bcast(total, turn)
        else:
            vector.sent[count:] = 0
            vector.sent[at] = failed is not None
            self.comm.Allreduce(vector.sent, vector.total)
        if vector.total[count:].any():
            self._raise(int(np.flatnonzero(vector.total[count:])[0]), failed)

    def _raise(self, rank: int, own: BaseException | None) -> NoReturn:
        """Raise this rank's own error, or else that of the first rank that has one."""
        kind, text = 0, ""
        if rank == self.rank and own is not None:
            kind = next((i for i, one in enumerate(KINDS) if type(own) is one), 0)
            text = str(own) if kind else f"{type(own).__name__}: {own}"
        head = np.array([kind, len(text[:MOST_TEXT].encode())], np.int64)
        self.comm.Bcast(head, rank)
        letters = np.zeros(max(1, int(head[1])), np.uint8)
        if rank == self.rank:
            letters[: head[1]] = np.frombuffer(text[:MOST_TEXT].encode(), np.uint8)
        self.comm.Bcast(letters, rank)
        self._agreed, self.expects = True, self.small
        if own is not None:
            own.add_note(f"raised on rank {self.rank} of {self.size}")
            raise own
        text = letters[: head[1]].tobytes().decode(errors="replace")
        raise KINDS[int(head[0])](
            f"rank {rank} of {self.size} has ended the training: {text or 'an error without a message'}"
        )

    # Exchanges between meetings, in which nothing of a rank's own can fail.

    def sums(self, numbers: Array) -> Array:
        """The sum over all ranks of floats or integers."""
        given = np.ascontiguousarray(numbers)
        found = np.empty_like(given)
        self.comm.Allreduce(given, found)
        return found

    def gathered(self, numbers: Array) -> Array:
        """The numbers of all ranks, exact: (ranks, …)."""
        given = np.asarray(numbers, np.float64)
        places = np.zeros((self.size, *given.shape))
        places[self.rank] = given
        return self.sums(places.view(np.int64)).view(np.float64)

    def joined(self, array: Array) -> Array:
        """An array of which each rank has its own elements, and zeros for those of others; exact."""
        return self.sums(array.view(f"i{array.itemsize}")).view(array.dtype)

    def share(self, array: Array, root: int = 0) -> None:
        """Overwrite a contiguous array by that of rank `root`."""
        if self.size > 1 and array.size:
            self.comm.Bcast(array, root)

    def share_one(self, array: Array | None, root: int) -> Array:
        """The array of rank `root`, which others need not have; it holds no objects."""
        file = io.BytesIO()
        if self.rank == root:
            np.save(file, np.asarray(array), allow_pickle=False)
        size = np.array([len(file.getvalue())], np.int64)
        self.share(size, root)
        content = np.zeros(int(size[0]), np.uint8)
        if self.rank == root:
            content[:] = np.frombuffer(file.getvalue(), np.uint8)
        self.share(content, root)
        found: Array = np.load(io.BytesIO(content.tobytes()), allow_pickle=False)
        return found

    def check_equal(self, what: str, numbers: Any, remedy: str) -> None:
        """Raise HyperparameterError on all ranks where these numbers are not those of rank 0."""
        found = self.gathered(np.asarray(numbers, np.float64).reshape(-1)).view(np.int64)
        others = np.flatnonzero((found != found[0]).any(axis=1))
        if len(others):
            self._agreed = True
            raise HyperparameterError(
                f"{what} of rank {int(others[0])} {'is' if len(what.split()) < 3 else 'are'} not that of "
                f"rank 0: {remedy}"
            )
