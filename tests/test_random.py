"""The counter-based generator: published answers, the order of its words, distributions, streams."""

from __future__ import annotations

import numpy as np
import pytest

from fastnet import random

# Random123, tests/kat_vectors, philox4x32 with 10 rounds: counter, key, result.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]  # fmt: skip

SEED, STREAM, STEP = 2**63 + 12345, 3, 2**33 + 7


def unhex(text):
    return [int(word, 16) for word in text.split()]


def philox(counter, key):
    """Philox4x32-10 on Python integers, as the paper's figure writes it."""
    c, k, low = list(counter), list(key), 0xFFFFFFFF
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & low, (a >> 32) ^ c[3] ^ k[1], a & low]
        k = [(k[0] + 0x9E3779B9) & low, (k[1] + 0xBB67AE85) & low]
    return c


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN_ANSWERS)
def test_philox_gives_the_published_answers(counter, key, result):
    got = random.philox4x32(np.array([unhex(counter)], np.uint32), tuple(unhex(key)))
    assert got.tolist() == [unhex(result)]
    assert philox(unhex(counter), unhex(key)) == unhex(result)


def test_the_counter_is_block_step_and_stream_and_the_key_is_the_seed():
    got = random.blocks(3, SEED, STREAM, STEP)
    key = SEED % 2**32, SEED // 2**32
    assert got.tolist() == [philox([i, STEP % 2**32, STEP // 2**32, STREAM], key) for i in range(3)]


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 200])
def test_order_of_words(count):
    blocks = random.blocks(-(-count // 64) * 16, SEED, STREAM, STEP)
    expected = [blocks[e // 64 * 16 + e % 16, e // 16 % 4] for e in range(count)]
    assert random.words(count, SEED, STREAM, STEP).tolist() == expected


def test_words64_take_two_words_each():
    blocks = random.blocks(2, SEED, STREAM, STEP).tolist()
    expected = [high << 32 | low for a, b, c, d in blocks for high, low in ((a, b), (c, d))]
    assert random.words64(3, SEED, STREAM, STEP).tolist() == expected[:3]


@pytest.mark.parametrize(("bits", "value"), [(0, 2.0**-53), (2**64 - 1, 1 - 2.0**-53)])
def test_uniform_never_reaches_0_or_1(monkeypatch, bits, value):
    monkeypatch.setattr(random, "words64", lambda count, *_: np.full(count, bits, np.uint64))
    assert random.uniform(2, 0, 0).tolist() == [value, value]


def test_uniform_moments():
    u = random.uniform(200_000, 1, 2)
    for power in (1, 2, 3):  # five standard deviations of the mean of uᵏ
        bound = 5 * np.sqrt((1 / (2 * power + 1) - 1 / (power + 1) ** 2) / u.size)
        assert abs((u**power).mean() - 1 / (power + 1)) < bound
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 5 / np.sqrt(u.size)


def test_normal_moments():
    z = random.normal(200_000, 1, 2)
    for power, mean, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)]:
        assert abs((z**power).mean() - mean) < 5 * np.sqrt(variance / z.size)


def test_normal_quantile():
    special = pytest.importorskip("scipy.special")
    tails = 10.0 ** -np.arange(1, 300, 0.37)
    u = np.concatenate(
        [np.linspace(0.001, 0.999, 9991), tails, 1 - tails[:40], [2.0**-53, 1 - 2.0**-53]]
    )
    want = special.ndtri(u)
    assert np.max(np.abs(random.normal_quantile(u) - want) / np.maximum(np.abs(want), 1)) <= 4e-15
    assert random.normal_quantile(np.array([0.5])) == 0


def test_normal_quantile_is_odd():
    u = np.arange(1, 512) / 1024
    np.testing.assert_array_equal(random.normal_quantile(1 - u), -random.normal_quantile(u))


@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_permutation(count):
    order = random.permutation(count, 5, 6)
    assert sorted(order) == list(range(count))
    assert order.dtype == np.int64
    np.testing.assert_array_equal(order, random.permutation(count, 5, 6))


def test_permutation_depends_on_seed_and_step():
    orders = [
        random.permutation(50, seed, step) for seed in (0, 1, 2**40) for step in (0, 1, 2**35)
    ]
    assert len({tuple(o) for o in orders}) == 9


def test_permutations_are_uniform():
    """All six orders of three, within five standard deviations."""
    count = 6000
    seen = [tuple(random.permutation(3, 7, step)) for step in range(count)]
    assert len(set(seen)) == 6
    bound = 5 * np.sqrt(count * 1 / 6 * 5 / 6)
    assert all(abs(seen.count(order) - count / 6) < bound for order in set(seen))


def test_streams_of_different_kinds_and_users_differ():
    kinds = (random.DROPOUT, random.INIT, random.SHUFFLE)
    last = random.STREAMS_PER_KIND - 1
    streams = [random.stream_of(kind, index) for kind in kinds for index in (0, 1, last)]
    draws = {tuple(random.words(4, 0, stream)) for stream in streams}
    assert len(draws) == len(streams)
    assert max(streams) < 2**32  # a stream is one word of the counter


def test_fresh_seeds_differ():
    assert random.fresh_seed() != random.fresh_seed()
