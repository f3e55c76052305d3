"""The engine of gated chains, LSTM and GRU: as the dense one (see `dense`), for cells whose step is more than phi(W h).

The matrices of the gates are drawn once and kept (see `gated_products`); a step's gates are worked out in float64,
whatever the dtype of its products (see `gated_cells`). h_l, dLoss/dh_l and dLoss/dc_l live as x 2^e.
"""

from __future__ import annotations

import math

import numpy as np

from . import draws, gated_asked, keys
from .addition import add_vectors
from .bits import keep_out_of_line
from .compiling import kernel, part
from .gated_cells import gru_backward, gru_forward, lstm_backward, lstm_forward
from .gated_layout import CELL_GRAD, COLUMN, FIRST, SCRATCH, VALUE, C, G, H
from .gated_products import (
    add_step,
    backward_product,
    begin_total,
    forward_product,
    total_norm,
)
from .gated_recording import falls_out, grow_lost, let_go, record
from .gates import power
from .layout import (
    ACTIVATION,
    BACKWARD,
    CLOSE,
    DRAW,
    FORWARD,
    GAUSSIAN,
    GRAD,
    GRAD_MAX,
    IDENTITY,
    ONES,
    ORTHOGONAL,
    RADEMACHER,
    RANDOM,
    START,
    TURN,
    WEIGHT_GRAD,
)
from .orthogonal import build_q
from .probes import write_spectrum
from .recording import record_state
from .streams import set_key
from .team import each, meet
from .vectors import NOTHING, SMALLEST_32, SMALLEST_64, clear, copy, normalise, sum_of_squares
from .walk import LAYER_COST, UNIT_COST, enter, next_units

# Pre-activations below this power of two keep their exponent: float64 could not hold them.
FAR_BELOW = -900


@part
def step_draw(m, cell, chain, budget):
    """Part of the matrices of the gates; returns its cost."""
    spec, progress = m.spec, m.progress
    n, gate = spec.width, progress.layer
    progress.units = n if spec.init == ORTHOGONAL else (n + 3) // 4
    cost = 2 * n * n if spec.init == ORTHOGONAL else 4 * n
    first, last = next_units(progress, cost, budget)
    set_key(m.key, cell, chain, gate, keys.WEIGHT)
    above = -gate * n
    q = (n + 3) // 4
    if spec.init == ORTHOGONAL:
        matrix = m.weights[gate * n : (gate + 1) * n]
        if first == 0:
            for i in range(n):
                clear(matrix[i], 0)
        build_q(m.key, first, last, matrix, m.rows[SCRATCH], m.rows[COLUMN])
    elif spec.init == GAUSSIAN:
        draws.rows_gaussian(m.key, False, first, last, m.weights, above, q, n, m.rows[SCRATCH], n)
    else:
        signs = spec.init == RADEMACHER
        draws.rows_bounded(m.key, signs, first, last, m.weights, above, q, n, m.rows[SCRATCH], n)
    if last == progress.units:
        more = gate + 1 < spec.gates
        enter(progress, DRAW if more else START, gate + 1 if more else 0)
    return (last - first) * cost


@part
def draw_bias(m, cell, chain):
    """Biases of all gates, the same at every step and in every column."""
    spec, n = m.spec, m.spec.width
    for gate in range(spec.gates):
        set_key(m.key, cell, chain, gate, keys.BIAS)
        if spec.bias_is_uniform:
            draws.fill_bounded(m.key, False, np.int64(0), m.rows[SCRATCH], n)
        else:
            draws.fill_gaussian(m.key, 0, m.rows[SCRATCH], n)
        own, drawn = m.bias[gate * n :], m.rows[SCRATCH]
        for i in each(n):
            own[i] = spec.bias * drawn[i]
        meet()


@part
def end_state(m, out, layer):
    """Normalise h_l, write down its norm and keep it where the weight gradient will want it."""
    progress = m.progress
    record_state(m.spec, m.layers, progress, m.rows[H], out, layer)
    if progress.blurred:
        out[ACTIVATION, progress.chain, layer] = math.nan
    if m.spec.wants_weight:
        if not m.spec.deferred:
            copy(m.rows[H], m.states[layer], m.spec.width * m.spec.batch)
        m.layers[layer].state_exponent = progress.h_exponent


@part
def step_start(m, cell, chain, out):
    """h_0 = input_scale times standard normals, c_0 = 0, and the biases."""
    spec, progress = m.spec, m.progress
    size = spec.width * spec.batch
    if spec.deferred:
        gated_asked.begin_asking(m)
    if spec.wants_weight:
        begin_total(progress, m.outer)
    if spec.bias > 0:
        draw_bias(m, cell, chain)
    h = m.rows[H]
    set_key(m.key, cell, chain, 0, keys.INPUT)
    draws.fill_columns(m.key, np.int64(0), spec.batch, h, spec.width, m.rows[COLUMN])
    factor = h.dtype.type(spec.input_mantissa)
    for i in each(size):
        h[i] *= factor
        m.cell[i] = 0.0
    meet()
    progress.h_exponent = spec.input_exponent
    progress.cell_exponent = NOTHING
    progress.blurred = False
    end_state(m, out, np.int64(0))
    enter(progress, FORWARD, 1)


@kernel
def add_bias(z, factor, bias, values, n, columns):
    """values = factor z + bias."""
    keep_out_of_line()
    if columns == 1:
        for i in each(n):
            values[i] = factor * z[i] + bias[i]
    else:
        for i in each(n):
            for b in range(i * columns, (i + 1) * columns):
                values[b] = factor * z[b] + bias[i]


@kernel
def add_noise(noise, deviation, values, n):
    """values += deviation noise."""
    keep_out_of_line()
    for i in each(n):
        values[i] += deviation * noise[i]


@part
def pre_activate(m, cell, chain, layer):
    """From W h to the pre-activations, x 2^u with u returned; what a GRU adds past its reset gate stays in SCRATCH."""
    spec = m.spec
    n, batch = spec.width, spec.batch
    e = m.progress.h_exponent + spec.exponent
    u = np.int64(0)
    if e < FAR_BELOW and spec.bias == 0 and spec.noise == 0:
        u = e
    values = m.work[VALUE]
    add_bias(m.gates, spec.mantissa * power(e - u), m.bias, values, spec.gates * n, batch)
    if spec.noise > 0:
        set_key(m.key, cell, chain, layer, keys.NOISE)
        for gate in range(spec.gates):
            draws.fill_columns(m.key, gate * batch, batch, m.rows[SCRATCH], n, m.rows[COLUMN])
            if spec.lstm or gate < 2:
                add_noise(m.rows[SCRATCH], spec.noise, values[gate * n * batch :], n * batch)
    return u


@part
def step_forward(m, cell, chain, out, budget):
    """Part of one step's forward pass; returns its cost."""
    spec, progress, layer = m.spec, m.progress, m.progress.layer
    progress.units = spec.forward_units
    first, last = next_units(progress, spec.forward_cost, budget)
    if spec.deferred:
        gated_asked.ask_forward(m, cell, chain, layer, first, last)
    else:
        forward_product(spec, m.weights, m.rows[H], m.gates, first, last)
    if last == progress.units:
        u = pre_activate(m, cell, chain, layer)
        if spec.lstm:
            lstm_forward(spec, m.layers, progress, m.work, m.cell, m.rows[H], m.saved, layer, u)
        else:
            gru_forward(spec, m.layers, progress, m.work, m.rows[H], m.rows[SCRATCH], m.saved, layer, u)
        fell = spec.unmixed and falls_out(m.work[FIRST], m.rows[H], spec.width * spec.batch)
        end_state(m, out, layer)
        if fell:
            progress.blurred = True
        enter(progress, FORWARD if layer < spec.depth else TURN, min(layer + 1, spec.depth))
    return (last - first) * spec.forward_cost + UNIT_COST * spec.gates * spec.width * spec.batch + LAYER_COST


@part
def step_turn(m, cell, chain, out):
    """g_L, and dLoss/dc_L = 0; then the backward pass."""
    spec, progress, depth = m.spec, m.progress, m.spec.depth
    size = spec.width * spec.columns
    g = m.rows[G]
    progress.g_exponent = 0
    progress.g_offset = 0.0
    progress.lost = -math.inf
    if spec.output == RANDOM:
        set_key(m.key, cell, chain, depth, keys.OUTPUT)
        draws.fill_columns(m.key, np.int64(0), spec.columns, g, spec.width, m.rows[COLUMN])
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
    clear(m.rows[C], 0)
    progress.c_exponent = NOTHING
    log_norm = record(spec, m.layers, progress, m.rows, m.joint, m.logs, out, depth, False)
    if progress.blurred:
        progress.lost = math.inf
    go_on(progress, depth, log_norm)


@part
def go_on(progress, layer, log_norm):
    """Take the gradient at `layer` back, or end the chain where there is none."""
    over = layer == 0 or math.isnan(log_norm) or (log_norm == -math.inf and progress.log_c == -math.inf)
    enter(progress, CLOSE if over else BACKWARD, layer)
    progress.last_value = log_norm


@part
def begin_backward(m, layer):
    """The gradient at the gates, normalised; returns whether it is in the dtype."""
    spec, progress = m.spec, m.progress
    size = spec.width * spec.columns
    g, c, d = m.rows[G], m.rows[C], m.gates
    if spec.unmixed:
        let_go(progress, g, size, progress.g_exponent)
        if spec.lstm:
            let_go(progress, c, size, progress.c_exponent)
        grow_lost(spec, m.layers, progress, m.saved, layer)
    if spec.lstm:
        lstm_backward(spec, m.layers, progress, m.saved, g, c, d, layer)
    else:
        gru_backward(spec, m.layers, progress, m.saved, g, c, d, layer)
    top = progress.d_exponent
    e, largest, _ = normalise(d, spec.gates * size, top)
    progress.d_exponent = e
    clear(g, 0)
    return largest != 0.0 and e >= top + (SMALLEST_32 if d.itemsize == 4 else SMALLEST_64)


@part
def step_backward(m, cell, chain, out, budget):
    """Part of one step's backward pass; returns its cost."""
    spec, progress, layer = m.spec, m.progress, m.progress.layer
    if progress.unit == 0:
        if not begin_backward(m, layer):
            enter(progress, CLOSE, layer)
            progress.last_value = math.nan
            return spec.width
        progress.units = spec.backward_units
    first, last = next_units(progress, spec.backward_cost, budget)
    if spec.deferred:
        gated_asked.ask_back(m, cell, chain, layer, first, last)
    else:
        backward_product(spec, m.weights, m.active, m.gates, m.rows[G], first, last)
    if last == progress.units:
        if spec.wants_weight:
            add_step(spec, m.layers, progress, m.states, m.gates, m.pending, m.outer, layer)
        end_backward(m, out, layer)
    outer = spec.gates * spec.width * spec.width // 4 if spec.wants_weight else 0
    return (last - first) * spec.backward_cost + outer + UNIT_COST * spec.width * spec.columns + LAYER_COST


@part
def end_backward(m, out, layer):
    """From W^T d to dLoss/dh_{l-1}; then the next step, or the end."""
    spec, progress = m.spec, m.progress
    size = spec.width * spec.columns
    g, c = m.rows[G], m.rows[C]
    e = progress.d_exponent + spec.exponent if spec.mantissa > 0 else NOTHING
    underflow = False
    if spec.lstm:
        factor = g.dtype.type(spec.mantissa)
        for i in each(size):
            g[i] *= factor
        meet()
        progress.g_exponent = e
        underflow = progress.c_exponent <= NOTHING // 2
    else:
        progress.g_exponent = add_vectors(g, spec.mantissa, e, c, 1.0, progress.c_exponent, size)
    log_norm = record(spec, m.layers, progress, m.rows, m.joint, m.logs, out, layer - 1, underflow)
    go_on(progress, layer - 1, log_norm)


@part
def step_close(m, out, spectra):
    """Write what is left of a chain: steps below a gradient that vanished or left the dtype, and totals."""
    spec, progress = m.spec, m.progress
    chain, layer, value = progress.chain, progress.layer, progress.last_value
    for below in range(layer):
        out[GRAD, chain, below] = value
        out[GRAD_MAX, chain, below] = value
        out[CELL_GRAD, chain, below] = value
    if spec.wants_weight:
        log_total = total_norm(spec, m.layers, progress, m.states, m.pending, m.outer, layer + 1)
        out[WEIGHT_GRAD, chain, 0] = math.nan if math.isnan(value) else log_total
    if spec.probes > 1:
        if layer > 0:
            for p in range(spec.probes):
                m.logs[0, p] = value
        write_spectrum(m.logs[0], spec.depth, spec.probes, spectra[chain])
    progress.chain += 1
    enter(progress, START if spec.init == IDENTITY or spec.deferred else DRAW, 0)


@kernel
def advance_gated(m, cell, first_chain, count, out, spectra, budget):
    """`dense.advance` for gated chains; `out` has a fifth row, for dLoss/dc_l."""
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
            budget -= m.spec.gates * m.spec.width * m.spec.width // 4 + m.spec.width * m.spec.batch
        elif progress.phase == TURN:
            step_turn(m, cell, chain, out)
        else:
            step_close(m, out, spectra)
    return progress.chain == count
