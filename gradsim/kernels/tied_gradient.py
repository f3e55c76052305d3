"""The weight gradient of a tied chain: dLoss/dW = sum over steps of d_l x_l^T, kept as one matrix x 2^e.

Steps wait until there are enough of them to be worth a sweep over the matrix, which is far larger than they are.
"""

from __future__ import annotations

import math

from .bits import keep_out_of_line
from .blas import gemm
from .compiling import kernel, part
from .kinds import INT, REAL, VOID, vector
from .layout import OUTER, SCRATCH, SPARE_ROW, STEPS, D
from .linking import linked
from .links import step
from .matrices import combine
from .normalisation import CANCELLED_DIGITS, smallest_part
from .shapes import OUTER_ROWS
from .team import each
from .vectors import LN2, NOTHING, clear, copy, shift, sum_of_squares


@part
def begin_total(progress, squares):
    """No steps so far."""
    progress.pending = 0
    progress.outer_exponent = NOTHING
    progress.largest_step = -math.inf
    for i in range(squares.shape[1]):
        clear(squares[OUTER, i], 0)


@step(VOID, INT)
def add_outer(m, layer):
    """Add the pending steps, of which `layer` is the last, to the tied weight gradient in its own exponent."""
    layers, progress, vectors, active = m.layers, m.progress, m.rows, m.active
    pending = progress.pending
    outer, scratch = m.squares[OUTER], vectors[SCRATCH]
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
    below = m.states[layer - 1 : layer - 1 + pending]
    for i in range(n):
        for k in range(pending):
            scratch[pending - 1 - k] = vectors[STEPS + k, i]
        combine(below, scratch, active, pending, outer[i], n)
    progress.pending = 0


@kernel
def _first_column(d, target, n, columns, log_factor):
    """target[:n] 2^e = column 0 of an n x `columns` block times exp(log_factor); returns e."""
    keep_out_of_line()
    power = math.floor(log_factor / LN2)
    factor = d.dtype.type(math.exp(log_factor - power * LN2))
    for i in each(n):
        target[i] = factor * d[i * columns]
    return power


first_column = linked(_first_column, INT, lambda r: (vector(r), vector(r), INT, INT, REAL))


@step(VOID, INT)
def add_product(m, layer):
    """Add D X^T of a step with several columns to the tied weight gradient."""
    progress, columns = m.progress, m.spec.batch
    d, outer = m.rows[D], m.squares[OUTER]
    n = len(outer)
    own = progress.g_exponent + m.layers[layer].input_exponent
    largest = max(own, progress.outer_exponent)
    for i in range(n):
        shift(outer[i], n, max(progress.outer_exponent - largest, -2000))
    progress.outer_exponent = largest
    scaled = m.rows[SPARE_ROW]
    copy(d, scaled, n * columns)
    shift(scaled, n * columns, max(own - largest, -2000))
    x = m.states[layer - 1]
    gemm(False, True, n, n, columns, scaled, 0, columns, x, 0, columns, True, outer, 0, outer.shape[1])


@part
def add_step(m, layer):
    """Add d_l x_l^T of a step, d_l as held in D; of probes that of the first."""
    spec, progress, own = m.spec, m.progress, m.layers[layer]
    if spec.batch > 1:
        add_product(m, layer)
    else:
        row = m.rows[STEPS + progress.pending]
        own.step_exponent = progress.g_exponent
        if spec.probes > 1:
            own.step_exponent += first_column(m, m.rows[D], row, m.squares.shape[1], spec.probes, m.logs[0, 0])
        else:
            copy(m.rows[D], row, m.squares.shape[1])
        progress.pending += 1
        if progress.pending == OUTER_ROWS:
            add_outer(m, layer)


@part
def total_norm(m, layer):
    """ln of the Frobenius norm of all steps, the last of which is `layer`.

    Of batch norm, where each step's columns can cancel: NaN where rounding is all that is left, zero for one unit.
    """
    progress = m.progress
    if progress.pending > 0:
        add_outer(m, layer)
    outer = m.squares[OUTER]
    total = 0.0
    for i in range(len(outer)):
        total += sum_of_squares(outer[i], len(outer))
    log_norm = 0.5 * math.log(total) + progress.outer_exponent * LN2 if total > 0 else -math.inf
    if m.spec.weights_cancel:
        least = math.log(smallest_part(outer.itemsize, CANCELLED_DIGITS))
        if len(outer) == 1:
            log_norm = -math.inf
        elif -math.inf < log_norm < progress.largest_step + least:
            log_norm = math.nan
    return log_norm
