"""Neighbourhoods and votes of matrix capsules, against loops. (Coordinates: test_matrix_capsules.)"""

import numpy as np
import pytest

from invariance.routing.votes import gather, patches, votes
from tests.helpers import noise


@pytest.mark.parametrize(("kernel", "strides"), [(1, 1), (2, 1), (3, 1), (3, 2), (2, 3), (5, 2)])
@pytest.mark.parametrize("size", [(7, 5), (5, 8)], ids=str)
def test_patches(size, kernel, strides):
    values = noise(2, *size, 3, 2)
    found = np.asarray(patches(values, kernel, strides))
    rows, columns = ((side - kernel) // strides + 1 for side in size)
    assert found.shape == (kernel**2, 2, rows, columns, 3, 2)
    for k, r, c in np.ndindex(kernel**2, rows, columns):
        expected = values[:, strides * r + k // kernel, strides * c + k % kernel]
        np.testing.assert_array_equal(found[k, :, r, c], expected)


@pytest.mark.parametrize("padded", [False, True])
def test_gather_and_its_row_of_zeros(padded):
    values = noise(2, 1, 3, 3, 4)
    found = np.asarray(gather(values, 1, 1, padded))
    assert found.shape == (3, 6 + padded, 4)
    np.testing.assert_array_equal(found[:, :6], values.reshape(6, 3, 4).transpose(1, 0, 2))
    np.testing.assert_array_equal(found[:, 6:], 0.0)


def slow_votes(poses, weights):
    """(in, 4, 4) and (in, out, 4, 4): M_i W_ij, row by row, (in, 16, out)."""
    result = np.zeros((len(poses), 16, weights.shape[1]))
    for i, j in np.ndindex(*weights.shape[:2]):
        for row, column in np.ndindex(4, 4):
            result[i, 4 * row + column, j] = sum(poses[i, row, k] * weights[i, j, k, column] for k in range(4))
    return result.astype("float32")


def test_votes():
    poses, weights = noise(3, 2, 4, 4), noise(3, 5, 4, 4, seed=1)
    found = np.asarray(votes(poses, weights))
    assert found.shape == (3, 2, 16, 5)
    for n in range(2):
        np.testing.assert_allclose(found[:, n], slow_votes(poses[:, n], weights), rtol=0, atol=5e-6)  # four products
