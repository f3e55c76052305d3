"""Weights drawn where they are used, by a team: the layout of blocks is that of `kernels.draws`, and of docs/rng.md.

Threads lie side by side over the entries of the result, in as many rows as there is room for; each row takes a slice
of what is summed over, and what the rows have is added up in order. docs/cuda.md counts what a weight costs.
"""

from __future__ import annotations

import numpy as np
from numba import cuda

from gradsim.kernels import rng

from .threads import lanes_for, real

u32 = np.uint32
# Indices without a sign: what a negative one would mean need not be asked.
u64 = np.uint64


def make_forward(draw4, listed):
    """z += W h over the columns first .. last, of those listed in `active` or of all."""

    def forward(key, signs, h, active, first, last, z, q):
        room = cuda.shared.array(0, real)
        k0, k1, k2, k3 = key[0], key[1], key[2], key[3]
        k4 = rng.parity(k0, k1, k2, k3)
        zero, one = z.dtype.type(0), z.dtype.type(1)
        thread, threads = cuda.threadIdx.x, cuda.blockDim.x
        lanes = lanes_for(q, threads)
        slices, lane, own = threads // lanes, thread % lanes, thread // lanes
        for top in range(0, q, lanes):
            i = top + lane
            s0, s1, s2, s3 = zero, zero, zero, zero
            if i < q:
                for c in range(u64(first + own), u64(last), u64(slices)):
                    column = u64(active[c]) if listed else c
                    value = h[column]
                    w0, w1, w2, w3 = rng.threefry13(k0, k1, k2, k3, k4, u32(column), u32(i))
                    a0, a1, a2, a3 = draw4(w0, w1, w2, w3, one, signs)
                    s0 += value * a0
                    s1 += value * a1
                    s2 += value * a2
                    s3 += value * a3
            own_sums = (s0, s1, s2, s3)
            for r in range(4):
                room[r * threads + thread] = own_sums[r]
            cuda.syncthreads()
            if own == 0 and i < q:
                for r in range(4):
                    total = z[i + r * q]
                    for s in range(slices):
                        total += room[r * threads + s * lanes + lane]
                    z[i + r * q] = total
            cuda.syncthreads()

    return forward


def make_forward_narrow(forward):
    """The same called as the CPU's way for few rows is, row group after row group: the first call does all."""

    def forward_narrow(key, signs, h, columns, first, last, z, q, lanes):
        if first == 0:
            forward(key, signs, h, h, 0, columns, z, q)

    return forward_narrow


def make_backward(draw4):
    """g += W^T d over row groups first .. last; d holds 4q entries, zero beyond the rows."""

    def backward(key, signs, d, first, last, g, columns, q):
        room = cuda.shared.array(0, real)
        k0, k1, k2, k3 = key[0], key[1], key[2], key[3]
        k4 = rng.parity(k0, k1, k2, k3)
        zero, one = g.dtype.type(0), g.dtype.type(1)
        thread, threads = cuda.threadIdx.x, cuda.blockDim.x
        lanes = lanes_for(columns, threads)
        slices, lane, own = threads // lanes, thread % lanes, thread // lanes
        for left in range(0, columns, lanes):
            j = left + lane
            total = zero
            if j < columns:
                for i in range(u64(first + own), u64(last), u64(slices)):
                    w0, w1, w2, w3 = rng.threefry13(k0, k1, k2, k3, k4, u32(j), u32(i))
                    a0, a1, a2, a3 = draw4(w0, w1, w2, w3, one, signs)
                    total += d[i] * a0
                    total += d[i + u64(q)] * a1
                    total += d[i + u64(2 * q)] * a2
                    total += d[i + u64(3 * q)] * a3
            room[thread] = total
            cuda.syncthreads()
            if own == 0 and j < columns:
                total = g[j]
                for s in range(slices):
                    total += room[s * lanes + lane]
                g[j] = total
            cuda.syncthreads()

    return backward


def make_rows(draw4):
    """Row groups first .. last of a matrix of so many rows, as `kernels.draws` lays them out."""

    def rows(key, signs, first, last, matrix, offset, stride, rows, spare, columns):
        k0, k1, k2, k3 = key[0], key[1], key[2], key[3]
        k4 = rng.parity(k0, k1, k2, k3)
        one = spare.dtype.type(1)
        q = (rows + 3) // 4
        thread, threads = cuda.threadIdx.x, cuda.blockDim.x
        lanes = lanes_for(columns, threads)
        for j in range(u64(thread % lanes), u64(columns), u64(lanes)):
            for i in range(u64(first + thread // lanes), u64(last), u64(threads // lanes)):
                w0, w1, w2, w3 = rng.threefry13(k0, k1, k2, k3, k4, u32(j), u32(i))
                a0, a1, a2, a3 = draw4(w0, w1, w2, w3, one, signs)
                at = i - u64(offset)
                matrix[at, j] = a0
                if i + u64(q) < u64(rows):
                    matrix[at + u64(stride), j] = a1
                if i + u64(2 * q) < u64(rows):
                    matrix[at + u64(2 * stride), j] = a2
                if i + u64(3 * q) < u64(rows):
                    matrix[at + u64(3 * stride), j] = a3
        cuda.syncthreads()

    return rows


def make_fill(draw4):
    """x[:rows] = column `column` of the matrix of `rows` rows that this key draws; and rows of a matrix likewise."""

    def fill_column(k0, k1, k2, k3, signs, column, x, rows):
        k4 = rng.parity(k0, k1, k2, k3)
        one = x.dtype.type(1)
        q = (rows + 3) // 4
        for i in range(u64(cuda.threadIdx.x), u64(q), u64(cuda.blockDim.x)):
            w0, w1, w2, w3 = rng.threefry13(k0, k1, k2, k3, k4, u32(column), u32(i))
            a0, a1, a2, a3 = draw4(w0, w1, w2, w3, one, signs)
            x[i], x[i + u64(q)], x[i + u64(2 * q)], x[i + u64(3 * q)] = a0, a1, a2, a3
        cuda.syncthreads()

    def fill(key, signs, column, x, rows):
        fill_column(key[0], key[1], key[2], key[3], signs, column, x, rows)

    def fill_rows(streams, signs, matrix, first, count, sizes):
        for r in range(count):
            k0, k1, k2, k3 = streams[0, r], streams[1, r], streams[2, r], streams[3, r]
            fill_column(k0, k1, k2, k3, signs, np.int64(0), matrix[first + r], sizes[r])

    return fill, fill_rows


forward_gaussian = make_forward(rng.gaussian4, True)
forward_bounded = make_forward(rng.bounded4, True)
forward_narrow_gaussian = make_forward_narrow(make_forward(rng.gaussian4, False))
forward_narrow_bounded = make_forward_narrow(make_forward(rng.bounded4, False))
backward_gaussian = make_backward(rng.gaussian4)
backward_bounded = make_backward(rng.bounded4)
rows_gaussian = make_rows(rng.gaussian4)
rows_bounded = make_rows(rng.bounded4)
_fill_gaussian, fill_rows_gaussian = make_fill(rng.gaussian4)
fill_bounded, _ = make_fill(rng.bounded4)
