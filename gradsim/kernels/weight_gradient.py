"""ln ||dLoss/dW_l||, dLoss/dW_l = d_l x_l^T: from two norms, or from two Gram matrices where a batch shares W_l.

||D X^T||^2 = sum over pairs of columns of (D^T D) (X^T X), without ever forming the n x n matrix.
"""

from __future__ import annotations

import math

import numpy as np

from . import links
from .bits import keep_out_of_line
from .blas import gemm
from .compiling import kernel
from .kinds import INT, OUT, REAL, VOID, matrix, vector
from .layout import WEIGHT_GRAD, D
from .linking import linked
from .links import step
from .normalisation import CANCELLED_DIGITS, GRADIENT_DIGITS, smallest_part
from .team import count_over, each, sum_over
from .vectors import LN2


@kernel
def square_of_product(d, n, x, m, columns):
    """Squared Frobenius norm of D X^T, entry by entry."""
    keep_out_of_line()
    total = 0.0
    for i in each(n):
        for j in range(m):
            entry = 0.0
            for b in range(columns):
                entry += np.float64(d[i * columns + b]) * x[j * columns + b]
            total += entry * entry
    return sum_over(total)


@kernel
def varying(x, m, columns):
    """How many of the m rows of x are not the same in all columns."""
    keep_out_of_line()
    count = 0
    for j in each(m):
        same = True
        for b in range(1, columns):
            same = same and x[j * columns + b] == x[j * columns]
        count += not same
    return count_over(count)


@kernel
def _log_product_norm(d, n, x, m, columns, grams, cancels):
    """ln of the Frobenius norm of D X^T, D n x columns and X m x columns.

    Gram matrices give its square: where that has few digits left, they are looked for one by one. Where there are
    none it is zero if the law says so: under batch norm (`cancels`), where one entry of x alone differs from column to
    column. Else it is NaN.
    """
    keep_out_of_line()
    first, second = grams[0], grams[1]
    gemm(True, False, columns, columns, n, d, 0, columns, d, 0, columns, False, first, 0, columns)
    gemm(True, False, columns, columns, m, x, 0, columns, x, 0, columns, False, second, 0, columns)
    total, left, right = 0.0, 0.0, 0.0
    for k in each(columns * columns):
        total += np.float64(first[k]) * second[k]
    total = sum_over(total)
    for k in range(0, columns * columns, columns + 1):
        left += first[k]
        right += second[k]
    if left == 0.0 or right == 0.0:
        return -math.inf
    least = smallest_part(d.itemsize, GRADIENT_DIGITS)
    if total > left * right * least:
        return 0.5 * math.log(total)
    total = square_of_product(d, n, x, m, columns)
    if cancels:
        # What of d was not taken out before adds rounding of its own.
        least = smallest_part(d.itemsize, CANCELLED_DIGITS)
    if total > left * right * least * least and not (cancels and m == 1):
        return 0.5 * math.log(total)
    return -math.inf if total == 0.0 or (cancels and varying(x, m, columns) <= 1) else math.nan


log_product_norm = linked(_log_product_norm, REAL, lambda r: (vector(r), INT, vector(r), INT, INT, matrix(r), INT))


@step(VOID, OUT, INT, REAL)
def note_weight_gradient(m, out, layer, log_d):
    """Write down the norm of a layer's weight gradient, or note that of a step of a tied chain's total."""
    spec, progress, own = m.spec, m.progress, m.layers[layer]
    if spec.tied_gradient:
        progress.largest_step = max(progress.largest_step, log_d + own.log_input)
    else:
        n, below = own.width, m.layers[layer - 1].width
        d = m.rows[D]
        value = log_d + own.log_input
        if spec.probes > 1:
            square = links.column_square(m, d, n, spec.probes, 0)
            value = -math.inf
            if square > 0.0:
                value = 0.5 * math.log(square) + progress.g_exponent * LN2 + m.logs[0, 0] + own.log_input
        elif spec.batch > 1:
            value = log_product_norm(m, d, n, m.states[layer - 1], below, spec.batch, m.grams, spec.weights_cancel)
            value += (progress.g_exponent + own.input_exponent) * LN2
        out[WEIGHT_GRAD, progress.chain, layer - 1] = math.nan if math.isnan(log_d) else value + progress.g_offset
