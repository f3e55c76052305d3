"""What a layer's matrix does, z = W h and g = W^T d, whichever way W exists; both in parts that can be resumed.

Scales are left out: W here has unit-variance entries (orthogonal and identity: is the matrix itself). A part takes
work units first .. first + `units` and returns where it stopped; a pass is complete at `passes(...)`.
"""

from __future__ import annotations

from . import draws
from .compiling import part
from .layout import (
    DRAWN,
    GAUSSIAN,
    MATRIX,
    ORTHOGONAL,
    RADEMACHER,
    REFLECTED,
    SCRATCH,
    STORED,
    TRANSPOSED,
    D,
    G,
    H,
    Z,
)
from .matrices import combine, list_nonzero, transpose
from .orthogonal import apply_q, apply_q_transposed, build_q
from .shapes import LANES
from .vectors import clear, copy

NARROW = 4 * LANES  # rows below which vectors run along a row in the forward pass


@part
def lanes_of(n):
    """n rounded up to whole lanes."""
    return (n + LANES - 1) // LANES * LANES


@part
def begin_forward(spec, vectors, active, rows, columns):
    """Clear z, list the columns that matter; returns the number of work units of this layer's forward pass."""
    clear(vectors[Z], 0)
    if spec.action == DRAWN:
        if rows < NARROW:
            return (rows + 3) // 4
        return list_nonzero(vectors[H], columns, active)
    if spec.action == REFLECTED:
        if rows < columns:
            copy(vectors[H], vectors[Z], columns)
        return min(rows, columns)
    if spec.action == STORED:
        return list_nonzero(vectors[H], columns, active)
    return 1


@part
def forward_cost(spec, rows, columns):
    """Weights per work unit of the forward pass."""
    if spec.action == DRAWN:
        return 4 * lanes_of(columns) if rows < NARROW else rows
    if spec.action == STORED:
        return rows // 16 + 1
    return max(rows, columns)


@part
def forward_part(spec, vectors, squares, active, key, rows, columns, first, last):
    """Work units first .. last of z = W h."""
    q = (rows + 3) // 4
    h, z, scratch = vectors[H], vectors[Z], vectors[SCRATCH]
    if spec.action == DRAWN:
        if rows < NARROW:
            n = lanes_of(columns)
            if spec.init == GAUSSIAN:
                draws.forward_narrow_gaussian(key, False, h, n, first, last, z, q, scratch)
            else:
                draws.forward_narrow_bounded(key, spec.init == RADEMACHER, h, n, first, last, z, q, scratch)
        elif spec.init == GAUSSIAN:
            draws.forward_gaussian(key, False, h, active, first, last, z, q)
        else:
            draws.forward_bounded(key, spec.init == RADEMACHER, h, active, first, last, z, q)
    elif spec.action == REFLECTED:
        if rows >= columns:
            apply_q(key, h[:columns], rows, first, last, z, scratch)
        else:
            apply_q_transposed(key, columns, first, last, z, scratch)
    elif spec.action == STORED:
        combine(squares[TRANSPOSED], h, active[first:last], last - first, z, rows)
    else:
        copy(h, z, rows)


@part
def begin_backward(spec, vectors, active, rows, columns):
    """Clear g, which d has been taken from; returns the number of work units of this layer's backward pass."""
    clear(vectors[G], 0)
    if spec.action == DRAWN:
        return (rows + 3) // 4
    if spec.action == REFLECTED:
        if rows >= columns:
            copy(vectors[D], vectors[G], rows)
        return min(rows, columns)
    if spec.action == STORED:
        return list_nonzero(vectors[D], rows, active)
    return 1


@part
def backward_cost(spec, rows, columns):
    """Weights per work unit of the backward pass."""
    if spec.action == DRAWN:
        return 4 * lanes_of(columns)
    if spec.action == STORED:
        return columns // 16 + 1
    return max(rows, columns)


@part
def backward_part(spec, vectors, squares, active, key, rows, columns, first, last):
    """Work units first .. last of g = W^T d."""
    q = (rows + 3) // 4
    d, g, scratch = vectors[D], vectors[G], vectors[SCRATCH]
    if spec.action == DRAWN:
        n = lanes_of(columns)
        if spec.init == GAUSSIAN:
            draws.backward_gaussian(key, False, d, first, last, g, n, q)
        else:
            draws.backward_bounded(key, spec.init == RADEMACHER, d, first, last, g, n, q)
    elif spec.action == REFLECTED:
        if rows >= columns:
            apply_q_transposed(key, rows, first, last, g, scratch)
        else:
            apply_q(key, d[:rows], columns, first, last, g, scratch)
    elif spec.action == STORED:
        combine(squares[MATRIX], d, active[first:last], last - first, g, columns)
    else:
        copy(d, g, columns)


@part
def store_units(spec, n):
    """Work units of a tied chain's matrix: reflectors, or groups of four rows."""
    return n if spec.init == ORTHOGONAL else (n + 3) // 4


@part
def store_part(spec, vectors, squares, key, first, last):
    """Work units first .. last of the matrix of a tied chain; the last part transposes it."""
    matrix = squares[MATRIX]
    n = len(matrix)
    if spec.init == ORTHOGONAL:
        if first == 0:
            for i in range(n):
                clear(matrix[i], 0)
        build_q(key, first, last, matrix, vectors[SCRATCH], vectors[Z])
    elif spec.init == GAUSSIAN:
        draws.rows_gaussian(key, False, first, last, matrix, vectors[SCRATCH], n, (n + 3) // 4)
    else:
        signs = spec.init == RADEMACHER
        draws.rows_bounded(key, signs, first, last, matrix, vectors[SCRATCH], n, (n + 3) // 4)
    if last == store_units(spec, n):
        transpose(matrix, squares[TRANSPOSED])
