"""What a layer's matrix does, Z = W X and G = W^T D, whichever way W exists; both in parts that can be resumed.

Scales are left out: W here has unit-variance entries (orthogonal and identity: is the matrix itself). A part takes
work units first .. last; a pass is complete at as many units as its beginning said. One column goes through loops that
draw W where it is used; several share a draw and go through matrix products. A deferred W is asked (see `asked`), its
scale included.
"""

from __future__ import annotations

from . import keys, links
from .asked import (
    ask_back,
    ask_block_back,
    ask_block_forward,
    ask_forward,
    asking_cost,
    begin_asking,
    begin_asking_back,
    queries_of,
)
from .compiling import part
from .layout import (
    DEFERRED,
    DRAWN,
    GAUSSIAN,
    MATRIX,
    ORTHOGONAL,
    RADEMACHER,
    REFLECTED,
    SCALED,
    SCRATCH,
    SPARE_ROW,
    STORED,
    TRANSPOSED,
    D,
    G,
    Z,
)
from .matrices import list_nonzero
from .shapes import LANES
from .streams import set_key
from .vectors import clear, copy
from .walk import whole_lanes

NARROW = 4 * LANES  # rows below which vectors run along a row in the forward pass
PRODUCT_COST = 25  # columns through a matrix product cost about as much as drawing the weight


@part
def point_at_weights(m, cell, chain, layer, backward):
    """Point the key at what W_l is drawn from."""
    if m.spec.action == DEFERRED:
        set_key(m.key, cell, chain, layer, keys.ANSWER_BACK if backward else keys.ANSWER)
    elif m.spec.action != STORED:
        set_key(m.key, cell, chain, layer, keys.WEIGHT)


@part
def begin_forward(m, x, layer, rows, columns):
    """Clear z, list the columns of W that matter; returns the number of work units of this layer's forward pass."""
    action, batch = m.spec.action, m.spec.batch
    if action == DEFERRED:
        begin_asking(m, layer)
    elif batch == 1 or action == REFLECTED:
        clear(m.rows[Z], 0)  # what matrix products write they do not add to
    if action == REFLECTED:
        if rows < columns:
            copy(x, m.rows[Z], columns * batch)
        units = min(rows, columns)
    elif action == DEFERRED:
        units = queries_of(m.spec, batch)
    elif action == DRAWN and batch > 1:
        units = slabs(m.slab, rows)
    elif action == DRAWN and rows < NARROW:
        units = (rows + 3) // 4
    elif batch == 1 and action != SCALED:
        units = list_nonzero(x, columns, m.active)
    else:
        units = 1
    return units


@part
def forward_cost(m, layer, rows, columns):
    """Weights per work unit of the forward pass."""
    action = m.spec.action
    if action == DEFERRED:
        cost = asking_cost(m, layer, rows, columns)
    elif m.spec.batch > 1:
        cost = shared_cost(action, m.slab, m.spec.batch, rows, columns)
    elif action == DRAWN:
        cost = 4 * whole_lanes(columns) if rows < NARROW else rows
    else:
        cost = rows // 16 + 1 if action == STORED else max(rows, columns)
    return cost


@part
def slabs(slab, rows):
    """Work units of a layer whose matrix is drawn a slab at a time."""
    quarter = len(slab) // 4
    return ((rows + 3) // 4 + quarter - 1) // quarter


@part
def shared_cost(action, slab, shared, rows, columns):
    """Weights per work unit where so many columns share W."""
    if action == DRAWN:
        cost = len(slab) * whole_lanes(columns) * (PRODUCT_COST + shared) // PRODUCT_COST
    elif action == STORED:
        cost = rows * columns * shared // PRODUCT_COST + 1
    else:
        cost = max(rows, columns) * (PRODUCT_COST + 4 * shared) // PRODUCT_COST
    return cost


@part
def forward_part(m, x, layer, rows, columns, first, last):
    """Work units first .. last of Z = W X."""
    spec, key = m.spec, m.key
    q = (rows + 3) // 4
    z, scratch = m.rows[Z], m.rows[SCRATCH]
    signs = spec.init == RADEMACHER
    if spec.asks_blocks and spec.batch > 1:
        ask_block_forward(m, layer)
    elif spec.action == DEFERRED:
        ask_forward(m, layer, first, last)
    elif spec.batch > 1:
        multiply_columns(m, x, z, rows, columns, first, last, spec.batch, False)
    elif spec.action == DRAWN:
        if rows < NARROW:
            n = whole_lanes(columns)
            if spec.init == GAUSSIAN:
                links.forward_narrow_gaussian(m, key, signs, x, n, first, last, z, q, scratch)
            else:
                links.forward_narrow_bounded(m, key, signs, x, n, first, last, z, q, scratch)
        elif spec.init == GAUSSIAN:
            links.forward_gaussian(m, key, signs, x, m.active, first, last, z, q)
        else:
            links.forward_bounded(m, key, signs, x, m.active, first, last, z, q)
    elif spec.action == REFLECTED:
        if rows >= columns:
            links.apply_q(m, key, x[:columns], rows, first, last, z, scratch)
        else:
            links.apply_q_transposed(m, key, columns, first, last, z, scratch)
    elif spec.action == STORED:
        links.combine(m, m.squares[TRANSPOSED], x, m.active[first:last], last - first, z, rows)
    else:
        copy(x, z, rows)


@part
def multiply_columns(m, x, y, rows, columns, first, last, shared, transposed):
    """Work units first .. last of Y = W X, or of what W^T X adds to Y, for several columns; W is rows x columns."""
    action, scratch, spare = m.spec.action, m.rows[SCRATCH], m.rows[SPARE_ROW]
    # Q is tall: W where that is taller than wide, and W^T where it is wider.
    plain = (rows >= columns) != transposed
    if action == DRAWN:
        links.multiply_drawn(m, m.spec, m.key, m.slab, scratch, rows, columns, first, last, x, y, shared, transposed)
    elif action == REFLECTED and plain:
        k, order = min(rows, columns), max(rows, columns)
        links.apply_q_columns(m, m.key, x, k, order, first, last, y, scratch, shared, spare)
    elif action == REFLECTED:
        links.apply_q_transposed_columns(m, m.key, max(rows, columns), first, last, y, scratch, shared, spare)
    elif action == STORED:
        links.apply_kept(m, m.squares[MATRIX], transposed, x, y, rows, shared)
    else:
        copy(x, y, rows * shared)


@part
def begin_backward(m, layer, rows, columns):
    """Clear g, which d has been taken from; returns the number of work units of this layer's backward pass."""
    action, shared = m.spec.action, m.spec.columns
    units = 1
    if action != DEFERRED:
        clear(m.rows[G], 0)
    if action == DRAWN:
        units = slabs(m.slab, rows) if shared > 1 else (rows + 3) // 4
    elif action == REFLECTED:
        if rows >= columns:
            copy(m.rows[D], m.rows[G], rows * shared)
        units = min(rows, columns)
    elif action == STORED and shared == 1:
        units = list_nonzero(m.rows[D], rows, m.active)
    elif action == DEFERRED:
        begin_asking_back(m, layer)
        units = queries_of(m.spec, shared)
    return units


@part
def backward_cost(m, layer, rows, columns):
    """Weights per work unit of the backward pass."""
    action = m.spec.action
    if action == DEFERRED:
        cost = asking_cost(m, layer, rows, columns)
    elif m.spec.columns > 1:
        cost = shared_cost(action, m.slab, m.spec.columns, rows, columns)
    elif action == DRAWN:
        cost = 4 * whole_lanes(columns)
    else:
        cost = columns // 16 + 1 if action == STORED else max(rows, columns)
    return cost


@part
def backward_part(m, layer, rows, columns, first, last):
    """Work units first .. last of G = W^T D."""
    spec, key = m.spec, m.key
    q = (rows + 3) // 4
    d, g, scratch = m.rows[D], m.rows[G], m.rows[SCRATCH]
    signs = spec.init == RADEMACHER
    if spec.asks_blocks:
        ask_block_back(m, layer)
    elif spec.action == DEFERRED:
        ask_back(m, layer, first, last)
    elif spec.columns > 1:
        multiply_columns(m, d, g, rows, columns, first, last, spec.columns, True)
    elif spec.action == DRAWN:
        n = whole_lanes(columns)
        if spec.init == GAUSSIAN:
            links.backward_gaussian(m, key, signs, d, first, last, g, n, q)
        else:
            links.backward_bounded(m, key, signs, d, first, last, g, n, q)
    elif spec.action == REFLECTED:
        if rows >= columns:
            links.apply_q_transposed(m, key, rows, first, last, g, scratch)
        else:
            links.apply_q(m, key, d[:rows], columns, first, last, g, scratch)
    elif spec.action == STORED:
        links.combine(m, m.squares[MATRIX], d, m.active[first:last], last - first, g, columns)
    else:
        copy(d, g, columns)


@part
def store_units(spec, n):
    """Work units of a tied chain's matrix: reflectors, or groups of four rows."""
    return n if spec.init == ORTHOGONAL else (n + 3) // 4


@part
def store_part(m, first, last):
    """Work units first .. last of the matrix of a tied chain; the last part transposes it."""
    spec, key, matrix, scratch = m.spec, m.key, m.squares[MATRIX], m.rows[SCRATCH]
    n = len(matrix)
    q = (n + 3) // 4
    signs = spec.init == RADEMACHER
    if spec.init == ORTHOGONAL:
        if first == 0:
            for i in range(n):
                clear(matrix[i], 0)
        links.build_q(m, key, first, last, matrix, scratch, m.rows[Z])
    elif spec.init == GAUSSIAN:
        links.rows_gaussian(m, key, signs, first, last, matrix, 0, q, n, scratch, n)
    else:
        links.rows_bounded(m, key, signs, first, last, matrix, 0, q, n, scratch, n)
    if last == store_units(spec, n):
        links.transpose(m, matrix, m.squares[TRANSPOSED])
