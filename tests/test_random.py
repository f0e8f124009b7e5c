"""Random numbers as a pure function of seed, stream and position, and values drawn from ranges with them."""

import numpy as np
import pytest
from keras import ops

from invariance import random
from invariance.ranges import Ranges

MASK = 0xFFFFFFFF


def threefry_oracle(key, counter):
    """Threefry-2x32-20 for one pair of words, in Python integers, written from the paper (section 3.3 and table 2)."""
    rotations = [13, 15, 26, 6, 17, 29, 16, 24]
    keys = [key[0], key[1], key[0] ^ key[1] ^ 0x1BD11BDA]
    x = [(counter[0] + keys[0]) & MASK, (counter[1] + keys[1]) & MASK]
    for number in range(20):
        x[0] = (x[0] + x[1]) & MASK
        bits = rotations[number % 8]
        x[1] = ((x[1] << bits) | (x[1] >> (32 - bits))) & MASK
        x[1] ^= x[0]
        if number % 4 == 3:
            injection = number // 4 + 1
            x[0] = (x[0] + keys[injection % 3]) & MASK
            x[1] = (x[1] + keys[(injection + 1) % 3] + injection) & MASK
    return tuple(x)


def tensor(values, dtype):
    return ops.convert_to_tensor(np.asarray(values, dtype))


def words(seed, stream, positions):
    pair = random.words(seed, stream, tensor(positions, "int64"))
    return np.stack([ops.convert_to_numpy(word) for word in pair], axis=-1)


def uniform(seed, stream, positions, count=2):
    values = random.uniform(seed, stream, tensor(positions, "int64"), count)
    return np.stack([ops.convert_to_numpy(value) for value in values])


STREAMS = (random.ORDER, random.PARAMETERS, random.EVALUATION, random.AUGMENTATION)

# Random123's file kat_vectors, threefry2x32 with 20 rounds.
KNOWN = [
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((MASK, MASK), (MASK, MASK), (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
]


@pytest.mark.parametrize(("key", "counter", "expected"), KNOWN)
def test_known_answers(key, counter, expected):
    found = random.threefry2x32(key, tuple(tensor([word], "uint32") for word in counter))
    assert tuple(int(word[0]) for word in found) == expected
    assert threefry_oracle(key, counter) == expected


def test_threefry_equals_the_oracle_on_random_keys_and_counters():
    numbers = np.random.default_rng(0).integers(0, 2**32, (200, 4), dtype=np.uint64).astype("uint32")
    found = random.threefry2x32(
        (tensor(numbers[:, 0], "uint32"), tensor(numbers[:, 1], "uint32")),
        (tensor(numbers[:, 2], "uint32"), tensor(numbers[:, 3], "uint32")),
    )
    expected = [threefry_oracle(row[:2], row[2:]) for row in numbers.tolist()]
    np.testing.assert_array_equal(np.stack([np.asarray(word) for word in found], axis=-1), expected)


@pytest.mark.parametrize("seed", [0, 1, MASK])
def test_words_take_key_from_seed_and_stream_and_counter_from_the_position(seed):
    positions = [0, 1, 2**31 - 1, 2**31, MASK, 2**32, 2**32 + 1, 2**45 + 12345, 2**62]
    for stream in STREAMS:
        expected = [threefry_oracle((seed, stream), (position & MASK, position >> 32)) for position in positions]
        np.testing.assert_array_equal(words(seed, stream, positions), expected)


def test_numbers_do_not_depend_on_the_batch():
    positions = np.arange(1000, 1064)
    whole = words(3, random.PARAMETERS, positions)
    np.testing.assert_array_equal(np.concatenate([words(3, random.PARAMETERS, [p]) for p in positions]), whole)
    np.testing.assert_array_equal(words(3, random.PARAMETERS, positions[::-1]), whole[::-1])


def test_graph_and_xla_give_the_same_numbers():
    import tensorflow as tf

    positions = tensor(np.arange(64) + 2**33 - 32, "int64")
    eager = np.asarray(random.uniform(7, random.PARAMETERS, positions))
    for xla in (False, True):
        compiled = tf.function(lambda p: random.uniform(7, random.PARAMETERS, p), jit_compile=xla)
        np.testing.assert_array_equal(np.asarray(compiled(positions)), eager)


def test_streams_and_seeds_differ():
    positions = np.append(np.arange(1000), np.arange(1000) + 2**32)
    drawn = np.concatenate([words(seed, stream, positions) for seed in (0, 1, 2) for stream in STREAMS])
    # 24,000 independent 64-bit numbers: two of them are equal with a probability of 2e-11.
    assert len(np.unique(drawn, axis=0)) == len(drawn) == 24_000


def test_uniform_numbers_are_uniform_and_independent():
    count, bins = 2**16, 64
    first, second = uniform(11, random.PARAMETERS, np.arange(count))
    for values in (first, second):
        assert values.dtype == np.float32
        assert values.min() >= 0.0
        assert values.max() < 1.0
        # Chi-square with 63 degrees of freedom has standard deviation sqrt(126) = 11.2; five of them above its mean.
        observed = np.bincount((values * bins).astype(int), minlength=bins)
        chi_square = ((observed - count / bins) ** 2).sum() / (count / bins)
        assert chi_square < 63 + 5 * 11.2
    # The correlation of independent numbers has standard error 1 / sqrt(n), of the pair and of neighbours.
    for one, other in ((first, second), (first[:-1], first[1:])):
        assert abs(np.corrcoef(one, other)[0, 1]) < 5 / np.sqrt(count)


def test_uniform_is_the_upper_24_bits():
    positions = np.arange(100)
    np.testing.assert_array_equal(uniform(1, 2, positions), (words(1, 2, positions) >> 8).T / 2.0**24)


def test_more_than_two_numbers():
    positions, seven = np.arange(20_000), uniform(3, random.PARAMETERS, np.arange(20_000), 7)
    assert len(seven) == 7
    for one, other in zip(seven, uniform(3, random.PARAMETERS, positions), strict=False):
        np.testing.assert_array_equal(one, other)
    # Independent, also of other streams: a correlation has standard error 1 / sqrt(n).
    others = [each for stream in STREAMS if stream != random.PARAMETERS for each in uniform(3, stream, positions)]
    correlations = np.corrcoef(np.array([*seven, *others])) - np.eye(7 + len(others))
    assert np.abs(correlations).max() < 5 / np.sqrt(20_000)


# Ranges


@pytest.mark.parametrize("pairs", [((1e6, 1e6 + 0.5),), ((-45, 45),), ((0, 1), (2, 3)), ((1 / 3, 2 / 3),)], ids=str)
def test_half_open_interval_never_reaches_its_end(pairs):
    # With the largest uniform number below one, rounding would carry 1e6 + .5 * .99999994 up to the end.
    largest = random.RangeSampler(Ranges(pairs)).draw(np.zeros(2, "int32"), tensor([0.0, 1 - 2.0**-24], "float32"))
    assert float(largest[0]) == np.float32(pairs[0][0])
    assert pairs[-1][0] <= float(largest[1]) < pairs[-1][1]


def test_each_label_is_drawn_from_its_range():
    # By hand, from the uniform numbers .25 and .5: intervals are weighted by their lengths, single values alike.
    own = {1: ((-10, -5), (20, 40)), 3: ((7, 7),), 4: ((-90, -90), (90, 90))}
    sampler = random.RangeSampler(Ranges(((100, 200),), own))
    labels = tensor([0, 1, 1, 3, 4, 4, 2, 9], "int32")
    values = sampler.draw(labels, tensor([0.25, 0.1, 0.6, 0.25, 0.25, 0.5, 0.5, 0.5], "float32"))
    # Float32 numbers up to 200.
    np.testing.assert_allclose(values, [125, -7.5, 30, 7, -90, 90, 150, 150], rtol=0, atol=2e-5)
