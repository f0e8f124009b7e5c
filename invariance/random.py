"""Random numbers that are a pure function of (seed, stream, position).

The number at a position does not depend on its batch, on threads or on earlier numbers. A resumed run therefore draws
the same numbers as an uninterrupted one.
"""

import numpy as np
from keras import ops

from invariance.ranges import Ranges, length
from invariance.typing import Tensor

# Each use has a stream of its own, so that no two uses share numbers.
ORDER, PARAMETERS, EVALUATION, AUGMENTATION, PARTNERS, TIMES, CLASSES = range(7)

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def threefry2x32(key: tuple[Tensor, Tensor], counter: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Threefry-2x32 with 20 rounds: two random words from a key and a counter of two words each.

    Args:
        key: pair of uint32 tensors or integers.
        counter: pair of uint32 tensors of one shape.

    Returns:
        A pair of uint32 tensors of the counter's shape.

    Reference: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (2011).
    """
    like = ops.zeros_like(counter[0])
    keys = [ops.cast(word, "uint32") + like for word in key]
    keys.append(ops.bitwise_xor(ops.bitwise_xor(keys[0], keys[1]), _word(0x1BD11BDA) + like))
    x, y = counter[0] + keys[0], counter[1] + keys[1]
    for group in range(5):
        for bits in _ROTATIONS[group % 2]:
            x = x + y
            y = ops.bitwise_xor(_rotate_left(y, bits), x)
        x = x + keys[(group + 1) % 3]
        y = y + keys[(group + 2) % 3] + _word(group + 1)
    return x, y


def _word(value: Tensor) -> Tensor:
    return ops.convert_to_tensor(value, dtype="uint32")


def _rotate_left(x: Tensor, bits: int) -> Tensor:
    return ops.bitwise_or(ops.left_shift(x, _word(bits)), ops.right_shift(x, _word(32 - bits)))


def words(seed: Tensor, stream: int, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Two random uint32 words for each position.

    Args:
        seed: integer, 0 <= seed < 2**32.
        stream: one of this module's streams.
        positions: (batch,) int64.

    Returns:
        A pair of uint32 tensors (batch,).
    """
    low = ops.cast(ops.bitwise_and(positions, 0xFFFFFFFF), "uint32")
    high = ops.cast(ops.right_shift(positions, ops.cast(32, positions.dtype)), "uint32")
    return threefry2x32((_word(seed), _word(stream)), (low, high))


def uniform(seed: Tensor, stream: int, positions: Tensor, count: int = 2) -> tuple[Tensor, ...]:
    """Independent float32 numbers, uniform in [0, 1), for each position: ``count`` tensors (batch,)."""

    def fraction(word: Tensor) -> Tensor:
        return ops.cast(ops.right_shift(word, _word(8)), "float32") * 2.0**-24

    # Two words at a time; further ones from streams that no other use has.
    pairs = [words(seed, stream + (number << 16), positions) for number in range(-(-count // 2))]
    return tuple(fraction(word) for pair in pairs for word in pair)[:count]


class RangeSampler:
    """Draws values uniformly from the range of each label, on the device.

    Args:
        ranges: the range of each class.
    """

    def __init__(self, ranges: Ranges):
        # One row per label; all labels above the highest restricted one share the last row, the default range.
        rows = [ranges.of(label) for label in range(max(ranges.restricted, default=-1) + 1)] + [ranges.default]
        most = max(len(row) for row in rows)
        self.low, self.width, self.below_high = (np.zeros((len(rows), most), "float32") for _ in range(3))
        # The cumulative probability at which each interval begins; 2, which is never reached, pads shorter rows.
        self.begin, self.share = np.full((len(rows), most), 2.0, "float32"), np.ones((len(rows), most), "float32")
        for row, pairs in enumerate(rows):
            total, begin = length(pairs), 0.0
            for column, (low, high) in enumerate(pairs):
                share = (high - low) / total if total else 1.0 / len(pairs)
                self.low[row, column], self.width[row, column] = low, high - low
                self.below_high[row, column] = np.nextafter(np.float32(high), np.float32(-np.inf))
                self.begin[row, column], self.share[row, column] = begin, share or 1.0
                begin += share

    def draw(self, labels: Tensor, uniform: Tensor) -> Tensor:
        """Values (batch,) from the range of each label (batch,), for uniform numbers (batch,) in [0, 1)."""
        row = ops.minimum(ops.cast(labels, "int32"), len(self.low) - 1)
        column = ops.sum(ops.cast(ops.take(self.begin, row, axis=0) <= uniform[:, None], "int32"), axis=-1) - 1
        cell = row * self.low.shape[1] + column

        def at(table: np.ndarray) -> Tensor:
            return ops.take(ops.convert_to_tensor(table.reshape(-1)), cell, axis=0)

        low, width = at(self.low), at(self.width)
        value = low + (uniform - at(self.begin)) / at(self.share) * width
        # Rounding must not move a value out of its half-open interval.
        return ops.maximum(low, ops.minimum(value, at(self.below_high)))
