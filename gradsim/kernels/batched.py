"""What a matrix does to several columns at once: one draw of W serves them all, by matrix products.

Columns are a batch's inputs, or several gradients of one chain. A vector of n units is an n x C block, row-major. W is
drawn a slab at a time, small enough for the second-level cache, and used from there.
"""

from __future__ import annotations

from . import draws
from .bits import keep_out_of_line
from .blas import gemm
from .compiling import kernel, part
from .layout import GAUSSIAN, RADEMACHER
from .orthogonal import reflector
from .shapes import LANES
from .team import each


@part
def draw_slab(spec, key, slab, spare, rows, width, first, last, stride):
    """Row groups first .. last of W into `slab`, the four rows of a group `stride` apart."""
    lanes = (width + LANES - 1) // LANES * LANES  # what lies beyond the width is drawn and not used
    if spec.init == GAUSSIAN:
        draws.rows_gaussian(key, False, first, last, slab, first, stride, rows, spare, lanes)
    else:
        draws.rows_bounded(key, spec.init == RADEMACHER, first, last, slab, first, stride, rows, spare, lanes)


@part
def runs_of(q, rows, start, stop, stride, r):
    """Run r of a slab's rows that lie next to each other in W: its first row, and how many there are.

    A slab that holds all of W is one run; else each quarter is one.
    """
    if stride == q:
        return 0, rows if r == 0 else 0
    top = r * q + start
    return top, min(stop - start, rows - top)


@kernel
def multiply_drawn(spec, key, slab, spare, rows, width, first, last, x, y, columns, transposed):
    """Slabs first .. last of Y = W X, or Y += what they add to W^T X.

    They are cut in one way only, so that sums have one order.
    """
    keep_out_of_line()
    q = (rows + 3) // 4
    quarter, pitch = len(slab) // 4, slab.shape[1]
    stride = min(quarter, q)
    for start in range(first * quarter, min(last * quarter, q), quarter):
        stop = min(start + quarter, q)
        draw_slab(spec, key, slab, spare, rows, width, start, stop, stride)
        for r in range(4):
            top, count = runs_of(q, rows, start, stop, stride, r)
            at, own = r * stride * pitch, top * columns
            if count > 0 and transposed:
                gemm(True, False, width, columns, count, slab, at, pitch, x, own, columns, True, y, 0, columns)
            elif count > 0:
                gemm(False, False, count, columns, width, slab, at, pitch, x, 0, columns, False, y, own, columns)


@kernel
def apply_kept(matrix, transposed, x, y, n, columns):
    """Y = W X or W^T X of a square matrix that is kept."""
    keep_out_of_line()
    gemm(transposed, False, n, columns, n, matrix, 0, matrix.shape[1], x, 0, columns, False, y, 0, columns)


@kernel
def reflect_columns(v, length, factor, y, start, columns, along):
    """Rows start .. of Y <- H times them, H = 1 - factor v v^T."""
    keep_out_of_line()
    for b in range(columns):
        along[b] = 0
    for r in range(length):
        at = (start + r) * columns
        for b in range(columns):
            along[b] += v[r] * y[at + b]
    for r in range(length):
        at = (start + r) * columns
        step = factor * v[r]
        for b in range(columns):
            y[at + b] -= step * along[b]


@kernel
def apply_q_columns(key, u, k, order, first, last, y, x, columns, along):
    """`orthogonal.apply_q` for k x C U."""
    keep_out_of_line()
    for s in range(first, last):
        i = k - 1 - s
        factor, sign = reflector(key, i, order, x)
        for b in range(i * columns, (i + 1) * columns):
            y[b] = sign * u[b]
        reflect_columns(x, order - i, factor, y, i, columns, along)


@kernel
def apply_q_transposed_columns(key, order, first, last, y, x, columns, along):
    """`orthogonal.apply_q_transposed` for order x C Y."""
    keep_out_of_line()
    for i in range(first, last):
        factor, sign = reflector(key, i, order, x)
        reflect_columns(x, order - i, factor, y, i, columns, along)
        own = y[i * columns : (i + 1) * columns]
        for b in each(columns):
            own[b] *= sign
