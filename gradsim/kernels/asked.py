"""What a layer asks of a matrix that is never formed (see `deferred`), column by column, in both passes."""

from __future__ import annotations

from . import links
from .bits import keep_out_of_line
from .compiling import kernel, part
from .deferred import gather
from .draws import scatter
from .kinds import INT, VOID
from .layer_ends import branch_input
from .layout import ORTHOGONAL, SCRATCH, SPARE_ROW, D, G, Z
from .links import step
from .shapes import COEFFICIENT_ROWS
from .team import each
from .vectors import clear

# Rows of coefficients: of the query at hand; after room to work them out, those of each column of a step.
OWN, COLUMNS = 0, COEFFICIENT_ROWS


@kernel
def keep(c, count, top, row):
    """Coefficients of the query at hand, from `top` on, as those of a column."""
    keep_out_of_line()
    for k in each(count):
        c[row, top + k] = c[OWN, k]


@part
def asked_of(m, layer):
    """The record that counts what W_l was asked: that of layer 0 where all steps ask one matrix."""
    return m.layers[0 if m.spec.tied else layer]


@part
def first_row(m, layer):
    """Where the queries of W_l begin."""
    return 0 if m.spec.tied else (layer - 1) * m.spec.asked_a_layer


@part
def begin_asking(m, layer):
    """Nothing has been asked of W_l yet: at its only forward pass, or at the first step of a tied chain."""
    if layer == 1 or not m.spec.tied:
        own = asked_of(m, layer)
        own.asked, own.asked_back, own.asked_before = 0, 0, 0


@part
def begin_asking_back(m, layer):
    """Of an untied matrix, what it is asked from now on it is asked backward."""
    if not m.spec.tied:
        own = asked_of(m, layer)
        own.asked_back = 0
        own.asked_before = own.asked


@part
def asking_cost(m, layer, rows, columns):
    """Weights that one query costs as much as."""
    own = asked_of(m, layer)
    if m.spec.asks_blocks:
        return max(rows, columns) * m.spec.columns * (4 + m.spec.columns // 4)
    return max(rows, columns) * (4 + own.asked + own.asked_back)


@part
def queries_of(spec, columns):
    """In how many queries a layer's columns are asked."""
    return 1 if spec.asks_blocks else columns


@step(VOID, INT)
def ask_block_forward(m, layer):
    """Z = W_l X, scaled but for the power of two, at once."""
    spec, own = m.spec, asked_of(m, layer)
    rows, columns, factor = m.layers[layer].width, m.layers[layer - 1].width, m.layers[layer].mantissa
    x, z, k = m.rows[branch_input(spec)], m.rows[Z], spec.batch
    room = (m.grams_64, m.mixed, m.wide)
    links.ask_block(m, m.key, x, columns, k, factor, z, rows, m.queries, m.answers, first_row(m, layer), *room)
    own.asked = k


@step(VOID, INT)
def ask_block_back(m, layer):
    """G = W_l^T D, likewise."""
    spec, own = m.spec, asked_of(m, layer)
    rows, columns, factor = m.layers[layer].width, m.layers[layer - 1].width, m.layers[layer].mantissa
    known = (m.queries, m.answers, first_row(m, layer), own.asked)
    room = (m.grams_64, m.mixed, m.wide)
    links.ask_block_back(
        m, m.key, m.rows[D], rows, spec.columns, factor, m.rows[G], columns, *known, m.back_answers, *room
    )


@step(VOID, INT, INT, INT)
def ask_forward(m, layer, first, last):
    """Columns first .. last of Z = W_l X, scaled but for the power of two."""
    spec, own, c = m.spec, asked_of(m, layer), m.coefficients
    rows, columns = m.layers[layer].width, m.layers[layer - 1].width
    order, top, factor = max(rows, columns), first_row(m, layer), m.layers[layer].mantissa
    for b in range(first, last):
        x, y = m.rows[branch_input(spec)], m.rows[Z]
        if spec.batch > 1:
            gather(x, b, spec.batch, columns, order, m.rows[SCRATCH])
            x, y = m.rows[SCRATCH], m.rows[SPARE_ROW]
        if spec.init == ORTHOGONAL:
            tail = min(rows + own.asked - own.asked_before, order)
            pairs = (m.queries, m.answers, top, own.asked)
            own.asked = links.ask_haar(m, m.key, b, x, order, factor, y, rows, tail, *pairs, m.active, c)
        else:
            mine = (m.queries, m.answers, top, own.asked)
            theirs = (m.back_queries, m.back_answers, 0, own.asked_back)
            own.asked = links.ask_gaussian(m, m.key, b, x, columns, factor, y, rows, *mine, *theirs, m.active, c)
        if spec.batch > 1:
            scatter(y, rows, m.rows[Z], b, spec.batch)
        if spec.tied_gradient:
            if b == 0:
                clear(m.states[layer - 1], 0)
            scatter(c[OWN], own.asked, m.states[layer - 1], b, spec.batch)


@step(VOID, INT, INT, INT)
def ask_back(m, layer, first, last):
    """Columns first .. last of G = W_l^T D, likewise; for a tied weight gradient, D becomes its coefficients."""
    spec, own, c = m.spec, asked_of(m, layer), m.coefficients
    rows, columns = m.layers[layer].width, m.layers[layer - 1].width
    order, top, factor = max(rows, columns), first_row(m, layer), m.layers[layer].mantissa
    for b in range(first, last):
        d, g = m.rows[D], m.rows[G]
        if spec.columns > 1:
            gather(d, b, spec.columns, rows, order, m.rows[SCRATCH])
            d, g = m.rows[SCRATCH], m.rows[SPARE_ROW]
        if spec.init == ORTHOGONAL:
            tail = min(columns + own.asked - own.asked_before, order)
            pairs = (m.answers, m.queries, top, own.asked)
            own.asked = links.ask_haar(m, m.key, b, d, order, factor, g, columns, tail, *pairs, m.active, c)
        else:
            mine = (m.back_queries, m.back_answers, 0, own.asked_back)
            theirs = (m.queries, m.answers, top, own.asked)
            own.asked_back = links.ask_gaussian(m, m.key, b, d, rows, factor, g, columns, *mine, *theirs, m.active, c)
        if spec.columns > 1:
            scatter(g, columns, m.rows[G], b, spec.columns)
        if spec.tied_gradient:
            count = own.asked if spec.init == ORTHOGONAL else own.asked_back
            clear(c[COLUMNS + b], count)
            keep(c, count, 0, COLUMNS + b)
    if spec.tied_gradient and last == spec.columns:
        clear(m.rows[D], 0)
        for b in range(spec.columns):
            scatter(c[COLUMNS + b], m.squares.shape[1], m.rows[D], b, spec.columns)
