"""What a step of a gated chain asks of matrices that are never formed (see `deferred`), column by column.

Gaussian gates, one below the other, are one Gaussian matrix. Orthogonal ones are asked one by one: their queries
forward are the same, those backward are not.
"""

from __future__ import annotations

from . import keys, links
from .asked import COLUMNS, OWN, keep
from .compiling import kernel, part
from .deferred import gather
from .draws import scatter
from .gated_layout import COLUMN, SCRATCH, G, H
from .layout import ORTHOGONAL
from .streams import set_key
from .team import each
from .vectors import clear


@part
def begin_asking(m):
    """Nothing has been asked yet."""
    for gate in range(m.spec.gates):
        m.asked[gate] = 0
    m.asked_back[0] = 0


@kernel
def add_to_column(x, n, block, column, columns):
    """One column of an n x `columns` block += x."""
    for i in each(n):
        block[i * columns + column] += x[i]


@part
def ask_forward(m, cell, chain, layer, first, last):
    """Columns first .. last of Z = W H, all gates."""
    spec, n, c = m.spec, m.spec.width, m.coefficients
    x, y, one = m.rows[SCRATCH], m.rows[COLUMN], 1.0
    set_key(m.key, cell, chain, layer, keys.ANSWER)
    for b in range(first, last):
        gather(m.rows[H], b, spec.batch, n, n, x)
        if spec.init == ORTHOGONAL:
            for gate in range(spec.gates):
                stream, top = b * spec.gates + gate, gate * (spec.asked_a_gate + 1)
                pairs = (m.queries, m.answers, top, m.asked[gate])
                m.asked[gate] = links.ask_haar(m, m.key, stream, x, n, one, y, n, n, *pairs, m.active, c)
                scatter(y, n, m.gates[gate * n * spec.batch :], b, spec.batch)
        else:
            mine = (m.queries, m.answers, 0, m.asked[0])
            theirs = (m.back_queries, m.back_answers, 0, m.asked_back[0])
            m.asked[0] = links.ask_gaussian(
                m, m.key, b, x, n, one, m.stacked, spec.gates * n, *mine, *theirs, m.active, c
            )
            scatter(m.stacked, spec.gates * n, m.gates, b, spec.batch)
        if spec.wants_weight:
            if b == 0:
                clear(m.states[layer - 1], 0)
            # What orthogonal gates are asked forward is the same of all.
            scatter(c[OWN], m.asked[0], m.states[layer - 1], b, spec.batch)


@part
def ask_back(m, cell, chain, layer, first, last):
    """Columns first .. last of G = W^T D; of a weight gradient, D becomes its coefficients in the queries."""
    spec, n, c = m.spec, m.spec.width, m.coefficients
    x, y, one = m.rows[SCRATCH], m.rows[COLUMN], 1.0
    set_key(m.key, cell, chain, layer, keys.ANSWER_BACK)
    for b in range(first, last):
        if spec.wants_weight:
            clear(c[COLUMNS + b], 0)
        if spec.init == ORTHOGONAL:
            for gate in range(spec.gates):
                stream, top = b * spec.gates + gate, gate * (spec.asked_a_gate + 1)
                gather(m.gates[gate * n * spec.columns :], b, spec.columns, n, n, x)
                pairs = (m.answers, m.queries, top, m.asked[gate])
                m.asked[gate] = links.ask_haar(m, m.key, stream, x, n, one, y, n, n, *pairs, m.active, c)
                add_to_column(y, n, m.rows[G], b, spec.columns)
                if spec.wants_weight:
                    keep(c, m.asked[gate], gate * spec.asked_a_gate, COLUMNS + b)
        else:
            gather(m.gates, b, spec.columns, spec.gates * n, spec.gates * n, m.stacked)
            mine = (m.back_queries, m.back_answers, 0, m.asked_back[0])
            theirs = (m.queries, m.answers, 0, m.asked[0])
            m.asked_back[0] = links.ask_gaussian(
                m, m.key, b, m.stacked, spec.gates * n, one, y, n, *mine, *theirs, m.active, c
            )
            scatter(y, n, m.rows[G], b, spec.columns)
            if spec.wants_weight:
                keep(c, m.asked_back[0], 0, COLUMNS + b)
    if spec.wants_weight and last == spec.columns:
        clear(m.gates, 0)
        for b in range(spec.columns):
            scatter(c[COLUMNS + b], spec.outer_rows, m.gates, b, spec.columns)
