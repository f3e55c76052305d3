"""What draws: the kernels one by one against matrices that the reference forms."""

from __future__ import annotations

import numpy as np
import pytest

from gradsim.kernels import matrices, reference
from tests.kernels import direct
from tests.kernels.compare import EPS

DTYPES = ("float32", "float64")
SHAPES = [(1, 1), (2, 3), (5, 1), (3, 17), (16, 16), (63, 65), (64, 7), (65, 64), (70, 33), (130, 70)]


def close(found, exact, size, dtype):
    """Equal but for rounding: 8 eps times a size each."""
    return (np.abs(found - exact) <= 8 * EPS[dtype] * size).all()


def vector(n, dtype, zeros=0):
    """Some vector, its first `zeros` entries zero."""
    x = np.random.default_rng(n).standard_normal(n).astype(dtype)
    x[:zeros] = 0
    return x


def drawn_with_errors(rows, columns, law, dtype):
    """The matrix of `key(7)` by the reference, and what rounding may change of each entry, in eps / 8.

    Words make signs without error, and a float64 uniform holds all of its word. A Gaussian has a few units in the
    last place of a normal of usual size, and more where the radius R of its pair is small: rounding u near 1 moves R
    by eps / R.
    """
    whole = direct.drawn(7, 4 * direct.groups(rows), columns, law)
    if law == "gaussian":
        pairs = whole.reshape(2, 2, -1, columns)
        radius = np.broadcast_to(np.hypot(pairs[:, :1], pairs[:, 1:]), pairs.shape).reshape(whole.shape)
        size = np.maximum(np.maximum(np.abs(whole), 1), 1 / radius)
    else:
        size = np.full(whole.shape, float(law == "uniform" and dtype == "float32"))
    return whole[:rows], size[:rows]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 16, 63, 64, 70])
def test_columns_are_those_of_the_reference(rows, dtype):
    exact, size = drawn_with_errors(rows, 9, "gaussian", dtype)
    found = np.stack([direct.column(direct.key(7), j, rows, dtype) for j in range(9)], axis=1)
    assert close(found, exact, size, dtype)
    exact, size = drawn_with_errors(rows, 1, "uniform", dtype)
    assert close(direct.uniform_bias(direct.key(7), rows, dtype), exact[:, 0], size[:, 0], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("law", direct.LAWS)
def test_matrices_that_are_stored_are_those_of_the_reference(law, dtype):
    for order in (1, 2, 3, 4, 5, 16, 63, 64, 65, 70):
        exact, size = drawn_with_errors(order, order, law, dtype)
        found = direct.stored(direct.key(7), law, order, dtype)
        assert close(found, exact, size, dtype), order
        np.testing.assert_array_equal(direct.stored(direct.key(7), law, order, dtype, step=4), found)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("law", direct.LAWS)
@pytest.mark.parametrize("kernel", [direct.forward, direct.forward_narrow])
def test_forward_is_w_h(kernel, law, dtype):
    for rows, columns in SHAPES:
        w, h = direct.drawn(rows, rows, columns, law), vector(columns, dtype, columns // 3)
        z = kernel(direct.key(rows), law, h, rows)
        assert close(z, w @ h, np.sqrt(columns) + np.abs(w) @ np.abs(h), dtype), (rows, columns)
        np.testing.assert_array_equal(kernel(direct.key(rows), law, h, rows, step=4), z)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("law", direct.LAWS)
def test_backward_is_w_transposed_d(law, dtype):
    for rows, columns in SHAPES:
        w, d = direct.drawn(rows, rows, columns, law), vector(rows, dtype, rows // 3)
        g = direct.backward(direct.key(rows), law, d, columns)
        assert close(g, w.T @ d, np.sqrt(rows) + np.abs(w.T) @ np.abs(d), dtype), (rows, columns)
        np.testing.assert_array_equal(direct.backward(direct.key(rows), law, d, columns, step=4), g)


@pytest.mark.parametrize("dtype", DTYPES)
def test_orthogonal_is_the_reference_product_of_reflections(dtype):
    for order, columns in [(1, 1), (2, 1), (5, 5), (16, 3), (65, 64), (70, 70)]:
        stream = direct.key(order)
        q = reference.stiefel(stream.reshape(4, 1), order, columns)
        np.testing.assert_allclose(q.T @ q, np.eye(columns), atol=1e-13)
        u, v = vector(columns, dtype), vector(order, dtype)
        y, x = direct.times_q(stream, u, order), direct.times_q_transposed(stream, v, columns)
        size = np.sqrt(order)
        assert close(y, q @ u, size * np.linalg.norm(u), dtype)
        assert close(x, q.T @ v, size * np.linalg.norm(v), dtype)
        np.testing.assert_array_equal(direct.times_q(stream, u, order, step=4), y)
        np.testing.assert_array_equal(direct.times_q_transposed(stream, v, columns, step=4), x)
        if order == columns:
            kept = direct.stored_q(stream, order, dtype)
            assert close(kept, q, size, dtype)
            np.testing.assert_array_equal(direct.stored_q(stream, order, dtype, step=4), kept)


@pytest.mark.parametrize("dtype", DTYPES)
def test_matrices_that_are_kept(dtype):
    for n in (1, 3, 31, 33, 70):
        matrix, weights = vector(n * n, dtype).reshape(n, n), vector(n, dtype, n // 3)
        product = direct.combine(matrix, weights)
        assert close(product, matrix.T @ weights, np.abs(matrix.T) @ np.abs(weights), dtype)
        np.testing.assert_array_equal(direct.combine(matrix, weights, step=4), product)
        turned = np.empty_like(matrix)
        matrices.transpose(matrix, turned)
        np.testing.assert_array_equal(turned, matrix.T)


@pytest.mark.parametrize("dtype", DTYPES)
def test_silent_units_are_left_out_and_nan_is_not(dtype):
    x = np.array([0, 1, -0.0, np.nan, np.inf, 0, -1e-30], dtype)
    active = np.zeros(16, np.int64)
    count = matrices.list_nonzero(x, len(x), active)
    assert active[:count].tolist() == [1, 3, 4, 6]
