"""Ranks as threads of this process: a communicator with what fastnet asks of MPI's."""

import threading

import numpy as np


class Meeting:
    """What the ranks of a communicator share."""

    def __init__(self, size):
        self.size, self.barrier, self.given = size, threading.Barrier(size), [None] * size


class ThreadComm:
    """One rank's communicator."""

    def __init__(self, meeting, rank):
        self.meeting, self.rank, self.calls = meeting, rank, 0

    def Get_rank(self):  # noqa: N802
        return self.rank

    def Get_size(self):  # noqa: N802
        return self.meeting.size

    def _meet(self, array):
        self.calls += 1
        meeting = self.meeting
        meeting.given[self.rank] = array
        meeting.barrier.wait(60)
        given = list(meeting.given)
        assert len({(part.size, part.dtype) for part in given}) == 1, "ranks meet in other calls"
        return given

    def Allreduce(self, send, receive):  # noqa: N802
        given = self._meet(send)
        total = given[0].copy()
        for part in given[1:]:
            total += part
        self.meeting.barrier.wait(60)
        receive[...] = total
        self.meeting.barrier.wait(60)

    def Bcast(self, array, root=0):  # noqa: N802
        given = self._meet(array)
        value = given[root].copy()
        self.meeting.barrier.wait(60)
        array[...] = value
        self.meeting.barrier.wait(60)


def on_ranks(size, function):
    """What function(comm) returns, or raises, on each of so many ranks."""
    meeting, found = Meeting(size), [None] * size

    def run(rank):
        try:
            found[rank] = function(ThreadComm(meeting, rank))
        except BaseException as error:
            found[rank] = error
            if isinstance(error, (threading.BrokenBarrierError, AssertionError)):
                meeting.barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def values(found):
    """The results of all ranks; raises the first error."""
    for one in found:
        if isinstance(one, BaseException):
            raise one
    return found


def bits(model):
    """The bytes of a model's values."""
    return b"".join(np.ascontiguousarray(v).tobytes() for v in model.state_dict().values())
