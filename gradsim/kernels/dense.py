"""The dense CPU engine: every weight really drawn, forward and backward, in a loop that can stop anywhere.

One call of `advance` works through a piece of a cell until its budget of weights is spent, then returns, so that the
caller hears a signal at least once a second even in a chain that takes minutes; `progress` says where to go on. A
feedforward chain regenerates each matrix from its key; a tied one draws its matrix once and keeps it.

Vectors live as x 2^e (see `vectors`); logarithms are taken in float64. For the homogeneous activations this is exact
at any scale. tanh works on the true value, except where all its arguments are so small that tanh z = z to rounding.
"""

from __future__ import annotations

import math

import numpy as np

from . import draws, keys, ops, rng
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
from .bits import keep_out_of_line
from .compiling import kernel, part
from .layout import (
    ACTIVATION,
    BACKWARD,
    CLOSE,
    DRAW,
    FORWARD,
    GRAD,
    GRAD_MAX,
    ONES,
    ORTHOGONAL,
    RANDOM,
    SCRATCH,
    START,
    STORED,
    TURN,
    WEIGHT_GRAD,
    D,
    G,
    H,
    Z,
)
from .ops import LEAKY_RELU, LINEAR, RELU, TANH
from .tied_gradient import add_step, begin_total, total_norm
from .vectors import LN2, absolute_maximum, clear, copy, normalise, shift, sum_of_squares

WEIGHT, BIAS, INPUT, OUTPUT, NOISE = keys.WEIGHT, keys.BIAS, keys.INPUT, keys.OUTPUT, keys.NOISE

# tanh z = z to rounding below these powers of two: z^2 / 3 is under half a unit in the last place.
TANH_LINEAR_32 = -13
TANH_LINEAR_64 = -27
# Smallest powers of two that are normal numbers.
SMALLEST_32 = -126
SMALLEST_64 = -1022
# Digits of a significand.
DIGITS_32 = 24
DIGITS_64 = 53
# What a layer costs in each pass beside its weights, in weights.
LAYER_COST = 1000


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


@kernel
def _set_key(key, cell, chain, layer, purpose):
    keep_out_of_line()
    key[0], key[1], key[2], key[3] = rng.layer_key(cell[0], cell[1], cell[2], cell[3], chain, layer, purpose)


@part
def set_key(key, cell, chain, layer, purpose):
    """Point `key` at one stream."""
    # Of one type each: Numba compiles a function again for every constant it is called with.
    _set_key(key, cell, chain, np.int64(layer), np.int64(purpose))


@kernel
def add_scaled(z, x, n, deviation, e):
    """z 2^e += deviation x; returns the new exponent, large enough for both.

    Where x is too small to change z it still gives an entry that is zero its sign: that of a unit whose inputs are all
    silent.
    """
    keep_out_of_line()
    own = math.frexp(deviation)[1]
    if own > e:
        shift(z, n, max(e - own, -2000))
        e = own
    smallest = math.ldexp(1.0, SMALLEST_32 if z.itemsize == 4 else SMALLEST_64)
    factor = math.ldexp(deviation, max(-e, -2000))
    if factor < smallest:
        for i in range(n):
            if z[i] == 0:
                z[i] = math.copysign(smallest, x[i])
        return e
    factor = z.dtype.type(factor)
    for i in range(n):
        z[i] += factor * x[i]
    return e


@kernel
def activate(spec, z, h, slopes, n, e):
    """h = phi(z 2^e), slopes = phi'(z 2^e), for the activation's code; returns the exponent of h."""
    keep_out_of_line()
    if spec.activation == LINEAR:
        copy(z, h, n)
        return e
    if spec.activation == RELU:
        for i in range(n):
            h[i], slopes[i] = ops.relu(np.float64(z[i]))
        return e
    if spec.activation == LEAKY_RELU:
        for i in range(n):
            h[i], slopes[i] = ops.leaky_relu(np.float64(z[i]), spec.slope)
        return e
    largest = absolute_maximum(z, n)
    linear_below = TANH_LINEAR_32 if z.itemsize == 4 else TANH_LINEAR_64
    if largest == 0.0 or e + math.frexp(largest)[1] < linear_below:
        copy(z, h, n)
        for i in range(n):
            slopes[i] = 1
        return e
    factor = math.ldexp(1.0, min(e, 1000))
    for i in range(n):
        h[i], slopes[i] = ops.tanh(z[i] * factor)
    return 0


@kernel
def record_state(spec, layers, progress, vectors, states, out, layer):
    """Normalise h_l and write down its norm."""
    keep_out_of_line()
    n = layers[layer].width
    h = vectors[H]
    e, _, log_norm = normalise(h, n, progress.h_exponent)
    clear(h, n)
    progress.h_exponent = e
    layers[layer].state_exponent = e
    layers[layer].log_state = log_norm
    out[ACTIVATION, progress.chain, layer] = log_norm
    if spec.tied_gradient:
        copy(h, states[layer], len(h))


@kernel
def record_gradient(spec, layers, progress, vectors, out, layer):
    """Normalise g_l and write down its norm and largest entry; returns ln ||g_l|| as held."""
    keep_out_of_line()
    n = layers[layer].width
    g = vectors[G]
    e, largest, log_norm = normalise(g, n, progress.g_exponent)
    clear(g, n)
    progress.g_exponent = e
    out[GRAD, progress.chain, layer] = log_norm + progress.g_offset
    if spec.wants_maximum:
        log_max = math.log(largest) + e * LN2 if largest != 0.0 else -math.inf
        out[GRAD_MAX, progress.chain, layer] = log_max + progress.g_offset
    return log_norm


@part
def step_turn(spec, layers, progress, vectors, key, cell, chain, out):
    """g_L: uniform on the sphere, all ones, or h_L; then the backward pass."""
    depth = spec.depth
    n = layers[depth].width
    g = vectors[G]
    progress.g_exponent = 0
    progress.g_offset = 0.0
    progress.lost = -math.inf
    if spec.output == RANDOM:
        set_key(key, cell, chain, depth, OUTPUT)
        draws.fill_gaussian(key, 0, g, n)
        squared = sum_of_squares(g, n)
        if squared == 0.0:
            g[0] = squared = 1.0  # a narrow output whose normals all rounded to zero, which float32 allows
        progress.g_offset = -0.5 * math.log(squared)
    elif spec.output == ONES:
        for i in range(n):
            g[i] = 1
    else:
        copy(vectors[H], g, n)
        progress.g_exponent = progress.h_exponent
    record_gradient(spec, layers, progress, vectors, out, depth)
    enter(progress, BACKWARD, depth)


@part
def step_start(spec, layers, progress, vectors, states, squares, key, cell, chain, out):
    """h_0 = input_scale times standard normals, then the forward pass; or g_L at once where nothing needs it."""
    if spec.tied_gradient:
        begin_total(progress, squares)
    if not spec.forward:
        enter(progress, TURN, spec.depth)
        return
    n = layers[0].width
    h = vectors[H]
    set_key(key, cell, chain, 0, INPUT)
    draws.fill_gaussian(key, 0, h, n)
    factor = h.dtype.type(spec.input_mantissa)
    for i in range(n):
        h[i] *= factor
    progress.h_exponent = spec.input_exponent
    record_state(spec, layers, progress, vectors, states, out, np.int64(0))
    enter(progress, FORWARD, 1)


@part
def end_forward(spec, layers, progress, vectors, slopes, states, key, cell, chain, out, layer):
    """From z = W h to h_l: scale, bias, noise, activation, norm."""
    n = layers[layer].width
    z, scratch = vectors[Z], vectors[SCRATCH]
    scale = z.dtype.type(layers[layer].mantissa)
    for i in range(n):
        z[i] *= scale
    e = progress.h_exponent + layers[layer].exponent  # far below all else where h is zero: what is added sets the scale
    if layers[layer].bias > 0:
        set_key(key, cell, chain, 0 if spec.tied else layer, BIAS)
        if spec.bias_is_uniform:
            draws.fill_uniform(key, 0, scratch, n)
        else:
            draws.fill_gaussian(key, 0, scratch, n)
        e = add_scaled(z, scratch, n, layers[layer].bias, e)
    if spec.noise > 0:
        set_key(key, cell, chain, layer, NOISE)
        draws.fill_gaussian(key, 0, scratch, n)
        e = add_scaled(z, scratch, n, spec.noise, e)
    row = 0 if spec.activation == LINEAR else layer - 1
    progress.h_exponent = activate(spec, z, vectors[H], slopes[row], n, e)
    record_state(spec, layers, progress, vectors, states, out, layer)


@kernel
def note_lost(spec, layers, progress, d, g, slopes, n):
    """Take units of an identity chain that fell out of the dtype out of d, and keep a bound on their norm.

    Elsewhere the next W mixes all units, and what is that far behind never counts again. Where units never mix, the
    others may yet fall below it.
    """
    keep_out_of_line()
    tiny = DIGITS_32 + SMALLEST_32 if d.itemsize == 4 else DIGITS_64 + SMALLEST_64
    smallest = math.ldexp(1.0, tiny)
    count = 0
    for i in range(n):
        # phi' of tanh is never zero: where it is, it rounded to it.
        if abs(d[i]) < smallest and g[i] != 0 and (slopes[i] != 0 or spec.activation == TANH):
            d[i] = 0
            count += 1
    progress.lost += math.log(max(1.0, abs(spec.slope)))
    if count > 0:
        fresh = 0.5 * math.log(count) + (tiny + progress.g_exponent) * LN2
        larger, smaller = max(progress.lost, fresh), min(progress.lost, fresh)
        progress.lost = larger + 0.5 * math.log1p(math.exp(2.0 * (smaller - larger)))


@part
def lost_counts(progress, log_norm, itemsize):
    """Whether units that left the dtype may be seen in a norm of which those left have this logarithm."""
    digits = DIGITS_32 if itemsize == 4 else DIGITS_64
    return progress.lost > log_norm - digits * LN2


@part
def take_slopes(spec, layers, progress, vectors, slopes, layer):
    """d = phi'(z_l) g_l, normalised; returns ln ||d|| as held, NaN where it left the dtype and not the law.

    Where nobody needs that norm it is left out: a d of zero then shows in W^T d.
    """
    n = layers[layer].width
    d, g = vectors[D], vectors[G]
    if spec.activation == LINEAR:
        copy(g, d, n)
    else:
        own = slopes[layer - 1]
        for i in range(n):
            d[i] = own[i] * g[i]
    clear(d, n)
    log_norm = 0.0
    before = progress.g_exponent
    if spec.wants_weight or spec.activation == TANH or spec.unmixed:
        e, largest, log_norm = normalise(d, n, before)
        progress.g_exponent = e
        if spec.activation == TANH:
            smallest = SMALLEST_32 if d.itemsize == 4 else SMALLEST_64
            if (largest == 0.0 or e < before + smallest) and sum_of_squares(g, n) > 0.0:
                log_norm = math.nan
        if spec.unmixed:
            note_lost(spec, layers, progress, d, g, slopes[layer - 1], n)
            if lost_counts(progress, log_norm, d.itemsize):
                log_norm = math.nan
    return log_norm


@part
def note_weight_gradient(spec, layers, progress, vectors, states, squares, active, out, layer, log_d):
    """ln ||dLoss/dW_l|| = ln ||phi' g_l|| + ln ||h_{l-1}||, or one more step of a tied chain's total."""
    if not spec.tied_gradient:
        out[WEIGHT_GRAD, progress.chain, layer - 1] = log_d + progress.g_offset + layers[layer - 1].log_state
        return
    add_step(layers, progress, vectors, states, squares, active, layer)


@part
def close(progress, layer, value):
    """Go to the end of a chain: ln ||g_{layer-1}|| is `value` and, where that is -inf or NaN, so it is below."""
    enter(progress, CLOSE, layer)
    progress.last_value = value


@part
def step_close(spec, layers, progress, vectors, states, squares, active, out):
    """Write what is left of a chain: layers below a gradient that vanished, a tied weight gradient."""
    chain, layer, value = progress.chain, progress.layer, progress.last_value
    for below in range(layer - 1):
        out[GRAD, chain, below] = value
        out[GRAD_MAX, chain, below] = value
        if not spec.tied_gradient:
            out[WEIGHT_GRAD, chain, below] = value
    if spec.tied_gradient:
        log_total = total_norm(layers, progress, vectors, states, squares, active, layer)
        out[WEIGHT_GRAD, chain, 0] = math.nan if math.isnan(value) else log_total + progress.g_offset
    progress.chain += 1
    enter(progress, DRAW if spec.action == STORED else START, 0)


@part
def end_backward(spec, layers, progress, vectors, out, layer):
    """From W^T d to g_{l-1}: scale and norm; then the next layer, or the end."""
    n = layers[layer - 1].width
    g = vectors[G]
    scale = g.dtype.type(layers[layer].mantissa)
    for j in range(n):
        g[j] *= scale
    progress.g_exponent += layers[layer].exponent
    log_norm = record_gradient(spec, layers, progress, vectors, out, layer - 1)
    if spec.unmixed:
        progress.lost += math.log(layers[layer].mantissa) + layers[layer].exponent * LN2
        if lost_counts(progress, log_norm, g.itemsize):
            log_norm = math.nan
            out[GRAD, progress.chain, layer - 1] = math.nan
            out[GRAD_MAX, progress.chain, layer - 1] = math.nan
    if layer == 1 or not math.isfinite(log_norm):
        close(progress, layer, log_norm)
    else:
        enter(progress, BACKWARD, layer - 1)


@part
def step_draw(spec, progress, vectors, squares, key, cell, chain, budget):
    """Part of a tied chain's matrix; returns its cost."""
    n = squares.shape[1]
    progress.units = store_units(spec, n)
    cost = 2 * n * n if spec.init == ORTHOGONAL else 4 * n
    first, last = next_units(progress, cost, budget)
    set_key(key, cell, chain, 0, WEIGHT)
    store_part(spec, vectors, squares, key, first, last)
    if last == progress.units:
        enter(progress, START, 0)
    return (last - first) * cost


@part
def step_forward(spec, layers, progress, vectors, slopes, states, squares, active, key, cell, chain, out, budget):
    """Part of one layer's forward pass; returns its cost."""
    layer = progress.layer
    rows, columns = layers[layer].width, layers[layer - 1].width
    if progress.unit == 0:
        progress.units = begin_forward(spec, vectors, active, rows, columns)
    cost = forward_cost(spec, rows, columns)
    first, last = next_units(progress, cost, budget)
    if spec.action != STORED:
        set_key(key, cell, chain, layer, WEIGHT)
    forward_part(spec, vectors, squares, active, key, rows, columns, first, last)
    if last == progress.units:
        end_forward(spec, layers, progress, vectors, slopes, states, key, cell, chain, out, layer)
        if layer < spec.depth:
            enter(progress, FORWARD, layer + 1)
        else:
            enter(progress, TURN, layer)
    return (last - first) * cost + rows + LAYER_COST


@part
def step_backward(spec, layers, progress, vectors, slopes, states, squares, active, key, cell, chain, out, budget):
    """Part of one layer's backward pass; returns its cost."""
    layer = progress.layer
    rows, columns = layers[layer].width, layers[layer - 1].width
    if progress.unit == 0:
        log_d = take_slopes(spec, layers, progress, vectors, slopes, layer)
        if not math.isfinite(log_d):
            close(progress, layer + 1, log_d)
            return rows
        if spec.wants_weight:
            note_weight_gradient(spec, layers, progress, vectors, states, squares, active, out, layer, log_d)
        progress.units = begin_backward(spec, vectors, active, rows, columns)
    cost = backward_cost(spec, rows, columns)
    first, last = next_units(progress, cost, budget)
    if spec.action != STORED:
        set_key(key, cell, chain, layer, WEIGHT)
    backward_part(spec, vectors, squares, active, key, rows, columns, first, last)
    if last == progress.units:
        end_backward(spec, layers, progress, vectors, out, layer)
    outer = rows * columns // 8 if spec.tied_gradient else 0
    return (last - first) * cost + columns + outer + LAYER_COST


@kernel
def advance(memory, cell, first_chain, count, out, budget):
    """Work through chains first_chain .. first_chain + count - 1 until they are done or the budget is spent.

    `out` is (4, count, L + 1) float32, `budget` counts weights (about a nanosecond each in float32). Returns True when
    the piece is complete. What was not asked for is left without meaning.
    """
    spec, layers, progress, vectors, slopes, states, squares, active, key = memory
    while progress.chain < count and budget > 0:
        chain = first_chain + progress.chain
        if progress.phase == FORWARD:
            budget -= step_forward(
                spec, layers, progress, vectors, slopes, states, squares, active, key, cell, chain, out, budget
            )
        elif progress.phase == BACKWARD:
            budget -= step_backward(
                spec, layers, progress, vectors, slopes, states, squares, active, key, cell, chain, out, budget
            )
        elif progress.phase == DRAW:
            budget -= step_draw(spec, progress, vectors, squares, key, cell, chain, budget)
        elif progress.phase == START:
            step_start(spec, layers, progress, vectors, states, squares, key, cell, chain, out)
            budget -= layers[0].width
        elif progress.phase == TURN:
            step_turn(spec, layers, progress, vectors, key, cell, chain, out)
        else:
            step_close(spec, layers, progress, vectors, states, squares, active, out)
    return progress.chain == count
