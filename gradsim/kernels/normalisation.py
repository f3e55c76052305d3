"""Batch, layer and RMS normalisation of vectors held as x 2^e, forward and backward.

A vector of a layer is n units times B columns, unit after unit. A group is what one mean and variance are taken over:
the columns of a unit (batch), or the units of a column (layer; RMS, which takes no mean). With sigma the root of a
group's variance and y = (x - mean) / sigma, the way back is that of Ioffe and Szegedy (arXiv 1502.03167, section 3):
d_x = (d_y - mean d_y - y mean(d_y y)) / sigma; RMS has no second term. Norms of several gradients, with one vector
forward, share its y and sigma.
"""

from __future__ import annotations

import math

import numpy as np

from .bits import keep_out_of_line
from .compiling import kernel, part, reduction
from .layout import BATCH_NORM, RMS_NORM

# A group has no spread where it is this small beside its mean: float64 cannot tell it from rounding.
NO_SPREAD = 2.0**-48
# Below this exponent a normalised vector (norm_eps > 0) is too small for y to matter on the way back.
NEGLIGIBLE = -100


@reduction
def batch_forward(x, n, columns, shrink, eps, true, kept, inverse):
    """Batch norm of n units, each over its own columns, which lie next to each other."""
    keep_out_of_line()
    for i in range(n):
        own, y = x[i * columns : (i + 1) * columns], kept[i * columns : (i + 1) * columns]
        total = 0.0
        for b in range(columns):
            total += own[b]
        mean = total / columns
        total = 0.0
        for b in range(columns):
            v = own[b] - mean
            total += v * v
        factor = inverse_sigma(total / columns, mean, shrink, eps)
        inverse[i] = factor
        for b in range(columns):
            own[b] = (own[b] - mean) * factor
            y[b] = own[b] * true


@reduction
def batch_backward(d, n, columns, kept, inverse):
    """The way back through `batch_forward`."""
    keep_out_of_line()
    for i in range(n):
        own, y = d[i * columns : (i + 1) * columns], kept[i * columns : (i + 1) * columns]
        total, along = 0.0, 0.0
        for b in range(columns):
            v = np.float64(own[b])
            total += v
            along += v * y[b]
        total, along = total / columns, along / columns
        for b in range(columns):
            own[b] = (own[b] - total - y[b] * along) * inverse[i]


@kernel
def column_forward(x, n, columns, centred, shrink, eps, true, kept, inverse, moments):
    """Layer or RMS norm of each of the columns, over n units."""
    keep_out_of_line()
    means, squares = moments[0], moments[1]
    for b in range(columns):
        means[b] = squares[b] = 0.0
    if centred:
        for i in range(n):
            row = x[i * columns : (i + 1) * columns]
            for b in range(columns):
                means[b] += row[b]
        for b in range(columns):
            means[b] /= n
    for i in range(n):
        row = x[i * columns : (i + 1) * columns]
        for b in range(columns):
            v = row[b] - means[b]
            row[b] = v
            squares[b] += v * v
    for b in range(columns):
        inverse[b] = inverse_sigma(squares[b] / n, means[b], shrink, eps)
    for i in range(n):
        row, y = x[i * columns : (i + 1) * columns], kept[i * columns : (i + 1) * columns]
        for b in range(columns):
            row[b] *= inverse[b]
            y[b] = row[b] * true


@kernel
def column_backward(d, n, columns, centred, shared, kept, inverse, moments):
    """The way back through `column_forward`; with `shared`, of several gradients through one column."""
    keep_out_of_line()
    means, along = moments[0], moments[1]
    for b in range(columns):
        means[b] = along[b] = 0.0
    for i in range(n):
        row = d[i * columns : (i + 1) * columns]
        for b in range(columns):
            v = np.float64(row[b])
            means[b] += v
            along[b] += v * kept[i if shared else i * columns + b]
    for b in range(columns):
        means[b] = means[b] / n if centred else 0.0
        along[b] /= n
    for i in range(n):
        row = d[i * columns : (i + 1) * columns]
        for b in range(columns):
            y = kept[i if shared else i * columns + b]
            row[b] = (row[b] - means[b] - y * along[b]) * inverse[0 if shared else b]


@part
def inverse_sigma(variance, mean, shrink, eps):
    """1 / sqrt(variance shrink^2 + eps), zero for what has no variance."""
    least = abs(mean) * NO_SPREAD
    return 1.0 / math.sqrt(variance * shrink * shrink + eps) if variance > least * least else 0.0


@kernel
def norm_forward(spec, layer, x, n, e, kept, inverse, moments):
    """x 2^e <- its normalised form; returns the new exponent.

    `kept` receives y and `inverse` 1 / sigma of each group, as a number times 2^-layer.norm_exponent; zero for a
    group without spread, whose y is zero. `moments` are two rows of one float64 a group to work in.
    """
    keep_out_of_line()
    # sigma is a number times 2^own, with own large enough for the variance and for eps.
    own = e
    eps, shrink = 0.0, 1.0
    if spec.norm_eps > 0.0:
        own = max(e, math.frexp(math.sqrt(spec.norm_eps))[1])
        shrink = math.ldexp(1.0, max(e - own, -500))
        root = math.ldexp(math.sqrt(spec.norm_eps), max(-own, -1000))
        eps = root * root
    true = math.ldexp(1.0, e - own) if e - own > NEGLIGIBLE else 0.0
    if spec.norm == BATCH_NORM:
        batch_forward(x, n, spec.batch, shrink, eps, true, kept, inverse)
    else:
        column_forward(x, n, spec.batch, spec.norm != RMS_NORM, shrink, eps, true, kept, inverse, moments)
    layer.norm_exponent = own
    return e - own


@kernel
def norm_backward(spec, layer, d, n, e, kept, inverse, moments):
    """d 2^e <- the gradient at the input of `norm_forward`; returns the new exponent."""
    keep_out_of_line()
    if spec.norm == BATCH_NORM:
        batch_backward(d, n, spec.columns, kept, inverse)
    else:
        column_backward(d, n, spec.columns, spec.norm != RMS_NORM, spec.batch == 1, kept, inverse, moments)
    return e - layer.norm_exponent
