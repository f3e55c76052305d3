"""Matrices that are never formed: only what W is asked, W x and W^T d, is drawn, at the moment it is asked.

Principle of deferred decisions. What has been asked of W is kept as orthonormal queries u_i with answers W u_i, and
v_j with answers W^T v_j. A new query is split into its part in the span of earlier ones, whose answer is known, and a
residual of length rho along a unit vector. For W of standard normals that vector's answer is known along every v_j,
since <v_j, W u> = <W^T v_j, u>, and fresh normals elsewhere. For W uniform on the orthogonal group a query and its
answer are one pair, both unit vectors: W^T takes the answer back to the query, and the answer to a new query is
uniform on the sphere of what is orthogonal to all answers so far. A rectangular matrix is a block of a square one, of
which only as many of the coordinates outside the block are kept as queries can tell apart: a rotation of the others
changes nothing. The law of all answers is that of a matrix drawn before, whatever the queries depend on:
docs/deferred.md.
"""

from __future__ import annotations

import math

from .bits import keep_out_of_line
from .compiling import kernel, part
from .draws import fill_gaussian
from .matrices import combine, row_products
from .team import each, meet
from .vectors import copy, scale, sum_of_squares
from .walk import whole_lanes

# A residual below this part of its query is rounding: 64 units in the last place.
DEPENDENT_32, DEPENDENT_64 = 2.0**-18, 2.0**-47
# A projection that leaves less than this of a vector is made again: what it leaves of the span is as large as rounding
# of what it took away. Twice is enough, but for a vector that was no more than rounding outside the span.
ENOUGH, MOST_PROJECTIONS = 0.5, 5


@kernel
def gather(block, column, columns, n, order, x):
    """x = one column of an n x `columns` block, zeros after it up to whole lanes of `order`."""
    keep_out_of_line()
    for i in each(whole_lanes(order)):
        x[i] = block[i * columns + column] if i < n else 0


@kernel
def draw(key, stream, n, tail, x):
    """x = standard normals; of those from `tail` on the norm alone, as one entry, and zeros after it."""
    keep_out_of_line()
    fill_gaussian(key, stream, x, n)
    end = n
    if tail < n:
        x[tail] = math.sqrt(sum_of_squares(x[tail:], n - tail))
        end = tail + 1
    rest = x[end : whole_lanes(n)]
    for i in each(len(rest)):
        rest[i] = 0


@kernel
def take_out(basis, top, count, active, r, size, n, c, step):
    """r, of norm `size`, minus its projection on rows top .. top + count - 1 of the basis; returns its norm.

    c are the coefficients of what was taken out; `step` is room for as many.
    """
    keep_out_of_line()
    for k in each(count):
        c[k] = 0
    least = size * (DEPENDENT_32 if r.itemsize == 4 else DEPENDENT_64)
    for _ in range(MOST_PROJECTIONS):
        row_products(basis, r, top, top + count, n, step, 0)
        for k in each(count):
            c[k] += step[k]
            step[k] = -step[k]
        meet()
        combine(basis[top : top + count], step, active, count, r, n)
        left = math.sqrt(sum_of_squares(r, n))
        if left > ENOUGH * size or left <= least:
            break
        size = left
    return left


@kernel
def multiply_by(x, factor, y, n):
    """y = factor x."""
    keep_out_of_line()
    own = x.dtype.type(factor)
    for i in each(n):
        y[i] = own * x[i]


@part
def split(queries, top, count, limit, active, x, norm, n, c):
    """Write the unit vector of what x has outside its queries as one more; returns its part of x, 0 where it is none.

    None: rounding, or no more than `limit` dimensions.
    """
    row = top + count
    left = norm
    if count > 0:
        copy(x, queries[row], n)
        left = take_out(queries, top, count, active, queries[row], norm, n, c[0], c[1])
    if count == limit or not left > norm * (DEPENDENT_32 if x.itemsize == 4 else DEPENDENT_64):
        left = 0.0
    elif count > 0:
        scale(queries[row], n, 1.0 / left)
    else:
        multiply_by(x, 1.0 / left, queries[row], n)
    return left


@kernel
def add_up(answers, top, count, active, c, scaled, factor, norm, y, n):
    """y = factor times the sum of the answers with these coefficients; NaN where the query's norm is not finite."""
    keep_out_of_line()
    if not math.isfinite(norm):
        y[0] = math.nan
    elif count == 1:
        multiply_by(answers[top], factor * c[0], y, n)
    else:
        for i in each(n):
            y[i] = 0
        for k in each(count):
            scaled[k] = factor * c[k]
        meet()
        combine(answers[top : top + count], scaled, active, count, y, n)


@kernel
def ask_gaussian(
    key,
    stream,
    x,
    nx,
    factor,
    y,
    ny,
    queries,
    answers,
    top,
    count,
    theirs,
    their_answers,
    their_top,
    their_count,
    active,
    c,
):
    """y = factor W x of a matrix of standard normals, or factor W^T x; returns how many queries of its side there are.

    Parameters
    ----------
    key, stream
        Whose column `stream` the fresh normals are.
    x, nx, factor, y, ny
        The query and its answer, zeros after them up to whole lanes.
    queries, answers, top, count
        Orthonormal queries of this side and their answers, rows top .. top + count - 1; one row more may be written.
    theirs, their_answers, their_top, their_count
        The same of the other side: queries as long as y, answers as long as x.
    active
        0, 1, 2, ...
    c : (3, ...)
        c[0] becomes the coefficients of x in the queries, a new one included.
    """
    keep_out_of_line()
    width, height = whole_lanes(nx), whole_lanes(ny)
    norm = math.sqrt(sum_of_squares(x, nx))
    left = split(queries, top, count, nx, active, x, norm, width, c)
    if left > 0.0:
        query, own = queries[top + count], answers[top + count]
        if their_count < ny:
            draw(key, stream, ny, ny, own)
        else:
            for i in each(height):
                own[i] = 0
            meet()
        if their_count > 0:
            # V (B^T r - V^T xi): what is known along V instead of what was drawn there.
            known, drawn = c[2], c[1]
            row_products(their_answers, query, their_top, their_top + their_count, width, known, 0)
            row_products(theirs, own, their_top, their_top + their_count, height, drawn, 0)
            for k in each(their_count):
                drawn[k] = known[k] - drawn[k]
            meet()
            combine(theirs[their_top : their_top + their_count], drawn, active, their_count, own, height)
        c[0, count] = left
        count += 1
    add_up(answers, top, count, active, c[0], c[1], factor, norm, y, height)
    return count


@kernel
def ask_haar(key, stream, x, order, factor, y, ny, tail, queries, answers, top, count, active, c):
    """y = factor W x of an orthogonal matrix, or factor W^T x with the sides exchanged; returns how many pairs.

    Parameters
    ----------
    order
        Of the square matrix of which W is a block: x, and all queries and answers, have so many entries.
    ny
        Entries of y.
    tail
        From which entry on what is drawn cannot be told apart by queries (see `draw`); `order` where all of it can.
    """
    keep_out_of_line()
    n = whole_lanes(order)
    norm = math.sqrt(sum_of_squares(x, order))
    left = split(queries, top, count, order, active, x, norm, n, c)
    if left > 0.0:
        own = answers[top + count]
        draw(key, stream, order, tail, own)
        length = math.sqrt(sum_of_squares(own, order))
        if count > 0:
            length = take_out(answers, top, count, active, own, length, n, c[2], c[1])
        if length == 0.0:
            # A matrix of one entry whose normal rounded to zero, which float32 allows.
            own[0] = length = 1.0
        scale(own, n, 1.0 / length)
        c[0, count] = left
        count += 1
    add_up(answers, top, count, active, c[0], c[1], factor, norm, y, whole_lanes(ny))
    rest = y[ny : whole_lanes(ny)]
    for i in each(len(rest)):
        rest[i] = 0
    return count
