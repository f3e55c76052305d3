"""What a kept matrix does, and products of several columns, by a team; signatures are the CPU's."""

from __future__ import annotations

import numpy as np
from numba import cuda

from gradsim.kernels import rng
from gradsim.kernels.layout import GAUSSIAN, RADEMACHER

from .intrinsics import load, store
from .threads import EDGE, SPAN, count_over, each, lanes_for, real

u32, u64 = np.uint32, np.uint64
# Entries of a result that a thread has in hand, along each side: SPAN is as many times EDGE.
HELD = 4
ALL_HELD = HELD**2
# Threads that share the product of one row with a vector.
ABREAST = 32


def list_nonzero(x, n, active):
    """Write the indices of the nonzero entries (NaN among them) of x[:n] into `active`, in order; returns how many."""
    room = cuda.shared.array(0, np.int64)
    thread, threads = cuda.threadIdx.x, cuda.blockDim.x
    span = (n + threads - 1) // threads
    first, last = min(thread * span, n), min((thread + 1) * span, n)
    count = 0
    for i in range(first, last):
        count += x[i] != 0
    room[thread] = count
    cuda.syncthreads()
    at = 0
    for t in range(thread):
        at += room[t]
    for i in range(first, last):
        if x[i] != 0:
            active[at] = i
            at += 1
    cuda.syncthreads()
    return count_over(count)


def combine(matrix, weights, active, count, out, n):
    """out[:n] += sum of weights[r] matrix[r, :n] over the `count` rows r listed in `active`."""
    room = cuda.shared.array(0, real)
    thread, threads = cuda.threadIdx.x, cuda.blockDim.x
    lanes = lanes_for(n, threads)
    slices, lane, own = threads // lanes, thread % lanes, thread // lanes
    zero = out.dtype.type(0)
    for left in range(0, n, lanes):
        j = left + lane
        s0, s1, s2, s3 = zero, zero, zero, zero
        if j < n:
            whole, step, at = count - count % (4 * slices), u64(slices), u64(j)
            for c in range(u64(own), u64(whole), u64(4 * slices)):
                r0, r1 = u64(active[c]), u64(active[c + step])
                r2, r3 = u64(active[c + u64(2) * step]), u64(active[c + u64(3) * step])
                s0 += weights[r0] * matrix[r0, at]
                s1 += weights[r1] * matrix[r1, at]
                s2 += weights[r2] * matrix[r2, at]
                s3 += weights[r3] * matrix[r3, at]
            for c in range(u64(whole + own), u64(count), step):
                r0 = u64(active[c])
                s0 += weights[r0] * matrix[r0, at]
        room[thread] = (s0 + s1) + (s2 + s3)
        cuda.syncthreads()
        if own == 0 and j < n:
            total = out[j]
            for s in range(slices):
                total += room[s * lanes + lane]
            out[j] = total
        cuda.syncthreads()


def row_products(matrix, x, first, last, n, z, at):
    """z[at:] = rows first .. last of the matrix times x."""
    room = cuda.shared.array(0, real)
    thread, threads = cuda.threadIdx.x, cuda.blockDim.x
    lanes = min(ABREAST, threads)
    together, lane, own = threads // lanes, thread % lanes, thread // lanes
    for top in range(first, last, together):
        r = top + own
        total = z.dtype.type(0)
        if r < last:
            row = matrix[r]
            for j in range(u64(lane), u64(n), u64(lanes)):
                total += row[j] * x[j]
        room[thread] = total
        cuda.syncthreads()
        if thread < together and top + thread < last:
            total = room[thread * lanes]
            for k in range(1, lanes):
                total += room[thread * lanes + k]
            z[at + top + thread - first] = total
        cuda.syncthreads()


def transpose(source, target):
    """target = source^T, both square."""
    n = len(source)
    for e in each(n * n):
        target[e // n, e % n] = source[e % n, e // n]


def accumulate(left, right, held):
    """The entries of a square of results that are this thread's += the product of two shared blocks.

    left is SPAN x EDGE and right EDGE x SPAN, row after row; thread (u, v) has rows u, u + EDGE, ... and columns v,
    v + EDGE, ...
    """
    u, v = u32(cuda.threadIdx.x // EDGE), u32(cuda.threadIdx.x % EDGE)
    for k in range(EDGE):
        for a in range(HELD):
            value = left[u32(u32(u + u32(a * EDGE)) * u32(EDGE) + u32(k))]
            for b in range(HELD):
                held[a * HELD + b] += value * right[u32(u32(k * SPAN) + u32(v + u32(b * EDGE)))]


def clear_held(held):
    """No products so far."""
    for e in range(ALL_HELD):
        held[e] = 0


def fetch(source, at, row_step, column_step, top, rows, first, columns, height, width, block):
    """A shared block of so many entries from row `top` and column `first` of a matrix on, zeros beyond the matrix."""
    for e in each(height * width):
        i, j = e // width, e % width
        value = block.dtype.type(0)
        if top + i < rows and first + j < columns:
            value = load(source, at + (top + i) * row_step + (first + j) * column_step)
        block[e] = value


def gemm(transpose_a, transpose_b, m, n, k, a, a0, pitch_a, b, b0, pitch_b, add, c, c0, pitch_c):
    """C = op(A) op(B), or C += it: op(A) is m x k, op(B) k x n, and a0 is where A begins; see `kernels.blas`."""
    room = cuda.shared.array(0, c.dtype)
    left, right = room[: SPAN * EDGE], room[SPAN * EDGE :]
    held = cuda.local.array(ALL_HELD, c.dtype)
    u, v = cuda.threadIdx.x // EDGE, cuda.threadIdx.x % EDGE
    down_a, along_a = (1, pitch_a) if transpose_a else (pitch_a, 1)
    down_b, along_b = (1, pitch_b) if transpose_b else (pitch_b, 1)
    for i0 in range(0, m, SPAN):
        for j0 in range(0, n, SPAN):
            clear_held(held)
            for k0 in range(0, k, EDGE):
                fetch(a, a0, down_a, along_a, i0, m, k0, k, SPAN, EDGE, left)
                fetch(b, b0, down_b, along_b, k0, k, j0, n, EDGE, SPAN, right)
                accumulate(left, right, held)
                cuda.syncthreads()
            for p in range(HELD):
                for r in range(HELD):
                    i, j = i0 + u + p * EDGE, j0 + v + r * EDGE
                    if i < m and j < n:
                        at = c0 + i * pitch_c + j
                        before = load(c, at) if add else c.dtype.type(0)
                        store(c, at, before + held[p * HELD + r])
    cuda.syncthreads()


def draw4(spec, w0, w1, w2, w3, one):
    """Four weights from one block, by the chain's law."""
    if spec.init == GAUSSIAN:
        return rng.gaussian4(w0, w1, w2, w3, one, False)
    return rng.bounded4(w0, w1, w2, w3, one, spec.init == RADEMACHER)


def draw_rows(spec, key, top, first, left):
    """left = EDGE row groups of W from `top` on, quarter after quarter, and EDGE columns from `first` on."""
    k0, k1, k2, k3 = key[0], key[1], key[2], key[3]
    k4 = rng.parity(k0, k1, k2, k3)
    one = left.dtype.type(1)
    for e in each(EDGE * EDGE):
        i, j = e // EDGE, e % EDGE
        w0, w1, w2, w3 = rng.threefry13(k0, k1, k2, k3, k4, u32(first + j), u32(top + i))
        a0, a1, a2, a3 = draw4(spec, w0, w1, w2, w3, one)
        left[e], left[e + EDGE**2], left[e + 2 * EDGE**2], left[e + 3 * EDGE**2] = a0, a1, a2, a3


def multiply_forward(spec, key, rows, width, start, stop, x, y, columns):
    """The rows of Y = W X that are in row groups start .. stop."""
    room = cuda.shared.array(0, real)
    left, right = room[: SPAN * EDGE], room[SPAN * EDGE :]
    held = cuda.local.array(ALL_HELD, real)
    u, v = cuda.threadIdx.x // EDGE, cuda.threadIdx.x % EDGE
    q = (rows + 3) // 4
    for i0 in range(start, stop, EDGE):
        for b0 in range(0, columns, SPAN):
            clear_held(held)
            for k0 in range(0, width, EDGE):
                draw_rows(spec, key, i0, k0, left)
                fetch(x, 0, columns, 1, k0, width, b0, columns, EDGE, SPAN, right)
                accumulate(left, right, held)
                cuda.syncthreads()
            for p in range(HELD):
                for r in range(HELD):
                    i, b = i0 + u, b0 + v + r * EDGE
                    if i < stop and i + p * q < rows and b < columns:
                        y[(i + p * q) * columns + b] = held[p * HELD + r]


def multiply_backward(spec, key, rows, width, start, stop, x, y, columns):
    """Y += what row groups start .. stop add to W^T X."""
    room = cuda.shared.array(0, real)
    left, right = room[: SPAN * EDGE], room[SPAN * EDGE :]
    held = cuda.local.array(ALL_HELD, real)
    u, v = cuda.threadIdx.x // EDGE, cuda.threadIdx.x % EDGE
    k0, k1, k2, k3 = key[0], key[1], key[2], key[3]
    k4 = rng.parity(k0, k1, k2, k3)
    one = y.dtype.type(1)
    q, deep = (rows + 3) // 4, EDGE // 4
    for j0 in range(0, width, SPAN):
        for b0 in range(0, columns, SPAN):
            clear_held(held)
            for i0 in range(start, stop, deep):
                for e in each(deep * SPAN):
                    i, j = e // SPAN, e % SPAN
                    w0, w1, w2, w3 = rng.threefry13(k0, k1, k2, k3, k4, u32(j0 + j), u32(i0 + i))
                    a0, a1, a2, a3 = draw4(spec, w0, w1, w2, w3, one)
                    at = j * EDGE + i
                    left[at], left[at + deep], left[at + 2 * deep], left[at + 3 * deep] = a0, a1, a2, a3
                for e in each(EDGE * SPAN):
                    i, b = i0 + e // SPAN % deep, b0 + e % SPAN
                    row = i + e // SPAN // deep * q
                    inside = i < stop and row < rows and b < columns
                    right[e] = x[row * columns + b] if inside else y.dtype.type(0)
                cuda.syncthreads()
                accumulate(left, right, held)
                cuda.syncthreads()
            for p in range(HELD):
                for r in range(HELD):
                    j, b = j0 + u + p * EDGE, b0 + v + r * EDGE
                    if j < width and b < columns:
                        y[j * columns + b] += held[p * HELD + r]


def multiply_drawn(spec, key, slab, spare, rows, width, first, last, x, y, columns, transposed):
    """Slabs first .. last of Y = W X, or Y += what they add to W^T X; W is drawn a square at a time."""
    q, quarter = (rows + 3) // 4, len(slab) // 4
    start, stop = first * quarter, min(last * quarter, q)
    if transposed:
        multiply_backward(spec, key, rows, width, start, stop, x, y, columns)
    else:
        multiply_forward(spec, key, rows, width, start, stop, x, y, columns)
    cuda.syncthreads()
