"""What is done once a chain: its matrix where that is kept, h_0, g_L, and what is written at the end."""

from __future__ import annotations

import math

from . import keys, links
from .actions import store_part, store_units
from .kinds import INT, KEY, OUT, SPECTRA, VOID
from .layout import (
    BACKWARD,
    DRAW,
    FORWARD,
    GRAD,
    GRAD_MAX,
    ONES,
    ORTHOGONAL,
    RANDOM,
    SCRATCH,
    SPARE_ROW,
    START,
    STORED,
    TURN,
    WEIGHT_GRAD,
    G,
    H,
)
from .links import step
from .streams import set_key
from .team import each, meet
from .tied_gradient import begin_total, total_norm
from .vectors import copy, scale, sum_of_squares
from .walk import enter, next_units


@step(INT, KEY, INT, INT)
def step_draw(m, cell, chain, budget):
    """Part of a tied chain's matrix; returns its cost."""
    spec, progress = m.spec, m.progress
    n = m.squares.shape[1]
    progress.units = store_units(spec, n)
    cost = 2 * n * n if spec.init == ORTHOGONAL else 4 * n
    first, last = next_units(progress, cost, budget)
    set_key(m.key, cell, chain, 0, keys.WEIGHT)
    store_part(m, first, last)
    if last == progress.units:
        enter(progress, START, 0)
    return (last - first) * cost


@step(VOID, KEY, INT, OUT)
def step_start(m, cell, chain, out):
    """h_0 = input_scale times standard normals, then the forward pass; or g_L at once where nothing needs it."""
    spec, layers, progress = m.spec, m.layers, m.progress
    if spec.tied_gradient:
        begin_total(progress, m.squares)
    if spec.forward:
        h = m.rows[H]
        set_key(m.key, cell, chain, 0, keys.INPUT)
        links.fill_columns(m, m.key, 0, spec.batch, h, layers[0].width, m.rows[SCRATCH])
        scale(h, layers[0].width * spec.batch, spec.input_mantissa)
        progress.h_exponent = spec.input_exponent
        links.record_state(m, spec, layers, progress, h, out, 0)
        enter(progress, FORWARD, 1)
    else:
        enter(progress, TURN, spec.depth)


@step(VOID, KEY, INT, OUT)
def step_turn(m, cell, chain, out):
    """g_L: uniform on the sphere, all ones, or h_L; then the backward pass."""
    spec, layers, progress = m.spec, m.layers, m.progress
    depth = spec.depth
    size = layers[depth].width * spec.columns
    g = m.rows[G]
    progress.g_exponent = 0
    progress.g_offset = 0.0
    progress.lost = -math.inf
    progress.rank = layers[depth].width
    if spec.output == RANDOM:
        set_key(m.key, cell, chain, depth, keys.OUTPUT)
        links.fill_columns(m, m.key, 0, spec.columns, g, layers[depth].width, m.rows[SCRATCH])
        squared = sum_of_squares(g, size)
        if squared == 0.0:
            g[0] = squared = 1.0  # a narrow output whose normals all rounded to zero, which float32 allows
        if spec.probes == 1:
            progress.g_offset = -0.5 * math.log(squared)
    elif spec.output == ONES:
        for i in each(size):
            g[i] = 1
        meet()
    else:
        copy(m.rows[H], g, size)
        progress.g_exponent = progress.h_exponent
    if spec.probes > 1:
        links.record_probes(m, spec, layers, progress, g, m.rows[SPARE_ROW], m.logs, 1, out, depth)
    else:
        links.record_gradient(m, spec, layers, progress, g, out, depth)
    enter(progress, BACKWARD, depth)


@step(VOID, OUT, SPECTRA)
def step_close(m, out, spectra):
    """Write what is left of a chain: layers below a gradient that vanished, a tied weight gradient, exponents."""
    spec, progress = m.spec, m.progress
    chain, layer, value = progress.chain, progress.layer, progress.last_value
    for below in range(layer - 1):
        out[GRAD, chain, below] = value
        out[GRAD_MAX, chain, below] = value
        if not spec.tied_gradient:
            out[WEIGHT_GRAD, chain, below] = value
    if spec.tied_gradient:
        log_total = total_norm(m, layer)
        out[WEIGHT_GRAD, chain, 0] = math.nan if math.isnan(value) else log_total + progress.g_offset
    if spec.probes > 1:
        if layer > 1:
            for p in range(spec.probes):
                m.logs[0, p] = value
        links.write_spectrum(m, m.logs[0], spec.depth, spec.probes, spectra[chain])
    progress.chain += 1
    enter(progress, DRAW if spec.action == STORED else START, 0)
