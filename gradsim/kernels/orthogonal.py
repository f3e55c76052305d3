"""Haar-orthogonal matrices as products of Householder reflectors, applied in O(n^2) without forming the matrix.

Stewart (SIAM J. Numer. Anal. 17, 1980): with x_i Gaussian of length N - i, i = 0 .. k - 1, and H_i the reflector that
takes x_i to a multiple of the unit vector e_i, the N x k matrix Q = H_0 ... H_{k-1} D, D the signs that make column i
of H_i point along x_i, is uniform on the Stiefel manifold; for N = k it is Haar on O(N). A layer whose matrix is
taller than wide is Q, one that is wider than tall is Q^T. x_i is column i of the layer's stream.
"""

from __future__ import annotations

import math

from .bits import keep_out_of_line
from .compiling import kernel
from .draws import fill_gaussian
from .team import each, leads, meet
from .vectors import dot


@kernel
def reflector(key, i, order, x):
    """Draw x_i into x and turn it into Householder's v, returning (2 / v.v, sign D_i)."""
    keep_out_of_line()
    length = order - i
    fill_gaussian(key, i, x, length)
    one = x.dtype.type(1)
    norm = x.dtype.type(math.sqrt(dot(x, x, length)))
    if norm == 0:
        # A short column whose normals all rounded to zero, which float32 allows.
        x[0] = one
        norm = one
    head = x[0]
    sign = one if head >= 0 else -one
    meet()
    x[0] = head + sign * norm
    return one / (norm * (norm + abs(head))), -sign


@kernel
def reflect(x, length, factor, y, start):
    """y[start:] <- H y[start:], H = 1 - factor v v^T with v = x."""
    keep_out_of_line()
    tail = y[start : start + length]
    step = factor * dot(x, tail, length)
    for r in each(length):
        tail[r] -= step * x[r]


@kernel
def apply_q(key, u, order, first, last, y, x):
    """y <- steps first .. last of Q u; step s brings in reflector k - 1 - s, k = len(u); y starts as zero."""
    keep_out_of_line()
    k = len(u)
    for s in range(first, last):
        i = k - 1 - s
        factor, sign = reflector(key, i, order, x)
        y[i] = sign * u[i]
        reflect(x, order - i, factor, y, i)


@kernel
def apply_q_transposed(key, order, first, last, y, x):
    """y <- steps first .. last of Q^T y, in place; after k steps its first k entries are the answer."""
    keep_out_of_line()
    for i in range(first, last):
        factor, sign = reflector(key, i, order, x)
        reflect(x, order - i, factor, y, i)
        if leads():
            y[i] *= sign


@kernel
def build_q(key, first, last, matrix, x, row):
    """Square Q by accumulating its reflectors from the last to the first; `matrix` starts as zero."""
    keep_out_of_line()
    order = len(matrix)
    for s in range(first, last):
        i = order - 1 - s
        factor, sign = reflector(key, i, order, x)
        matrix[i, i] = sign
        meet()
        own = row[i:order]
        for c in each(order - i):
            own[c] = 0
        for r in range(order - i):
            weight = x[r]
            source = matrix[i + r, i:order]
            for c in each(order - i):
                own[c] += weight * source[c]
        for r in range(order - i):
            weight = factor * x[r]
            target = matrix[i + r, i:order]
            for c in each(order - i):
                target[c] -= weight * own[c]
        meet()
