"""One step of an LSTM and of a GRU, past its matrix product: forward with what the way back needs, and backward.

Of each step a handful of coefficients is kept, products of gates and slopes, so that the way back is multiplications
alone. Each has an exponent of its own: a saturated gate leaves the dtype only where it leaves float64.

LSTM: c' = f c + i g, h' = o tanh c'. With dc = dLoss/dc' + `through` dLoss/dh', the gradients at the gates i, f, g, o
are `first`, `second`, `candidate` times dc and `output` times dLoss/dh', and dLoss/dc is `kept` times dc.

GRU: n = tanh(noise + r a), a = W_n h + b_n, h' = (1 - z) n + z h. The gradients at r, z, a are `first`, `second`,
`candidate` times dLoss/dh', of which `kept` passes by.
"""

from __future__ import annotations

import numpy as np

from .bits import keep_out_of_line
from .compiling import kernel
from .gated_layout import FIRST, SECOND, SLOPE, VALUE
from .gated_shapes import COEFFICIENTS
from .gates import (
    add_weighted,
    blend,
    difference,
    keep,
    multiply,
    power,
    saturate,
    size_of,
    squash,
    weigh,
    weigh_in_place,
)
from .team import each
from .vectors import NOTHING, copy, normalise

LSTM_ROWS, GRU_ROWS = COEFFICIENTS["lstm"], COEFFICIENTS["gru"]


@kernel
def lstm_forward(spec, layers, progress, work, cell, h, saved, layer, u):
    """From pre-activations x 2^u to h_l and c_l."""
    keep_out_of_line()
    n = spec.width * spec.batch
    values, slopes, first, second = work[VALUE], work[SLOPE], work[FIRST], work[SECOND]
    i, f, g, o = values[:n], values[n : 2 * n], values[2 * n : 3 * n], values[3 * n :]
    slope_i, slope_f, slope_g, slope_o = slopes[:n], slopes[n : 2 * n], slopes[2 * n : 3 * n], slopes[3 * n :]
    product, c, slope_c = first[:n], first[n : 2 * n], first[2 * n : 3 * n]
    row = (layer - 1) * LSTM_ROWS
    step = layers[layer]

    true = power(u)
    squash(i, slope_i, second, n, true, 0.0)
    squash(f, slope_f, second, n, true, spec.forget_bias)
    squash(o, slope_o, second, n, true, 0.0)
    g_exponent = saturate(g, slope_g, n, u)
    multiply(g, slope_i, product, n)
    step.first = keep(product, saved[row], n, g_exponent)
    multiply(cell, slope_f, product, n)
    step.second = keep(product, saved[row + 1], n, progress.cell_exponent)
    multiply(i, slope_g, product, n)
    step.candidate = keep(product, saved[row + 2], n, np.int64(0))
    step.kept = keep(f, saved[row + 5], n, np.int64(0))

    e = max(size_of(g, n, g_exponent), size_of(cell, n, progress.cell_exponent))
    blend(f, cell, power(progress.cell_exponent - e), i, g, power(g_exponent - e), c, n)
    copy(c, cell, n)
    progress.cell_exponent = e
    c_exponent = saturate(c, slope_c, n, e)
    multiply(c, slope_o, product, n)
    step.output = keep(product, saved[row + 3], n, c_exponent)
    multiply(o, slope_c, product, n)
    step.through = keep(product, saved[row + 4], n, np.int64(0))
    multiply(o, c, product, n)
    progress.h_exponent = keep(product, h, n, c_exponent)


@kernel
def lstm_backward(spec, layers, progress, saved, g, c, d, layer):
    """From dLoss/dh_l and dLoss/dc_l to the gradient at the gates and dLoss/dc_{l-1}."""
    keep_out_of_line()
    n, share = spec.width * spec.batch, spec.columns // spec.batch
    size = n * share
    row = (layer - 1) * LSTM_ROWS
    step = layers[layer]
    through = progress.g_exponent + step.through
    e = max(progress.c_exponent, through)
    add_weighted(c, power(progress.c_exponent - e), saved[row + 4], g, power(through - e), n, share)
    e, _, _ = normalise(c, size, e)
    output = progress.g_exponent + step.output
    top = max(max(e + step.first, e + step.second), max(e + step.candidate, output))
    weigh(saved[row], c, power(e + step.first - top), d[:size], n, share)
    weigh(saved[row + 1], c, power(e + step.second - top), d[size : 2 * size], n, share)
    weigh(saved[row + 2], c, power(e + step.candidate - top), d[2 * size : 3 * size], n, share)
    weigh(saved[row + 3], g, power(output - top), d[3 * size :], n, share)
    weigh_in_place(saved[row + 5], c, n, share)
    progress.c_exponent = max(e + step.kept, NOTHING)
    progress.d_exponent = top


@kernel
def gru_forward(spec, layers, progress, work, h, noise, saved, layer, u):
    """From pre-activations x 2^u to h_l; `noise` is what the third gate gets past its reset."""
    keep_out_of_line()
    n = spec.width * spec.batch
    values, slopes, first, second = work[VALUE], work[SLOPE], work[FIRST], work[SECOND]
    r, z, a = values[:n], values[n : 2 * n], values[2 * n :]
    slope_r, slope_z, slope_n = slopes[:n], slopes[n : 2 * n], slopes[2 * n :]
    product, rest, new = first[:n], first[n : 2 * n], first[2 * n :]
    at_n, old = second[:n], second[n : 2 * n]
    row = (layer - 1) * GRU_ROWS
    step = layers[layer]

    true = power(u)
    squash(r, slope_r, product, n, true, 0.0)
    squash(z, slope_z, rest, n, true, 0.0)
    multiply(r, a, new, n)
    if spec.noise > 0:
        for k in each(n):
            new[k] += spec.noise * noise[k]
    n_exponent = saturate(new, slope_n, n, u)
    multiply(rest, slope_n, at_n, n)
    multiply(at_n, r, product, n)
    step.candidate = keep(product, saved[row + 2], n, np.int64(0))
    multiply(at_n, a, product, n)
    multiply(product, slope_r, at_n, n)
    step.first = keep(at_n, saved[row], n, u)
    step.kept = keep(z, saved[row + 3], n, np.int64(0))

    copy(h, old, n)
    e = max(size_of(old, n, progress.h_exponent), size_of(new, n, n_exponent))
    old_factor, new_factor = power(progress.h_exponent - e), power(n_exponent - e)
    difference(old, old_factor, new, new_factor, at_n, n)
    multiply(at_n, slope_z, product, n)
    step.second = keep(product, saved[row + 1], n, e)
    blend(z, old, old_factor, rest, new, new_factor, product, n)
    progress.h_exponent = keep(product, h, n, e)


@kernel
def gru_backward(spec, layers, progress, saved, g, c, d, layer):
    """From dLoss/dh_l to the gradient at the gates, and in C what passes by them."""
    keep_out_of_line()
    n, share = spec.width * spec.batch, spec.columns // spec.batch
    size = n * share
    row = (layer - 1) * GRU_ROWS
    step = layers[layer]
    top = max(max(step.first, step.second), step.candidate)
    weigh(saved[row], g, power(step.first - top), d[:size], n, share)
    weigh(saved[row + 1], g, power(step.second - top), d[size : 2 * size], n, share)
    weigh(saved[row + 2], g, power(step.candidate - top), d[2 * size :], n, share)
    weigh(saved[row + 3], g, 1.0, c, n, share)
    progress.c_exponent = max(progress.g_exponent + step.kept, NOTHING)
    progress.d_exponent = progress.g_exponent + top
