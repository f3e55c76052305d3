"""Weights drawn where they are used: z += W h and g += W^T d without ever holding W.

A block of the generator at counter (column, i) holds the four weights of that column in rows i, i + q, i + 2q and
i + 3q, q = ceil(rows / 4); rows beyond the matrix are drawn and meet zeros. Both loops run along unit stride in
vectors and accumulate each output in a fixed order, so a result depends neither on the vector width nor on where a
call stops and the next goes on (calls start at even columns and even i). Two blocks per step keep both
multipliers of the processor busy: one block leaves them waiting for its own rounds.
"""

from __future__ import annotations

import numpy as np

from . import rng
from .bits import keep_out_of_line, prefer_wide_vectors
from .compiling import kernel, part
from .shapes import LANES, SPARE
from .team import each

u32 = np.uint32


def make_forward(draw4):
    """z += W h over the active columns first .. last, `draw4` turning a block into four weights.

    `signs` chooses between the two bounded laws and means nothing to the Gaussian.
    """

    def forward(key, signs, h, active, first, last, z, q):
        prefer_wide_vectors()
        keep_out_of_line()
        k0, k1, k2, k3 = key[0], key[1], key[2], key[3]
        k4 = rng.parity(k0, k1, k2, k3)
        zero, one = z.dtype.type(0), z.dtype.type(1)
        z0, z1, z2, z3 = z[:q], z[q : 2 * q], z[2 * q : 3 * q], z[3 * q : 4 * q]
        for c in range(first, last, 2):
            column = active[c]
            h0 = h[column]
            j0 = u32(column)
            if c + 1 < last:
                column = active[c + 1]
                h1 = h[column]
            else:
                h1 = zero
            j1 = u32(column)
            for i in range(q):
                w0, w1, w2, w3 = rng.threefry13(k0, k1, k2, k3, k4, j0, u32(i))
                a0, a1, a2, a3 = draw4(w0, w1, w2, w3, one, signs)
                w0, w1, w2, w3 = rng.threefry13(k0, k1, k2, k3, k4, j1, u32(i))
                b0, b1, b2, b3 = draw4(w0, w1, w2, w3, one, signs)
                z0[i] += h0 * a0 + h1 * b0
                z1[i] += h0 * a1 + h1 * b1
                z2[i] += h0 * a2 + h1 * b2
                z3[i] += h0 * a3 + h1 * b3

    return kernel(forward)


def make_forward_narrow(draw4):
    """`make_forward` for fewer than 64 rows, vectors along a row: z of row groups first .. last, all columns.

    h holds columns padded to a multiple of LANES, zeros at the end; partial sums live in LANES fixed lanes
    of `lanes`, which holds 4 LANES entries.
    """

    def forward_narrow(key, signs, h, columns, first, last, z, q, lanes):
        prefer_wide_vectors()
        keep_out_of_line()
        k0, k1, k2, k3 = key[0], key[1], key[2], key[3]
        k4 = rng.parity(k0, k1, k2, k3)
        zero, one = z.dtype.type(0), z.dtype.type(1)
        s0, s1, s2, s3 = lanes[:LANES], lanes[LANES : 2 * LANES], lanes[2 * LANES : 3 * LANES], lanes[3 * LANES :]
        for i in range(first, last):
            lanes[: 4 * LANES] = 0
            for start in range(0, columns, LANES):
                for lane in range(LANES):
                    j = start + lane
                    w0, w1, w2, w3 = rng.threefry13(k0, k1, k2, k3, k4, u32(j), u32(i))
                    a0, a1, a2, a3 = draw4(w0, w1, w2, w3, one, signs)
                    s0[lane] += h[j] * a0
                    s1[lane] += h[j] * a1
                    s2[lane] += h[j] * a2
                    s3[lane] += h[j] * a3
            for r in range(4):
                total = zero
                for lane in range(LANES):
                    total += lanes[r * LANES + lane]
                z[i + r * q] = total

    return kernel(forward_narrow)


def make_backward(draw4):
    """g += W^T d over row groups first .. last; d holds 4q entries, zero beyond the rows.

    g has its columns padded to a multiple of LANES: what lands in the padding is not part of g.
    """

    def backward(key, signs, d, first, last, g, columns, q):
        prefer_wide_vectors()
        keep_out_of_line()
        k0, k1, k2, k3 = key[0], key[1], key[2], key[3]
        k4 = rng.parity(k0, k1, k2, k3)
        zero, one = g.dtype.type(0), g.dtype.type(1)
        for i in range(first, last, 2):
            d0, d1, d2, d3 = d[i], d[i + q], d[i + 2 * q], d[i + 3 * q]
            i0 = u32(i)
            if i + 1 < q:
                e0, e1, e2, e3 = d[i + 1], d[i + 1 + q], d[i + 1 + 2 * q], d[i + 1 + 3 * q]
            else:
                e0 = e1 = e2 = e3 = zero
            i1 = u32(i + 1)
            for j in range(columns):
                w0, w1, w2, w3 = rng.threefry13(k0, k1, k2, k3, k4, u32(j), i0)
                a0, a1, a2, a3 = draw4(w0, w1, w2, w3, one, signs)
                w0, w1, w2, w3 = rng.threefry13(k0, k1, k2, k3, k4, u32(j), i1)
                b0, b1, b2, b3 = draw4(w0, w1, w2, w3, one, signs)
                g[j] += ((d0 * a0 + d1 * a1) + (d2 * a2 + d3 * a3)) + ((e0 * b0 + e1 * b1) + (e2 * b2 + e3 * b3))

    return kernel(backward)


def make_rows(draw4):
    """Row groups first .. last of a matrix of so many rows, into `matrix`; rows beyond it are drawn into `spare`.

    Group i has its four rows at i - offset and every `stride` further on: a matrix that is kept has offset 0 and stride
    q, a slab of it another.
    """

    def rows(key, signs, first, last, matrix, offset, stride, rows, spare, columns):
        prefer_wide_vectors()
        keep_out_of_line()
        k0, k1, k2, k3 = key[0], key[1], key[2], key[3]
        k4 = rng.parity(k0, k1, k2, k3)
        one = spare.dtype.type(1)
        q = (rows + 3) // 4
        for i in range(first, last):
            at = i - offset
            r0 = matrix[at]
            r1 = matrix[at + stride] if i + q < rows else spare
            r2 = matrix[at + 2 * stride] if i + 2 * q < rows else spare
            r3 = matrix[at + 3 * stride] if i + 3 * q < rows else spare
            for j in range(columns):
                w0, w1, w2, w3 = rng.threefry13(k0, k1, k2, k3, k4, u32(j), u32(i))
                r0[j], r1[j], r2[j], r3[j] = draw4(w0, w1, w2, w3, one, signs)

    return kernel(rows)


def make_fill(draw4):
    """x[:rows] = column `column` of the matrix of `rows` rows that this key draws; and rows of a matrix likewise.

    x holds 4q entries and, at its end, SPARE more: a group of LANES blocks is drawn there and copied, since short
    columns would otherwise never fill a vector.
    """

    @part
    def fill_column(k0, k1, k2, k3, signs, column, x, rows):
        k4 = rng.parity(k0, k1, k2, k3)
        one = x.dtype.type(1)
        q = (rows + 3) // 4
        lanes = x[len(x) - SPARE :]
        s0, s1, s2, s3 = lanes[:LANES], lanes[LANES : 2 * LANES], lanes[2 * LANES : 3 * LANES], lanes[3 * LANES :]
        j = u32(column)
        whole = q // LANES * LANES
        x0, x1, x2, x3 = x[:q], x[q : 2 * q], x[2 * q : 3 * q], x[3 * q :]
        for i in range(whole):
            w0, w1, w2, w3 = rng.threefry13(k0, k1, k2, k3, k4, j, u32(i))
            x0[i], x1[i], x2[i], x3[i] = draw4(w0, w1, w2, w3, one, signs)
        if whole < q:
            # A scalar remainder would cost as much as many vectors.
            for lane in range(LANES):
                w0, w1, w2, w3 = rng.threefry13(k0, k1, k2, k3, k4, j, u32(whole + lane))
                s0[lane], s1[lane], s2[lane], s3[lane] = draw4(w0, w1, w2, w3, one, signs)
            for lane in range(q - whole):
                i = whole + lane
                x0[i], x1[i], x2[i], x3[i] = s0[lane], s1[lane], s2[lane], s3[lane]

    def fill(key, signs, column, x, rows):
        prefer_wide_vectors()
        keep_out_of_line()
        fill_column(key[0], key[1], key[2], key[3], signs, column, x, rows)

    def fill_rows(streams, signs, matrix, first, count, sizes):
        """Rows first .. first + count - 1, each of a size and with a stream (a column of keys) of its own."""
        prefer_wide_vectors()
        keep_out_of_line()
        for r in range(count):
            k0, k1, k2, k3 = streams[0, r], streams[1, r], streams[2, r], streams[3, r]
            fill_column(k0, k1, k2, k3, signs, np.int64(0), matrix[first + r], sizes[r])

    return kernel(fill), kernel(fill_rows)


forward_gaussian = make_forward(rng.gaussian4)
forward_bounded = make_forward(rng.bounded4)
forward_narrow_gaussian = make_forward_narrow(rng.gaussian4)
forward_narrow_bounded = make_forward_narrow(rng.bounded4)
backward_gaussian = make_backward(rng.gaussian4)
backward_bounded = make_backward(rng.bounded4)
rows_gaussian = make_rows(rng.gaussian4)
rows_bounded = make_rows(rng.bounded4)
_fill_gaussian, fill_rows_gaussian = make_fill(rng.gaussian4)
fill_bounded, _ = make_fill(rng.bounded4)


@part
def fill_gaussian(key, column, x, rows):
    """x[:rows] = standard normals."""
    _fill_gaussian(key, False, np.int64(column), x, rows)


@kernel
def scatter(x, n, block, column, columns):
    """One column of an n x `columns` block = x."""
    keep_out_of_line()
    for i in each(n):
        block[i * columns + column] = x[i]


@kernel
def fill_columns(key, first, columns, x, n, scratch):
    """The n x `columns` block x: column b is column first + b of what this key draws, standard normals."""
    keep_out_of_line()
    if columns == 1:
        fill_gaussian(key, first, x, n)
    else:
        for b in range(columns):
            fill_gaussian(key, first + b, scratch, n)
            scatter(scratch, n, x, b, columns)
