"""The weight gradient of a tied chain: dLoss/dW = sum over steps of d_l x_l^T, kept as one matrix x 2^e.

Steps wait until there are enough of them to be worth a sweep over the matrix, which is far larger than they are.
"""

from __future__ import annotations

import math

from .bits import keep_out_of_line
from .blas import gemm
from .compiling import kernel, part
from .layout import OUTER, SCRATCH, SPARE_ROW, STEPS, D
from .matrices import combine
from .normalisation import CANCELLED_DIGITS, smallest_part
from .shapes import OUTER_ROWS
from .vectors import LN2, NOTHING, clear, copy, shift, sum_of_squares


@part
def begin_total(progress, squares):
    """No steps so far."""
    progress.pending = 0
    progress.outer_exponent = NOTHING
    progress.largest_step = -math.inf
    for i in range(squares.shape[1]):
        clear(squares[OUTER, i], 0)


@kernel
def add_outer(layers, progress, vectors, states, squares, active, layer):
    """Add the pending steps, of which `layer` is the last, to the tied weight gradient in its own exponent."""
    keep_out_of_line()
    pending = progress.pending
    outer, scratch = squares[OUTER], vectors[SCRATCH]
    n = len(outer)
    # Step k is that of layer + pending - 1 - k; its partner is the state below it.
    largest = progress.outer_exponent
    for k in range(pending):
        own = layer + pending - 1 - k
        active[k] = layers[own].step_exponent + layers[own].input_exponent
        largest = max(largest, active[k])
    down = max(progress.outer_exponent - largest, -2000)
    for i in range(n):
        shift(outer[i], n, down)
    progress.outer_exponent = largest
    for k in range(pending):
        shift(vectors[STEPS + k], n, max(active[k] - largest, -2000))
        active[k] = k
    below = states[layer - 1 : layer - 1 + pending]
    for i in range(n):
        for k in range(pending):
            scratch[pending - 1 - k] = vectors[STEPS + k, i]
        combine(below, scratch, active, pending, outer[i], n)
    progress.pending = 0


@kernel
def first_column(d, target, n, columns, log_factor):
    """target[:n] 2^e = column 0 of an n x `columns` block times exp(log_factor); returns e."""
    keep_out_of_line()
    power = math.floor(log_factor / LN2)
    factor = d.dtype.type(math.exp(log_factor - power * LN2))
    for i in range(n):
        target[i] = factor * d[i * columns]
    return power


@kernel
def add_product(layers, progress, vectors, states, squares, columns, layer):
    """Add D X^T of a step with several columns to the tied weight gradient."""
    keep_out_of_line()
    d, outer = vectors[D], squares[OUTER]
    n = len(outer)
    own = progress.g_exponent + layers[layer].input_exponent
    largest = max(own, progress.outer_exponent)
    for i in range(n):
        shift(outer[i], n, max(progress.outer_exponent - largest, -2000))
    progress.outer_exponent = largest
    scaled = vectors[SPARE_ROW]
    copy(d, scaled, n * columns)
    shift(scaled, n * columns, max(own - largest, -2000))
    x = states[layer - 1]
    gemm(False, True, n, n, columns, scaled, 0, columns, x, 0, columns, True, outer, 0, outer.shape[1])


@part
def add_step(spec, layers, progress, vectors, states, squares, logs, active, layer):
    """Add d_l x_l^T of a step, d_l as held in D; of probes that of the first."""
    if spec.batch > 1:
        add_product(layers, progress, vectors, states, squares, spec.batch, layer)
    else:
        step = vectors[STEPS + progress.pending]
        layers[layer].step_exponent = progress.g_exponent
        if spec.probes > 1:
            layers[layer].step_exponent += first_column(vectors[D], step, layers[layer].width, spec.probes, logs[0, 0])
        else:
            copy(vectors[D], step, layers[layer].width)
        progress.pending += 1
        if progress.pending == OUTER_ROWS:
            add_outer(layers, progress, vectors, states, squares, active, layer)


@part
def total_norm(spec, layers, progress, vectors, states, squares, active, layer):
    """ln of the Frobenius norm of all steps, the last of which is `layer`.

    Of batch norm, where each step's columns can cancel: zero where rounding is all that is left.
    """
    if progress.pending > 0:
        add_outer(layers, progress, vectors, states, squares, active, layer)
    outer = squares[OUTER]
    total = 0.0
    for i in range(len(outer)):
        total += sum_of_squares(outer[i], len(outer))
    log_norm = 0.5 * math.log(total) + progress.outer_exponent * LN2 if total > 0 else -math.inf
    least = math.log(smallest_part(outer.itemsize, CANCELLED_DIGITS))
    nothing = len(outer) == 1 or log_norm < progress.largest_step + least
    return -math.inf if spec.weights_cancel and nothing else log_norm
