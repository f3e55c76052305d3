"""What a layer's matrix does, Z = W X and G = W^T D, whichever way W exists; both in parts that can be resumed.

Scales are left out: W here has unit-variance entries (orthogonal and identity: is the matrix itself). A part takes
work units first .. first + `units` and returns where it stopped; a pass is complete at as many units as its beginning
said. One column goes through loops that draw W where it is used; several share a draw and go through matrix products.
"""

from __future__ import annotations

import numpy as np

from . import batched, draws
from .compiling import part
from .layout import (
    DRAWN,
    GAUSSIAN,
    MATRIX,
    ORTHOGONAL,
    RADEMACHER,
    REFLECTED,
    SCRATCH,
    SPARE_ROW,
    STORED,
    TRANSPOSED,
    D,
    G,
    Z,
)
from .matrices import combine, list_nonzero, transpose
from .orthogonal import apply_q, apply_q_transposed, build_q
from .shapes import LANES
from .vectors import clear, copy

NARROW = 4 * LANES  # rows below which vectors run along a row in the forward pass
PRODUCT_COST = 25  # columns through a matrix product cost about as much as drawing the weight


@part
def lanes_of(n):
    """n rounded up to whole lanes."""
    return (n + LANES - 1) // LANES * LANES


@part
def begin_forward(spec, vectors, slab, active, x, rows, columns):
    """Clear z, list the columns of W that matter; returns the number of work units of this layer's forward pass."""
    if spec.batch == 1 or spec.action == REFLECTED:
        clear(vectors[Z], 0)  # what matrix products write they do not add to
    if spec.action == REFLECTED:
        if rows < columns:
            copy(x, vectors[Z], columns * spec.batch)
        return min(rows, columns)
    if spec.action == DRAWN and spec.batch > 1:
        return slabs(slab, rows)
    if spec.action == DRAWN and rows < NARROW:
        return (rows + 3) // 4
    if spec.batch == 1 and (spec.action == DRAWN or spec.action == STORED):
        return list_nonzero(x, columns, active)
    return 1


@part
def forward_cost(spec, slab, rows, columns):
    """Weights per work unit of the forward pass."""
    if spec.batch > 1:
        return shared_cost(spec, slab, spec.batch, rows, columns)
    if spec.action == DRAWN:
        return 4 * lanes_of(columns) if rows < NARROW else rows
    if spec.action == STORED:
        return rows // 16 + 1
    return max(rows, columns)


@part
def slabs(slab, rows):
    """Work units of a layer whose matrix is drawn a slab at a time."""
    quarter = len(slab) // 4
    return ((rows + 3) // 4 + quarter - 1) // quarter


@part
def shared_cost(spec, slab, shared, rows, columns):
    """Weights per work unit where so many columns share W."""
    if spec.action == DRAWN:
        return len(slab) * lanes_of(columns) * (PRODUCT_COST + shared) // PRODUCT_COST
    if spec.action == STORED:
        return rows * columns * shared // PRODUCT_COST + 1
    return max(rows, columns) * (PRODUCT_COST + 4 * shared) // PRODUCT_COST


@part
def forward_part(spec, vectors, squares, slab, active, key, x, rows, columns, first, last):
    """Work units first .. last of Z = W X."""
    q = (rows + 3) // 4
    z, scratch, spare = vectors[Z], vectors[SCRATCH], vectors[SPARE_ROW]
    shared = spec.batch
    if spec.action == DRAWN:
        if shared > 1:
            batched.forward_drawn(spec, key, slab, scratch, rows, columns, first, last, x, z, shared)
        elif rows < NARROW:
            n = lanes_of(columns)
            if spec.init == GAUSSIAN:
                draws.forward_narrow_gaussian(key, False, x, n, first, last, z, q, scratch)
            else:
                draws.forward_narrow_bounded(key, spec.init == RADEMACHER, x, n, first, last, z, q, scratch)
        elif spec.init == GAUSSIAN:
            draws.forward_gaussian(key, False, x, active, first, last, z, q)
        else:
            draws.forward_bounded(key, spec.init == RADEMACHER, x, active, first, last, z, q)
    elif spec.action == REFLECTED:
        if shared > 1:
            if rows >= columns:
                batched.apply_q_columns(key, x, columns, rows, first, last, z, scratch, shared, spare)
            else:
                batched.apply_q_transposed_columns(key, columns, first, last, z, scratch, shared, spare)
        elif rows >= columns:
            apply_q(key, x[:columns], rows, first, last, z, scratch)
        else:
            apply_q_transposed(key, columns, first, last, z, scratch)
    elif spec.action == STORED:
        if shared > 1:
            batched.apply_kept(squares[MATRIX], np.int64(0), x, z, rows, shared)
        else:
            combine(squares[TRANSPOSED], x, active[first:last], last - first, z, rows)
    else:
        copy(x, z, rows * shared)


@part
def begin_backward(spec, vectors, slab, active, rows, columns):
    """Clear g, which d has been taken from; returns the number of work units of this layer's backward pass."""
    clear(vectors[G], 0)
    if spec.action == DRAWN:
        return slabs(slab, rows) if spec.columns > 1 else (rows + 3) // 4
    if spec.action == REFLECTED:
        if rows >= columns:
            copy(vectors[D], vectors[G], rows * spec.columns)
        return min(rows, columns)
    if spec.action == STORED and spec.columns == 1:
        return list_nonzero(vectors[D], rows, active)
    return 1


@part
def backward_cost(spec, slab, rows, columns):
    """Weights per work unit of the backward pass."""
    if spec.columns > 1:
        return shared_cost(spec, slab, spec.columns, rows, columns)
    if spec.action == DRAWN:
        return 4 * lanes_of(columns)
    if spec.action == STORED:
        return columns // 16 + 1
    return max(rows, columns)


@part
def backward_part(spec, vectors, squares, slab, active, key, rows, columns, first, last):
    """Work units first .. last of G = W^T D."""
    q = (rows + 3) // 4
    d, g, scratch, spare = vectors[D], vectors[G], vectors[SCRATCH], vectors[SPARE_ROW]
    shared = spec.columns
    if spec.action == DRAWN:
        n = lanes_of(columns)
        if shared > 1:
            batched.backward_drawn(spec, key, slab, scratch, rows, columns, first, last, d, g, shared)
        elif spec.init == GAUSSIAN:
            draws.backward_gaussian(key, False, d, first, last, g, n, q)
        else:
            draws.backward_bounded(key, spec.init == RADEMACHER, d, first, last, g, n, q)
    elif spec.action == REFLECTED:
        if shared > 1:
            if rows >= columns:
                batched.apply_q_transposed_columns(key, rows, first, last, g, scratch, shared, spare)
            else:
                batched.apply_q_columns(key, d, rows, columns, first, last, g, scratch, shared, spare)
        elif rows >= columns:
            apply_q_transposed(key, rows, first, last, g, scratch)
        else:
            apply_q(key, d[:rows], columns, first, last, g, scratch)
    elif spec.action == STORED:
        if shared > 1:
            batched.apply_kept(squares[MATRIX], np.int64(1), d, g, columns, shared)
        else:
            combine(squares[MATRIX], d, active[first:last], last - first, g, columns)
    else:
        copy(d, g, columns * shared)


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
        draws.rows_gaussian(key, False, first, last, matrix, np.int64(0), (n + 3) // 4, n, vectors[SCRATCH], n)
    else:
        signs = spec.init == RADEMACHER
        draws.rows_bounded(key, signs, first, last, matrix, np.int64(0), (n + 3) // 4, n, vectors[SCRATCH], n)
    if last == store_units(spec, n):
        transpose(matrix, squares[TRANSPOSED])
