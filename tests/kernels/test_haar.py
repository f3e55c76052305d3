"""Products of reflectors: orthogonal, and distributed by Haar's measure.

Fixed seeds; each statistical test would reject a perfect generator with probability at most ERROR over their choice.
The control leaves out the signs D, without which the product is orthogonal and not Haar.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from gradsim.kernels import draws, keys, orthogonal
from gradsim.kernels.reference import stiefel
from tests.kernels import compiled

ERROR = 1e-6
SHAPES = [(1, 1), (2, 2), (3, 1), (5, 3), (7, 7), (16, 16), (33, 20), (64, 64)]
CELL = keys.cell_key(0, "{}")
COUNT = 4000
ORDER = 5


def scratch(order, dtype):
    """Room for a drawn column."""
    return np.zeros(order + 4 + draws.SPARE, dtype)


def matrix(key, rows, columns, dtype="float64"):
    """Q, by applying it to unit vectors."""
    q = np.empty((rows, columns), dtype)
    for j in range(columns):
        y = np.zeros(rows, dtype)
        orthogonal.apply_q(key, np.eye(columns, dtype=dtype)[j], rows, 0, columns, y, scratch(rows, dtype))
        q[:, j] = y
    return q


def built(key, order, dtype="float64"):
    """Square Q, by accumulating its reflectors."""
    q = np.zeros((order, order), dtype)
    orthogonal.build_q(key, 0, order, q, scratch(order, dtype), np.zeros(order, dtype))
    return q


def signs(key, order):
    """The diagonal D."""
    room = scratch(order, "float64")
    return np.array([orthogonal.reflector(key, i, order, room)[1] for i in range(order)])


def key_of(chain):
    """The stream of one chain's first layer."""
    return compiled.layer_keys(CELL, chain, 1, keys.WEIGHT)


@pytest.mark.parametrize(("dtype", "eps"), [("float32", 2.0**-24), ("float64", 2.0**-53)])
@pytest.mark.parametrize(("rows", "columns"), SHAPES)
def test_columns_are_orthonormal(rows, columns, dtype, eps):
    q = matrix(key_of(0), rows, columns, dtype).astype(float)
    # Each reflector rounds like a few operations on vectors of this length.
    np.testing.assert_allclose(q.T @ q, np.eye(columns), rtol=0, atol=8 * eps * columns)


@pytest.mark.parametrize(("rows", "columns"), SHAPES)
def test_matrix_is_the_reference(rows, columns):
    expected = stiefel(key_of(1).reshape(4, 1), rows, columns)
    np.testing.assert_allclose(matrix(key_of(1), rows, columns), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("rows", "columns"), SHAPES)
def test_transposed_is_the_transpose(rows, columns):
    q, v = matrix(key_of(2), rows, columns), np.random.default_rng(0).standard_normal(rows)
    y = v.copy()
    orthogonal.apply_q_transposed(key_of(2), rows, 0, columns, y, scratch(rows, "float64"))
    np.testing.assert_allclose(y[:columns], q.T @ v, rtol=0, atol=1e-13)


@pytest.mark.parametrize("order", [1, 2, 7, 33])
def test_built_matrix_is_the_same(order):
    np.testing.assert_allclose(built(key_of(3), order), matrix(key_of(3), order, order), rtol=0, atol=1e-13)


# Chains whose last column, or last but one, is drawn as zero in float32: an angle or a radius that rounds.
@pytest.mark.parametrize("chain", [27238079, 10663861, 27637666])
def test_a_column_that_rounds_to_zero_does_no_harm(chain):
    key = key_of(chain)
    drawn = [np.linalg.norm(compiled.column(key, ORDER - length, length, "float32")) for length in (1, 2)]
    assert min(drawn) < 1e-3
    for q in (matrix(key, ORDER, ORDER, "float32"), built(key, ORDER, "float32")):
        np.testing.assert_allclose(q.astype(float).T @ q, np.eye(ORDER), rtol=0, atol=40 * 2.0**-24)


def haar_p_values(sample):
    """Of the laws of Haar's measure on O(n), by what is tested; `sample` is (count, n, n)."""
    count, n, _ = sample.shape
    found = {}
    # An entry is a coordinate of a uniform point of the sphere: (x + 1)/2 is Beta((n - 1)/2, (n - 1)/2).
    law = stats.beta((n - 1) / 2, (n - 1) / 2, loc=-1, scale=2)
    for i, j in np.ndindex(n, n):
        found[f"entry {i} {j}"] = stats.kstest(sample[:, i, j], law.cdf).pvalue
    # The trace against SciPy's own sampler; E tr Q = 0, E (tr Q)^2 = 1 (Diaconis and Shahshahani 1994).
    trace = np.trace(sample, axis1=1, axis2=2)
    drawn = stats.ortho_group.rvs(n, size=count, random_state=1)
    found["trace"] = stats.ks_2samp(trace, np.trace(drawn, axis1=1, axis2=2)).pvalue
    for name, x, mean in [("mean of trace", trace, 0), ("square of trace", trace**2, 1)]:
        found[name] = stats.ttest_1samp(x, mean).pvalue
    # Reflections and rotations equally often.
    found["determinant"] = stats.binomtest(int(np.sum(np.linalg.det(sample) > 0)), count).pvalue
    return found


def check_haar(sample):
    """Fail if these matrices are not Haar."""
    found = haar_p_values(sample)
    assert min(found.values()) > ERROR / len(found), found


@pytest.fixture(scope="module")
def sample():
    """Matrices of neighbouring chains."""
    return np.stack([built(key, ORDER) for key in key_of(np.arange(COUNT))])


def test_product_is_haar(sample):
    check_haar(sample)


def test_product_without_signs_is_seen(sample):
    diagonals = np.stack([signs(key, ORDER) for key in key_of(np.arange(COUNT))])
    bare = sample * diagonals[:, np.newaxis, :]
    np.testing.assert_allclose(bare.transpose(0, 2, 1) @ bare, np.broadcast_to(np.eye(ORDER), bare.shape), atol=1e-13)
    with pytest.raises(AssertionError):
        check_haar(bare)


def test_scipys_own_matrices_pass():
    check_haar(stats.ortho_group.rvs(ORDER, size=COUNT, random_state=2))
