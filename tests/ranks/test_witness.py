"""The process that notices killed ranks: it names the first, and ends with the ranks."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from fastnet.distributed import witness

TOKEN = bytes(range(witness.TOKEN))


def begun(size):
    """A witness of so many ranks, and their connections."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", witness.__file__, str(size)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdin.write(TOKEN)
    process.stdin.flush()
    port = int(process.stdout.readline())
    stranger = socket.create_connection(("127.0.0.1", port))
    stranger.sendall(b"x" * witness.TOKEN)
    made = []
    for rank in range(size):
        made.append(socket.create_connection(("127.0.0.1", port), 30))
        made[-1].sendall(TOKEN + witness.MESSAGE.pack(1000 + rank, rank))
    stranger.close()
    return process, made


def ended(process):
    """What it has written, when it has ended."""
    _, errors = process.communicate(timeout=30)
    return errors.decode()


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="processes cannot be stopped here")
def test_it_names_the_first_of_several_that_are_gone():
    for first, *others in ((1, 0, 2), (2, 1, 0), (0, 2, 1)):
        process, ranks = begun(4)
        ranks[3].sendall(witness.MESSAGE.pack(witness.BYE, 3))
        assert witness.message(ranks[0]) == (witness.BYE, 3)  # so it has all of them, and listens
        os.kill(process.pid, signal.SIGSTOP)  # it sees them all at once
        for rank in (first, *others, 3):
            ranks[rank].close()
        os.kill(process.pid, signal.SIGCONT)
        told = f"fastnet: rank {first} of 4 is gone (process {1000 + first}): {witness.REASON}.\n"
        assert ended(process) == told


def test_it_tells_the_others_and_ends():
    process, ranks = begun(3)
    ranks[2].close()
    for rank in ranks[:2]:
        assert witness.message(rank) == (witness.GONE, 2)
        assert witness.message(rank) is None
        rank.close()
    assert "rank 2 of 3 is gone" in ended(process)


def test_it_ends_in_silence_where_all_ranks_end_as_they_should():
    process, ranks = begun(2)
    ranks[1].sendall(witness.MESSAGE.pack(witness.BYE, 1))
    assert witness.message(ranks[0]) == (witness.BYE, 1)
    ranks[1].close()
    ranks[0].sendall(witness.MESSAGE.pack(witness.BYE, 0))
    assert ended(process) == ""
    ranks[0].close()
    assert process.returncode == 0
