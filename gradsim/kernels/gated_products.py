"""The matrices of all gates as one, W of gates n rows: Z = W X, G = W^T D and the outer products D X^T.

One copy serves both directions, by dot products with its rows and by sums of them: a second one, transposed, would
not fit into the second-level cache beside it. Several columns go through BLAS, a fixed number of rows at a time,
since another number gives other bits.
"""

from __future__ import annotations

import math

from .bits import keep_out_of_line
from .blas import gemm
from .compiling import kernel, part
from .gated_shapes import GROUP
from .layout import IDENTITY
from .matrices import combine, row_products
from .team import each
from .vectors import LN2, NOTHING, clear, copy, shift, sum_of_squares


@kernel
def forward_product(spec, weights, x, z, first, last):
    """Units first .. last of Z = W X."""
    keep_out_of_line()
    n, columns = spec.width, spec.batch
    rows, pitch = spec.gates * n, weights.shape[1]
    if spec.init == IDENTITY:
        for k in range(spec.gates):
            copy(x, z[k * n * columns :], n * columns)
    elif columns == 1:
        row_products(weights, x, first * GROUP, min(last * GROUP, rows), pitch, z, first * GROUP)
    else:
        for top in range(first * spec.forward_rows, min(last * spec.forward_rows, rows), spec.forward_rows):
            count = min(spec.forward_rows, rows - top)
            at = top * pitch
            gemm(False, False, count, columns, n, weights, at, pitch, x, 0, columns, False, z, top * columns, columns)


@kernel
def backward_product(spec, weights, active, d, g, first, last):
    """G += what units first .. last add to W^T D."""
    keep_out_of_line()
    n, columns = spec.width, spec.columns
    rows, pitch = spec.gates * n, weights.shape[1]
    if spec.init == IDENTITY:
        for k in range(spec.gates):
            own = d[k * n * columns :]
            for i in each(n * columns):
                g[i] += own[i]
    elif columns == 1:
        start, stop = first * GROUP, min(last * GROUP, rows)
        combine(weights, d, active[start:stop], stop - start, g, pitch)
    else:
        for top in range(first * spec.backward_rows, min(last * spec.backward_rows, rows), spec.backward_rows):
            count = min(spec.backward_rows, rows - top)
            at = top * pitch
            gemm(True, False, n, columns, count, weights, at, pitch, d, top * columns, columns, True, g, 0, columns)


@kernel
def add_outer(spec, layers, progress, states, pending, outer, layer):
    """Add the pending steps, of which `layer` is the lowest, to the weight gradient in its own exponent.

    They lie at the end of `pending`, the lowest first, as the states below them do.
    """
    keep_out_of_line()
    rows, n, columns, count = spec.outer_rows, spec.outer_columns, spec.batch, progress.pending
    pitch = outer.shape[1]
    first = len(pending) - count
    largest = progress.outer_exponent
    for k in range(count):
        largest = max(largest, layers[layer + k].step_exponent + layers[layer + k - 1].state_exponent)
    down = max(progress.outer_exponent - largest, -2000)
    if down < 0:
        for i in range(rows):
            shift(outer[i], n, down)
    progress.outer_exponent = largest
    for k in range(count):
        own = layers[layer + k].step_exponent + layers[layer + k - 1].state_exponent
        shift(pending[first + k], rows * columns, max(own - largest, -2000))
    below = (layer - 1) * states.shape[1]
    if columns == 1:
        wide, at = pending.shape[1], first * pending.shape[1]
        gemm(True, False, rows, n, count, pending, at, wide, states, below, states.shape[1], True, outer, 0, pitch)
    else:
        gemm(False, True, rows, n, columns, pending, 0, columns, states, below, columns, True, outer, 0, pitch)
    progress.pending = 0


@part
def begin_total(progress, outer):
    """No steps so far."""
    progress.pending = 0
    progress.outer_exponent = NOTHING
    for i in range(len(outer)):
        clear(outer[i], 0)


@kernel
def take_first(spec, d, log_scale, out):
    """The gradient at the gates of the first probe, times exp(log_scale); returns the power of two left out."""
    keep_out_of_line()
    k = spec.probes
    whole = math.floor(log_scale / LN2)
    factor = d.dtype.type(math.exp(log_scale - whole * LN2))
    for i in each(spec.outer_rows):
        out[i] = factor * d[i * k]
    return whole


@part
def add_step(spec, layers, progress, states, d, pending, outer, layer):
    """Let the gradient at the gates wait to be added; that of probes in its true size, as their scale changes."""
    own = pending[len(pending) - 1 - progress.pending]
    layers[layer].step_exponent = progress.d_exponent
    if spec.probes > 1:
        layers[layer].step_exponent += take_first(spec, d, progress.g_offset, own)
    else:
        copy(d, own, spec.outer_rows * spec.batch)
    progress.pending += 1
    if progress.pending == len(pending):
        add_outer(spec, layers, progress, states, pending, outer, layer)


@part
def total_norm(spec, layers, progress, states, pending, outer, layer):
    """ln of the Frobenius norm of all steps, the last of which is `layer`; that of probes in its true size."""
    if progress.pending > 0:
        add_outer(spec, layers, progress, states, pending, outer, layer)
    total = 0.0
    for i in range(len(outer)):
        total += sum_of_squares(outer[i], spec.outer_columns)
    if total == 0.0:
        return -math.inf
    own = 0.5 * math.log(total) + progress.outer_exponent * LN2
    return own if spec.probes > 1 else own + progress.g_offset
