"""What an untied Gaussian matrix answers to a batch at once: Gram matrices instead of one query after the other.

With X = U R, U orthonormal and R triangular (R^T R = X^T X, Cholesky), W X = A R with A = W U fresh normals; and with
D = V T likewise and Y = X' T, X' fresh normals,

    W^T D = Y + U (A^T D - U^T Y).

These are the numbers of `deferred` taken column by column, to rounding, through matrix products. A Gram matrix squares
what columns have in common: it is worked out in float64 so that columns which float32 can tell apart stay apart, and in
float64 chains, which tell more apart, there is none.
"""

from __future__ import annotations

import math

from .bits import keep_out_of_line
from .blas import gemm
from .compiling import kernel
from .deferred import DEPENDENT_32, draw, multiply_by
from .shapes import CHUNK
from .team import each, meet
from .vectors import copy

# Rows of `squares`: a Gram matrix, its factor, and the inverse of that.
GRAM, FACTOR, INVERSE = range(3)


@kernel
def gram_of(block, n, k, wide, gram):
    """The k x k Gram matrix of the columns of an n x k block."""
    keep_out_of_line()
    for start in range(0, n, CHUNK):
        count = min(CHUNK, n - start)
        copy(block[start * k :], wide, count * k)
        gemm(True, False, k, k, count, wide, 0, k, wide, 0, k, start > 0, gram, 0, k)


@kernel
def factorise(gram, k, limit, factor):
    """Upper triangular R with R^T R = the Gram matrix; rows of columns that depend on those before are zero."""
    keep_out_of_line()
    rank = 0
    for i in each(k * k):
        factor[i] = gram[i]
    meet()
    for j in range(k):
        own = factor[j * k : (j + 1) * k]
        new = rank < limit and own[j] > gram[j * k + j] * DEPENDENT_32**2
        scale = 1.0 / math.sqrt(own[j]) if new else 0.0
        rank += new
        meet()
        for b in each(k):
            own[b] *= scale if b >= j else 0.0
        meet()
        # What the columns after this one have left of each other.
        for after in each(k - j - 1):
            i = j + 1 + after
            rest, part_of = factor[i * k : (i + 1) * k], own[i]
            for b in range(k):
                rest[b] -= part_of * own[b]
        meet()


@kernel
def invert(factor, k, inverse):
    """R^-1 between the rows that are not zero, zero elsewhere."""
    keep_out_of_line()
    for i in each(k * k):
        inverse[i] = 0.0
    meet()
    for i in range(k - 1, -1, -1):
        pivot = factor[i * k + i]
        if pivot > 0.0:
            own = inverse[i * k : (i + 1) * k]
            for j in each(k):
                own[j] = 1.0 if j == i else 0.0
            for b in range(i + 1, k):
                below, weight = inverse[b * k : (b + 1) * k], factor[i * k + b]
                for j in each(k):
                    own[j] -= weight * below[j]
            for j in each(k):
                own[j] /= pivot


@kernel
def write_queries(block, n, k, inverse, wide, queries, top):
    """Rows top .. top + k - 1 of the queries = the columns of X R^-1."""
    keep_out_of_line()
    own, result = wide[0], wide[1]
    for start in range(0, n, CHUNK):
        count = min(CHUNK, n - start)
        copy(block[start * k :], own, count * k)
        gemm(True, True, k, count, k, inverse, 0, k, own, 0, k, False, result, 0, count)
        for j in range(k):
            target, source = queries[top + j][start:], result[j * count : (j + 1) * count]
            for i in each(count):
                target[i] = source[i]


@kernel
def ask_block(key, x, nx, k, factor, z, nz, queries, answers, top, squares, mixed, wide):
    """Z = factor W X of the n x k block X; queries and answers become rows top .. top + k - 1.

    squares (3, k k) and wide (2, CHUNK k) float64, mixed (2, k k) of the chain's dtype: room.
    """
    keep_out_of_line()
    gram, r = squares[GRAM], squares[FACTOR]
    gram_of(x, nx, k, wide[0], gram)
    factorise(gram, k, nx, r)
    invert(r, k, squares[INVERSE])
    write_queries(x, nx, k, squares[INVERSE], wide, queries, top)
    for b in range(k):
        draw(key, b, nz, nz, answers[top + b])
    multiply_by(r, factor, mixed[0], k * k)
    pitch = answers.shape[1]
    gemm(True, False, nz, k, k, answers, top * pitch, pitch, mixed[0], 0, k, False, z, 0, k)
    _mark(gram, k, z)


@kernel
def _mark(gram, k, y):
    """NaN into what comes of a block that is not finite."""
    keep_out_of_line()
    total = 0.0
    for b in range(k):
        total += gram[b * k + b]
    if not math.isfinite(total):
        y[0] = math.nan


@kernel
def ask_block_back(key, d, nd, k, factor, g, ng, queries, answers, top, count, fresh, squares, mixed, wide):
    """G = factor W^T D of the n x k block D, what W answered to `count` queries forward being known.

    `fresh` (k, N) holds what is drawn; the rest as in `ask_block`.
    """
    keep_out_of_line()
    gram, t = squares[GRAM], squares[FACTOR]
    known, drawn, pitch = mixed[0], mixed[1], queries.shape[1]
    gram_of(d, nd, k, wide[0], gram)
    factorise(gram, k, nd, t)
    for b in range(k):
        draw(key, b, ng, ng, fresh[b])
    multiply_by(t, factor, known, k * k)
    gemm(True, False, ng, k, k, fresh, 0, fresh.shape[1], known, 0, k, False, g, 0, k)
    if count > 0:
        own = answers.shape[1]
        gemm(False, False, count, k, nd, answers, top * own, own, d, 0, k, False, known, 0, k)
        gemm(False, False, count, k, ng, queries, top * pitch, pitch, g, 0, k, False, drawn, 0, k)
        for i in each(count * k):
            known[i] = factor * known[i] - drawn[i]
        meet()
        gemm(True, False, ng, k, count, queries, top * pitch, pitch, known, 0, k, True, g, 0, k)
    _mark(gram, k, g)
