"""The dense CPU engine: every weight really drawn, forward and backward, in a loop that can stop anywhere.

One call of `advance` works through a piece of a cell until its budget of weights is spent, then returns, so that the
caller hears a signal at least once a second even in a chain that takes minutes; `progress` says where to go on. A
feedforward chain regenerates each matrix from its key; a tied one draws its matrix once and keeps it.

Vectors live as x 2^e (see `vectors`); logarithms are taken in float64. For the homogeneous activations this is exact
at any scale; the others work on the true value, except where it is so small that they are linear to rounding. A layer
of several columns, a batch or probes, is one block n x columns.
"""

from __future__ import annotations

import math

import numpy as np

from . import draws, keys
from .actions import (
    backward_cost,
    backward_part,
    begin_backward,
    begin_forward,
    forward_cost,
    forward_part,
    store_part,
    store_units,
)
from .activation import activate
from .addition import add_scaled, add_vectors
from .compiling import kernel, part
from .dropout import drop
from .layout import (
    AFTER,
    BACKWARD,
    BEFORE,
    BRANCH,
    BRANCH_INPUT,
    CARRIED,
    CLOSE,
    DRAW,
    FORWARD,
    GRAD,
    GRAD_MAX,
    ONES,
    ORTHOGONAL,
    POST,
    PRE,
    RANDOM,
    SCRATCH,
    SPARE_ROW,
    START,
    STORED,
    TURN,
    WEIGHT_GRAD,
    G,
    H,
    Z,
)
from .local_gradient import lost_counts, normal_directions, note_lost, steepest, take_slopes
from .normalisation import norm_backward, norm_forward
from .ops import LINEAR
from .probes import write_spectrum
from .recording import record_gradient, record_probes, record_state
from .streams import set_key
from .tied_gradient import begin_total, total_norm
from .vectors import LN2, clear, copy, normalise, scale, sum_of_squares
from .weight_gradient import note_weight_gradient

# What a layer costs in each pass beside its weights, in weights.
LAYER_COST = 1000
# What a unit of a layer costs for each of several columns, in weights.
UNIT_COST = 10


@part
def enter(progress, phase, layer):
    """Go to the beginning of a phase."""
    progress.phase = phase
    progress.layer = layer
    progress.unit = 0
    progress.units = 0


@part
def next_units(progress, cost, budget):
    """First and last of the next work units: a multiple of four within the budget, or all that are left."""
    first = progress.unit
    last = min(progress.units, first + max(budget // cost // 4 * 4, 4))
    progress.unit = last
    return first, last


@part
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
        draws.fill_columns(m.key, np.int64(0), spec.columns, g, layers[depth].width, m.rows[SCRATCH])
        squared = sum_of_squares(g, size)
        if squared == 0.0:
            g[0] = squared = 1.0  # a narrow output whose normals all rounded to zero, which float32 allows
        if spec.probes == 1:
            progress.g_offset = -0.5 * math.log(squared)
    elif spec.output == ONES:
        for i in range(size):
            g[i] = 1
    else:
        copy(m.rows[H], g, size)
        progress.g_exponent = progress.h_exponent
    if spec.probes > 1:
        record_probes(spec, layers, progress, g, m.rows[SPARE_ROW], m.logs, np.int64(1), out, depth)
    else:
        record_gradient(spec, layers, progress, g, out, depth)
    enter(progress, BACKWARD, depth)


@part
def step_start(m, cell, chain, out):
    """h_0 = input_scale times standard normals, then the forward pass; or g_L at once where nothing needs it."""
    spec, layers, progress = m.spec, m.layers, m.progress
    if spec.tied_gradient:
        begin_total(progress, m.squares)
    if spec.forward:
        h = m.rows[H]
        set_key(m.key, cell, chain, 0, keys.INPUT)
        draws.fill_columns(m.key, np.int64(0), spec.batch, h, layers[0].width, m.rows[SCRATCH])
        scale(h, layers[0].width * spec.batch, spec.input_mantissa)
        progress.h_exponent = spec.input_exponent
        record_state(spec, layers, progress, h, out, np.int64(0))
        enter(progress, FORWARD, 1)
    else:
        enter(progress, TURN, spec.depth)


@part
def begin_layer(m, layer):
    """The input of a layer's branch: h_{l-1}, or its norm; kept where a weight gradient needs it."""
    spec, layers, progress = m.spec, m.layers, m.progress
    below = layers[layer - 1].width
    e, log_norm = progress.h_exponent, progress.log_h
    if spec.norm_position == PRE:
        x, own = m.rows[BRANCH_INPUT], layers[layer]
        copy(m.rows[H], x, len(x))
        e = norm_forward(spec, own, x, below, e, m.norms[layer - 1], m.inverse[layer - 1], m.moments)
        e, _, log_norm = normalise(x, below * spec.batch, e)
    layers[layer].input_exponent = e
    layers[layer].log_input = log_norm
    if spec.keeps_inputs:
        copy(m.rows[branch_input(spec)], m.states[layer - 1], m.states.shape[1])


@part
def branch_input(spec):
    """Which vector W_l acts on."""
    return BRANCH_INPUT if spec.norm_position == PRE else H


@part
def end_forward(m, cell, chain, out, layer):
    """From Z = W X to h_l: scale, bias, noise, norms, activation, dropout, the other branch."""
    spec, layers, progress = m.spec, m.layers, m.progress
    own = layers[layer]
    n = own.width
    size = n * spec.batch
    z, scratch = m.rows[Z], m.rows[SCRATCH]
    scale(z, size, own.mantissa)
    e = own.input_exponent + own.exponent  # far below all else where x is zero: what is added sets the scale
    if own.bias > 0:
        set_key(m.key, cell, chain, 0 if spec.tied else layer, keys.BIAS)
        if spec.bias_is_uniform:
            draws.fill_uniform(m.key, 0, scratch, n)
        else:
            draws.fill_gaussian(m.key, 0, scratch, n)
        e = add_scaled(z, scratch, n, spec.batch, own.bias, e)
    if spec.noise > 0:
        set_key(m.key, cell, chain, layer, keys.NOISE)
        draws.fill_columns(m.key, np.int64(0), spec.batch, m.rows[SPARE_ROW], n, scratch)
        e = add_scaled(z, m.rows[SPARE_ROW], size, np.int64(1), spec.noise, e)
    if spec.norm_position == BEFORE:
        e = norm_forward(spec, own, z, n, e, m.norms[layer - 1], m.inverse[layer - 1], m.moments)
    row = 0 if spec.activation == LINEAR else layer - 1
    y = m.rows[BRANCH if spec.skip else H]
    e = activate(spec, z, y, m.slopes[row], size, e)
    if spec.norm_position == AFTER:
        e = norm_forward(spec, own, y, n, e, m.norms[layer - 1], m.inverse[layer - 1], m.moments)
    if spec.drops:
        set_key(m.key, cell, chain, layer, keys.DROPOUT)
        drop(m.key, spec.threshold, spec.kept, y, n, spec.batch, spec.batch)
    h = m.rows[H]
    if spec.skip:
        e, _, _ = normalise(y, size, e)
        carried = progress.h_exponent + spec.carry_exponent
        e = add_vectors(h, spec.carry, carried, y, spec.branch, e + spec.branch_exponent, size)
    if spec.norm_position == POST:
        e, _, _ = normalise(h, size, e)
        e = norm_forward(spec, own, h, n, e, m.norms[layer - 1], m.inverse[layer - 1], m.moments)
    progress.h_exponent = e
    record_state(spec, layers, progress, h, out, layer)


@part
def close(progress, layer, value):
    """Go to the end of a chain: ln ||g_{layer-1}|| is `value` and, where that is -inf or NaN, so it is below."""
    enter(progress, CLOSE, layer)
    progress.last_value = value


@part
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
        log_total = total_norm(spec, m.layers, progress, m.rows, m.states, m.squares, m.active, layer)
        out[WEIGHT_GRAD, chain, 0] = math.nan if math.isnan(value) else log_total + progress.g_offset
    if spec.probes > 1:
        if layer > 1:
            for p in range(spec.probes):
                m.logs[0, p] = value
        write_spectrum(m.logs[0], spec.depth, spec.probes, spectra[chain])
    progress.chain += 1
    enter(progress, DRAW if spec.action == STORED else START, 0)


@part
def begin_step(m, layer):
    """Back through a norm of h_l itself, and what the carry takes from g_l."""
    spec, layers, progress = m.spec, m.layers, m.progress
    g, n = m.rows[G], layers[layer].width
    size = n * spec.columns
    if spec.norm_position == POST:
        own, e = layers[layer], progress.g_exponent
        e = norm_backward(spec, own, g, n, e, m.norms[layer - 1], m.inverse[layer - 1], m.moments)
        progress.g_exponent, _, _ = normalise(g, size, e)
        progress.rank = min(progress.rank, n - normal_directions(spec))
    if spec.skip:
        copy(g, m.rows[CARRIED], size)
        progress.carried_exponent = progress.g_exponent


@part
def end_backward(m, out, layer):
    """From W^T d to g_{l-1}: scale, norm and carry; then the next layer, or the end."""
    spec, layers, progress = m.spec, m.layers, m.progress
    n = layers[layer - 1].width
    size = n * spec.columns
    g = m.rows[G]
    scale(g, size, layers[layer].mantissa)
    progress.g_exponent += layers[layer].exponent
    if spec.norm_position == PRE:
        own, e = layers[layer], progress.g_exponent
        progress.g_exponent = norm_backward(spec, own, g, n, e, m.norms[layer - 1], m.inverse[layer - 1], m.moments)
        progress.rank = min(progress.rank, n - normal_directions(spec))
    if spec.lone_input and layer == 1:
        clear(g, 0)
    if spec.skip:
        progress.g_exponent, _, _ = normalise(g, size, progress.g_exponent)
        carried = progress.carried_exponent + spec.carry_exponent
        e = add_vectors(g, 1.0, progress.g_exponent, m.rows[CARRIED], spec.carry, carried, size)
        progress.g_exponent = e
        if spec.carry > 0.0:
            progress.rank = n - normal_directions(spec) if spec.norm_position == POST else n
    if spec.probes > 1:
        log_norm = record_probes(spec, layers, progress, g, m.rows[SPARE_ROW], m.logs, np.int64(0), out, layer - 1)
    else:
        log_norm = record_gradient(spec, layers, progress, g, out, layer - 1)
    if spec.unmixed:
        growth = math.log(layers[layer].mantissa) + layers[layer].exponent * LN2
        if spec.skip:
            note_lost(spec, progress, g, m.rows[CARRIED], m.slopes[layer - 1], n)
            branch = steepest(spec) * math.exp(growth) * math.ldexp(spec.branch, spec.branch_exponent)
            growth = math.log(math.ldexp(spec.carry, spec.carry_exponent) + branch)
        progress.lost += growth
        if lost_counts(progress, log_norm, g.itemsize):
            log_norm = math.nan
            out[GRAD, progress.chain, layer - 1] = math.nan
            out[GRAD_MAX, progress.chain, layer - 1] = math.nan
    if layer == 1 or not math.isfinite(log_norm):
        close(progress, layer, log_norm)
    else:
        enter(progress, BACKWARD, layer - 1)


@part
def step_draw(m, cell, chain, budget):
    """Part of a tied chain's matrix; returns its cost."""
    spec, progress = m.spec, m.progress
    n = m.squares.shape[1]
    progress.units = store_units(spec, n)
    cost = 2 * n * n if spec.init == ORTHOGONAL else 4 * n
    first, last = next_units(progress, cost, budget)
    set_key(m.key, cell, chain, 0, keys.WEIGHT)
    store_part(spec, m.rows, m.squares, m.key, first, last)
    if last == progress.units:
        enter(progress, START, 0)
    return (last - first) * cost


@part
def step_forward(m, cell, chain, out, budget):
    """Part of one layer's forward pass; returns its cost."""
    spec, layers, progress = m.spec, m.layers, m.progress
    layer = progress.layer
    rows, columns = layers[layer].width, layers[layer - 1].width
    x = m.rows[branch_input(spec)]
    if progress.unit == 0:
        begin_layer(m, layer)
        progress.units = begin_forward(spec, m.rows, m.slab, m.active, x, rows, columns)
    cost = forward_cost(spec, m.slab, rows, columns)
    first, last = next_units(progress, cost, budget)
    if spec.action != STORED:
        set_key(m.key, cell, chain, layer, keys.WEIGHT)
    forward_part(spec, m.rows, m.squares, m.slab, m.active, m.key, x, rows, columns, first, last)
    if last == progress.units:
        end_forward(m, cell, chain, out, layer)
        if layer < spec.depth:
            enter(progress, FORWARD, layer + 1)
        else:
            enter(progress, TURN, layer)
    return (last - first) * cost + unit_cost(spec.batch, rows) + LAYER_COST


@part
def unit_cost(columns, n):
    """What is done for each unit of a layer, in weights."""
    return n if columns == 1 else UNIT_COST * n * columns


@part
def step_backward(m, cell, chain, out, budget):
    """Part of one layer's backward pass; returns its cost."""
    spec, layers, progress = m.spec, m.layers, m.progress
    layer = progress.layer
    rows, columns = layers[layer].width, layers[layer - 1].width
    ended = False
    if progress.unit == 0:
        if spec.skip or spec.norm_position == POST:
            begin_step(m, layer)
        log_d = take_slopes(
            spec, layers, progress, m.rows, m.slopes, m.norms, m.inverse, m.moments, m.key, cell, chain, layer
        )
        ended = math.isnan(log_d) or (log_d == -math.inf and not spec.skip)
        if ended:
            close(progress, layer + 1, log_d)
        else:
            if spec.wants_weight:
                note_weight_gradient(
                    spec, layers, progress, m.rows, m.states, m.squares, m.grams, m.logs, m.active, out, layer, log_d
                )
            progress.units = begin_backward(spec, m.rows, m.slab, m.active, rows, columns)
    if ended:
        return rows
    cost = backward_cost(spec, m.slab, rows, columns)
    first, last = next_units(progress, cost, budget)
    if spec.action != STORED:
        set_key(m.key, cell, chain, layer, keys.WEIGHT)
    backward_part(spec, m.rows, m.squares, m.slab, m.active, m.key, rows, columns, first, last)
    if last == progress.units:
        end_backward(m, out, layer)
    outer = rows * columns // 8 if spec.tied_gradient else 0
    return (last - first) * cost + unit_cost(spec.columns, columns) + outer + LAYER_COST


@kernel
def advance(m, cell, first_chain, count, out, spectra, budget):
    """Work through chains first_chain .. first_chain + count - 1 until they are done or the budget is spent.

    `out` is (4, count, L + 1) float32, `spectra` (count, probes) float32; `budget` counts weights (about a nanosecond
    each in float32). Returns True when the piece is complete. What was not asked for is left without meaning.
    """
    progress = m.progress
    while progress.chain < count and budget > 0:
        chain = first_chain + progress.chain
        if progress.phase == FORWARD:
            budget -= step_forward(m, cell, chain, out, budget)
        elif progress.phase == BACKWARD:
            budget -= step_backward(m, cell, chain, out, budget)
        elif progress.phase == DRAW:
            budget -= step_draw(m, cell, chain, budget)
        elif progress.phase == START:
            step_start(m, cell, chain, out)
            budget -= unit_cost(m.spec.batch, m.layers[0].width)
        elif progress.phase == TURN:
            step_turn(m, cell, chain, out)
        else:
            step_close(m, out, spectra)
    return progress.chain == count
