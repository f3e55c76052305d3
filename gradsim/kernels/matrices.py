"""A drawn matrix that is used again and again: what a recurrent chain does with its one W.

`combine` adds multiples of chosen rows, four rows a pass, so the target is read and written a quarter as often and the
rows of silent units are never read. With W and its transpose both held, W h and W^T d are the same operation.
"""

from __future__ import annotations

from .bits import keep_out_of_line, prefer_wide_vectors
from .compiling import kernel, reduction

TILE = 32  # rows and columns of a tile that stays in the first-level cache while it is transposed


@kernel
def combine(matrix, weights, active, count, out, n):
    """out[:n] += sum of weights[r] matrix[r, :n] over the `count` rows r listed in `active`."""
    prefer_wide_vectors()
    keep_out_of_line()
    whole = count - count % 4
    for c in range(0, whole, 4):
        r0, r1, r2, r3 = active[c], active[c + 1], active[c + 2], active[c + 3]
        w0, w1, w2, w3 = weights[r0], weights[r1], weights[r2], weights[r3]
        m0, m1, m2, m3 = matrix[r0], matrix[r1], matrix[r2], matrix[r3]
        for j in range(n):
            out[j] += (w0 * m0[j] + w1 * m1[j]) + (w2 * m2[j] + w3 * m3[j])
    for c in range(whole, count):
        r0 = active[c]
        w0 = weights[r0]
        m0 = matrix[r0]
        for j in range(n):
            out[j] += w0 * m0[j]


@reduction
def row_products(matrix, x, first, last, n, z, at):
    """z[at:] = rows first .. last of the matrix times x; groups of four rows from `first` on."""
    prefer_wide_vectors()
    keep_out_of_line()
    zero = z.dtype.type(0)
    whole = first + (last - first) // 4 * 4
    for r in range(first, whole, 4):
        m0, m1, m2, m3 = matrix[r], matrix[r + 1], matrix[r + 2], matrix[r + 3]
        t0 = t1 = t2 = t3 = zero
        for j in range(n):
            v = x[j]
            t0 += m0[j] * v
            t1 += m1[j] * v
            t2 += m2[j] * v
            t3 += m3[j] * v
        s = at + r - first
        z[s], z[s + 1], z[s + 2], z[s + 3] = t0, t1, t2, t3
    for r in range(whole, last):
        m0 = matrix[r]
        t0 = zero
        for j in range(n):
            t0 += m0[j] * x[j]
        z[at + r - first] = t0


@kernel
def transpose(source, target):
    """target = source^T, both square."""
    keep_out_of_line()
    n = len(source)
    for i0 in range(0, n, TILE):
        i1 = min(i0 + TILE, n)
        for j0 in range(0, n, TILE):
            j1 = min(j0 + TILE, n)
            for j in range(j0, j1):
                for i in range(i0, i1):
                    target[j, i] = source[i, j]


@kernel
def list_nonzero(x, n, active):
    """Write the indices of the nonzero entries (NaN among them) of x[:n] into `active`; returns how many."""
    keep_out_of_line()
    count = 0
    for i in range(n):
        active[count] = i
        count += x[i] != 0
    return count
