"""What a layer does before and after its matrix, in both passes; what only some chains have is called by address."""

from __future__ import annotations

import math

from . import keys, links
from .compiling import part
from .kinds import INT, KEY, OUT, REAL, VOID
from .layout import (
    AFTER,
    BACKWARD,
    BEFORE,
    BRANCH,
    BRANCH_INPUT,
    CARRIED,
    DEFERRED,
    GRAD,
    GRAD_MAX,
    POST,
    PRE,
    SCRATCH,
    SPARE_ROW,
    G,
    H,
    Z,
)
from .links import step
from .local_gradient import normal_directions, undo_norm
from .lost import lost_counts, steepest
from .ops import LINEAR
from .streams import set_key
from .vectors import LN2, clear, copy, normalise, scale
from .walk import close, enter

# What is smaller than the gradient by so many binary digits does not count beside it: an error of 1e-3 at the most.
BLUR_DIGITS = 10


@part
def apply_norm(m, x, layer, e):
    """x 2^e <- its normalised form, x of as many units as layer l has; returns the new exponent."""
    own, kept, inverse = m.layers[layer], m.norms[layer - 1], m.inverse[layer - 1]
    return links.norm_forward(m, m.spec, own, x, own.width, e, kept, inverse, m.moments)


@step(VOID, INT)
def norm_input(m, layer):
    """The norm of h_{l-1} as the input of a layer's branch."""
    own, x = m.layers[layer], m.rows[BRANCH_INPUT]
    copy(m.rows[H], x, len(x))
    # A branch's input is as wide as its output: there is a carry.
    e = apply_norm(m, x, layer, m.progress.h_exponent)
    own.input_exponent, _, own.log_input = normalise(x, own.width * m.spec.batch, e)


@part
def branch_input(spec):
    """Which vector W_l acts on."""
    return BRANCH_INPUT if spec.norm_position == PRE else H


@part
def begin_layer(m, layer):
    """The input of a layer's branch: h_{l-1}, or its norm; kept where a weight gradient needs it."""
    spec, own = m.spec, m.layers[layer]
    if spec.norm_position == PRE:
        norm_input(m, layer)
    else:
        own.input_exponent = m.progress.h_exponent
        own.log_input = m.progress.log_h
    if spec.keeps_inputs:
        copy(m.rows[branch_input(spec)], m.states[layer - 1], m.states.shape[1])


@step(INT, KEY, INT, INT, INT)
def add_to_sums(m, cell, chain, layer, e):
    """Bias, noise and a norm of z_l 2^e; returns the new exponent."""
    spec, own = m.spec, m.layers[layer]
    n = own.width
    z, scratch = m.rows[Z], m.rows[SCRATCH]
    if own.bias > 0:
        set_key(m.key, cell, chain, 0 if spec.tied else layer, keys.BIAS)
        if spec.bias_is_uniform:
            links.fill_bounded(m, m.key, False, 0, scratch, n)
        else:
            links.fill_columns(m, m.key, 0, 1, scratch, n, scratch)
        e = links.add_scaled(m, z, scratch, n, spec.batch, own.bias, e)
    if spec.noise > 0:
        set_key(m.key, cell, chain, layer, keys.NOISE)
        links.fill_columns(m, m.key, 0, spec.batch, m.rows[SPARE_ROW], n, scratch)
        e = links.add_scaled(m, z, m.rows[SPARE_ROW], n * spec.batch, 1, spec.noise, e)
    if spec.norm_position == BEFORE:
        e = apply_norm(m, z, layer, e)
    return e


@step(INT, KEY, INT, INT, INT)
def finish_branch(m, cell, chain, layer, e):
    """From phi(z_l) 2^e to h_l: norms, dropout, the other branch; returns the new exponent."""
    spec, n = m.spec, m.layers[layer].width
    size = n * spec.batch
    y, h = m.rows[BRANCH if spec.skip else H], m.rows[H]
    if spec.norm_position == AFTER:
        e = apply_norm(m, y, layer, e)
    if spec.drops:
        set_key(m.key, cell, chain, layer, keys.DROPOUT)
        links.drop(m, m.key, spec.threshold, spec.kept, y, n, spec.batch, spec.batch)
    if spec.skip:
        e, _, _ = normalise(y, size, e)
        carried = m.progress.h_exponent + spec.carry_exponent
        e = links.add_vectors(m, h, spec.carry, carried, y, spec.branch, e + spec.branch_exponent, size)
    if spec.norm_position == POST:
        e, _, _ = normalise(h, size, e)
        e = apply_norm(m, h, layer, e)
    return e


@part
def end_forward(m, cell, chain, out, layer):
    """From Z = W X to h_l: scale, bias, noise, norms, activation, dropout, the other branch."""
    spec, own = m.spec, m.layers[layer]
    size = own.width * spec.batch
    z = m.rows[Z]
    if spec.action != DEFERRED:
        scale(z, size, own.mantissa)
    e = own.input_exponent + own.exponent  # far below all else where x is zero: what is added sets the scale
    if own.bias > 0 or spec.noise > 0 or spec.norm_position == BEFORE:
        e = add_to_sums(m, cell, chain, layer, e)
    row = 0 if spec.activation == LINEAR else layer - 1
    e = links.activate(m, spec, z, m.rows[BRANCH if spec.skip else H], m.slopes[row], size, e)
    if spec.skip or spec.drops or spec.norm_position > BEFORE:
        e = finish_branch(m, cell, chain, layer, e)
    m.progress.h_exponent = e
    links.record_state(m, spec, m.layers, m.progress, m.rows[H], out, layer)


@step(VOID, INT)
def begin_step(m, layer):
    """Back through a norm of h_l itself, and what the carry takes from g_l."""
    spec, progress = m.spec, m.progress
    g, size = m.rows[G], m.layers[layer].width * spec.columns
    if spec.norm_position == POST:
        undo_norm(m, g, layer)
        progress.g_exponent, _, _ = normalise(g, size, progress.g_exponent)
    if spec.skip:
        copy(g, m.rows[CARRIED], size)
        progress.carried_exponent = progress.g_exponent


@step(VOID, INT)
def join_branches(m, layer):
    """Back through a norm of the branch's input, and what the carry took from g_l added."""
    spec, progress = m.spec, m.progress
    n, g = m.layers[layer].width, m.rows[G]
    size = n * spec.columns
    if spec.norm_position == PRE:
        undo_norm(m, g, layer)
    progress.g_exponent, _, _ = normalise(g, size, progress.g_exponent)
    carried = progress.carried_exponent + spec.carry_exponent
    e = links.add_vectors(m, g, 1.0, progress.g_exponent, m.rows[CARRIED], spec.carry, carried, size)
    progress.g_exponent = e
    if spec.carry > 0.0:
        progress.rank = n - normal_directions(spec) if spec.norm_position == POST else n


@step(REAL, OUT, INT, REAL)
def bound_lost(m, out, layer, log_norm):
    """ln ||g_{l-1}|| of an identity chain, NaN where units that left the dtype may be seen in it."""
    spec, progress, own = m.spec, m.progress, m.layers[layer]
    g = m.rows[G]
    growth = math.log(own.mantissa) + own.exponent * LN2
    if spec.skip:
        links.note_lost(m, spec, progress, g, m.rows[CARRIED], m.slopes[layer - 1], own.width)
        branch = steepest(spec) * math.exp(growth) * math.ldexp(spec.branch, spec.branch_exponent)
        growth = math.log(math.ldexp(spec.carry, spec.carry_exponent) + branch)
    progress.lost += growth
    if lost_counts(progress, log_norm, g.itemsize):
        log_norm = math.nan
        out[GRAD, progress.chain, layer - 1] = math.nan
        out[GRAD_MAX, progress.chain, layer - 1] = math.nan
    return log_norm


@step(REAL, OUT, INT, REAL)
def bound_blur(m, out, layer, log_norm):
    """ln ||g_{l-1}||, NaN where the branch's gradient, of which only a bound is known, may be seen beside the carry."""
    own = m.layers[layer]
    bound = own.blur
    if m.spec.norm_position != PRE:
        # No matrix stretches a vector by more than about this, as a rule far less.
        stretch = 2.0 * own.mantissa * math.sqrt(max(own.width, m.layers[layer - 1].width))
        bound += math.log(stretch) + own.exponent * LN2
    if bound > log_norm - BLUR_DIGITS * LN2:
        log_norm = math.nan
        out[GRAD, m.progress.chain, layer - 1] = math.nan
        out[GRAD_MAX, m.progress.chain, layer - 1] = math.nan
    return log_norm


@part
def end_backward(m, out, layer):
    """From W^T d to g_{l-1}: scale, norm and carry; then the next layer, or the end."""
    spec, layers, progress = m.spec, m.layers, m.progress
    g = m.rows[G]
    if spec.action != DEFERRED:
        scale(g, layers[layer - 1].width * spec.columns, layers[layer].mantissa)
    progress.g_exponent += layers[layer].exponent
    if spec.lone_input and layer == 1:
        clear(g, 0)
    if spec.skip:
        join_branches(m, layer)
    if spec.probes > 1:
        log_norm = links.record_probes(m, spec, layers, progress, g, m.rows[SPARE_ROW], m.logs, 0, out, layer - 1)
    else:
        log_norm = links.record_gradient(m, spec, layers, progress, g, out, layer - 1)
    if spec.unmixed:
        log_norm = bound_lost(m, out, layer, log_norm)
    if spec.forgives and layers[layer].blur > -math.inf:
        log_norm = bound_blur(m, out, layer, log_norm)
    if layer == 1 or not math.isfinite(log_norm):
        close(progress, layer, log_norm)
    else:
        enter(progress, BACKWARD, layer - 1)
