"""What is written down of the gradient of a gated chain at each step: of h_l as elsewhere, and of an LSTM's cell."""

from __future__ import annotations

import math

import numpy as np

from .bits import keep_out_of_line
from .compiling import kernel, part
from .gated_layout import CELL_GRAD, C, G
from .gated_shapes import COEFFICIENTS
from .gates import power
from .layout import GRAD, GRAD_MAX
from .probes import orthonormalise
from .recording import record_gradient
from .team import count_over, each, max_over, sum_over
from .vectors import DIGITS_32, DIGITS_64, LN2, SMALLEST_32, SMALLEST_64, copy, normalise, shift

LSTM_ROWS, GRU_ROWS = COEFFICIENTS["lstm"], COEFFICIENTS["gru"]


@kernel
def log_first_norm(x, n, k):
    """ln of the norm and of the largest entry of the first of k columns."""
    keep_out_of_line()
    largest, total = 0.0, 0.0
    for i in each(n):
        v = abs(np.float64(x[i * k]))
        largest = max(largest, v)
        total += v * v
    largest, total = max_over(largest), sum_over(total)
    if largest == 0.0:
        return -math.inf, -math.inf
    return 0.5 * math.log(total), math.log(largest)


@kernel
def record_probes(spec, progress, vectors, joint, logs, out, layer):
    """Make the probes orthonormal and write down the first; returns ln ||g_l|| of it.

    Those of an LSTM are pairs of dLoss/dh_l and dLoss/dc_l, one below the other.
    """
    keep_out_of_line()
    n, k = spec.width, spec.probes
    g, c = vectors[G], vectors[C]
    e, length = progress.g_exponent, n
    if spec.lstm:
        e, length = max(e, progress.c_exponent), 2 * n
        shift(g, n * k, max(progress.g_exponent - e, -2000))
        shift(c, n * k, max(progress.c_exponent - e, -2000))
        copy(c, joint[n * k :], n * k)
    copy(g, joint, n * k)
    orthonormalise(joint, length, k, e, k, logs[0], logs[1], logs[2])
    copy(joint, g, n * k)
    if layer == spec.depth:
        for p in range(k):
            logs[0, p] = 0.0
    progress.g_exponent = 0
    progress.g_offset = logs[0, 0]
    log_norm, log_max = log_first_norm(g, n, k)
    if not math.isfinite(logs[0, 0]):
        log_norm = log_max = 0.0
    out[GRAD, progress.chain, layer] = log_norm + progress.g_offset
    out[GRAD_MAX, progress.chain, layer] = log_max + progress.g_offset
    progress.log_c = -math.inf
    if spec.lstm:
        copy(joint[n * k :], c, n * k)
        progress.c_exponent = 0
        progress.log_c, _ = log_first_norm(c, n, k)
        out[CELL_GRAD, progress.chain, layer] = progress.log_c + progress.g_offset
    return log_norm + progress.g_offset


@part
def record(spec, layers, progress, vectors, joint, logs, out, layer, underflow):
    """Write down the gradient at h_l and c_l; returns ln ||g_l|| as held, NaN where it left the dtype.

    `underflow`: dLoss/dc_l has, and is no more than rounding to what is below.
    """
    if spec.probes > 1:
        return record_probes(spec, progress, vectors, joint, logs, out, layer)
    log_norm = record_gradient(spec, layers, progress, vectors[G], out, layer)
    progress.log_c = -math.inf
    if spec.lstm:
        c = vectors[C]
        size = spec.width * spec.columns
        e, _, progress.log_c = normalise(c, size, progress.c_exponent)
        progress.c_exponent = e
        out[CELL_GRAD, progress.chain, layer] = math.nan if underflow else progress.log_c + progress.g_offset
    if spec.unmixed:
        digits = DIGITS_32 if vectors.itemsize == 4 else DIGITS_64
        seen = progress.lost + digits * LN2
        if (spec.mantissa > 0 and seen > log_norm) or (spec.lstm and seen > progress.log_c):
            log_norm = math.nan
            out[GRAD, progress.chain, layer] = math.nan
            out[GRAD_MAX, progress.chain, layer] = math.nan
            out[CELL_GRAD, progress.chain, layer] = math.nan
    return log_norm


@kernel
def let_go(progress, x, n, e):
    """Zero the entries of x 2^e that are about to leave the dtype, and keep a bound on their norm."""
    keep_out_of_line()
    tiny = DIGITS_32 + SMALLEST_32 if x.itemsize == 4 else DIGITS_64 + SMALLEST_64
    smallest = math.ldexp(1.0, tiny)
    count = 0
    for i in each(n):
        if abs(x[i]) < smallest and x[i] != 0:
            x[i] = 0
            count += 1
    count = count_over(count)
    if count > 0:
        fresh = 0.5 * math.log(count) + (tiny + e) * LN2
        larger, smaller = max(progress.lost, fresh), min(progress.lost, fresh)
        progress.lost = larger + math.log1p(math.exp(smaller - larger))


@kernel
def falls_out(x, h, n):
    """Whether an entry of x has no digits left in h, which is x times a power of two in the dtype."""
    keep_out_of_line()
    smallest = math.ldexp(1.0, SMALLEST_32 if h.itemsize == 4 else SMALLEST_64)
    count = 0
    for i in each(n):
        count += x[i] != 0.0 and abs(h[i]) < smallest
    return count_over(count) > 0


@kernel
def grow_lost(spec, layers, progress, saved, layer):
    """Let the bound grow by the largest factor by which this step may take a unit's gradient back."""
    keep_out_of_line()
    n = spec.width * spec.batch
    step = layers[layer]
    scale = math.ldexp(spec.mantissa, spec.exponent)
    first, second, candidate, kept = power(step.first), power(step.second), power(step.candidate), power(step.kept)
    largest = 0.0
    if spec.lstm:
        row = (layer - 1) * LSTM_ROWS
        output, through = power(step.output), power(step.through)
        for i in each(n):
            inner = abs(saved[row, i]) * first + abs(saved[row + 1, i]) * second + abs(saved[row + 2, i]) * candidate
            down = scale * inner + kept * saved[row + 5, i]
            largest = max(largest, down, scale * output * abs(saved[row + 3, i]) + through * saved[row + 4, i] * down)
    else:
        row = (layer - 1) * GRU_ROWS
        for i in each(n):
            inner = abs(saved[row, i]) * first + abs(saved[row + 1, i]) * second + abs(saved[row + 2, i]) * candidate
            largest = max(largest, scale * inner + kept * saved[row + 3, i])
    largest = max_over(largest)
    progress.lost += math.log(largest) if largest > 0.0 else -math.inf
