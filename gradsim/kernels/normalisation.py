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
from .layout import AFTER, BATCH_NORM, BEFORE, PRE, RMS_NORM
from .lone import COLUMN, LAYER, UNIT, WHOLE_UNIT
from .ops import ERF
from .team import each, sum_over
from .vectors import DIGITS_32, DIGITS_64, LN2, NOTHING, clear, exceeds, sum_of_squares

# A spread of fewer digits than so many beside its mean is rounding.
SPREAD_DIGITS = 7
# So are those of a gradient of which a norm leaves no more than so many.
GRADIENT_DIGITS = 5
# A weight gradient that may be zero by what a norm takes out of d is zero with no more than so many.
CANCELLED_DIGITS = 10
# Below this exponent a normalised vector (norm_eps > 0) is too small for y to matter on the way back.
NEGLIGIBLE = -100


@reduction
def batch_forward(x, n, columns, shrink, eps, true, silent, lost, kept, inverse):
    """Batch norm of n units, each over its own columns, which lie next to each other."""
    keep_out_of_line()
    least = smallest_part(x.itemsize, SPREAD_DIGITS)
    for i in each(n):
        own, y = x[i * columns : (i + 1) * columns], kept[i * columns : (i + 1) * columns]
        total = 0.0
        for b in range(columns):
            total += own[b]
        mean = total / columns
        total = 0.0
        for b in range(columns):
            v = own[b] - mean
            total += v * v
        factor = inverse_sigma(total / columns, mean, least, shrink, eps, silent, lost)
        inverse[i] = factor
        for b in range(columns):
            own[b] = (own[b] - mean) * factor
            y[b] = own[b] * true


@reduction
def batch_backward(d, n, columns, kept, inverse):
    """The way back through `batch_forward`; returns the square of what was taken out."""
    keep_out_of_line()
    taken = 0.0
    for i in each(n):
        own, y = d[i * columns : (i + 1) * columns], kept[i * columns : (i + 1) * columns]
        total, along = 0.0, 0.0
        for b in range(columns):
            v = np.float64(own[b])
            total += v
            along += v * y[b]
        total, along = total / columns, along / columns
        for b in range(columns):
            own[b] = (own[b] - total - y[b] * along) * inverse[i]
        taken += columns * (total * total + along * along) * (inverse[i] * inverse[i])
    return sum_over(taken)


@kernel
def column_forward(x, n, columns, centred, shrink, eps, true, silent, lost, kept, inverse, moments):
    """Layer or RMS norm of each of the columns, over n units."""
    keep_out_of_line()
    least = smallest_part(x.itemsize, SPREAD_DIGITS)
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
        inverse[b] = inverse_sigma(squares[b] / n, means[b], least, shrink, eps, silent, lost)
    for i in range(n):
        row, y = x[i * columns : (i + 1) * columns], kept[i * columns : (i + 1) * columns]
        for b in range(columns):
            row[b] *= inverse[b]
            y[b] = row[b] * true


@kernel
def column_backward(d, n, columns, centred, shared, kept, inverse, moments):
    """The way back through `column_forward`; with `shared`, of several gradients through one column.

    Returns the square of what was taken out.
    """
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
    taken = 0.0
    for b in range(columns):
        factor = inverse[0 if shared else b]
        taken += n * (means[b] * means[b] + along[b] * along[b]) * (factor * factor)
    return taken


@part
def smallest_part(itemsize, digits):
    """What is smaller than this part of a number has fewer digits left than so many when it is taken out of it."""
    return math.ldexp(1.0, digits - (DIGITS_32 if itemsize == 4 else DIGITS_64))


@part
def inverse_sigma(variance, mean, least, shrink, eps, silent, lost):
    """1 / sqrt(variance shrink^2 + eps); `silent` for a group of zeros, `lost` where the spread is rounding."""
    smallest = abs(mean) * least
    if variance > smallest * smallest:
        return 1.0 / math.sqrt(variance * shrink * shrink + eps)
    return silent if mean == 0.0 and variance == 0.0 else lost


@part
def without_variance(spec, layer):
    """1 / sigma of a group of zeros, and of one whose entries are the same to rounding: 0 by the law, or else NaN.

    They are equal in the law where the matrix or what it acts on is zero. Zeros are zeros, but of a phi that is
    nowhere zero and rounds to it.
    """
    still = layer.mantissa == 0.0 or (spec.norm_position != PRE and layer.input_exponent <= NOTHING // 2)
    if spec.norm_position != BEFORE and spec.norm_position != AFTER:
        still = still and spec.carry == 0.0
    lost = 0.0 if still and spec.noise == 0.0 else math.nan
    silent = 0.0 if spec.norm_position == BEFORE or spec.activation <= ERF else lost
    return silent, lost


@kernel
def norm_forward(spec, layer, x, n, e, kept, inverse, moments):
    """x 2^e <- its normalised form; returns the new exponent.

    `kept` receives y and `inverse` 1 / sigma of each group, as a number times 2^-layer.norm_exponent; zero for a
    group without spread, whose y is zero, and NaN where the dtype has no digits for its spread. `moments` are two rows
    of one float64 a group to work in.
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
    silent, lost = without_variance(spec, layer)
    if spec.norm == BATCH_NORM:
        batch_forward(x, n, spec.batch, shrink, eps, true, silent, lost, kept, inverse)
    else:
        centred = spec.norm != RMS_NORM
        column_forward(x, n, spec.batch, centred, shrink, eps, true, silent, lost, kept, inverse, moments)
    layer.norm_exponent = own
    return e - own


@kernel
def silence_parallel(d, n, columns, by_row, centred, kept):
    """Zero a group's gradient of one entry where all other entries of y are the same: it lies along y and its mean.

    Groups are the n rows of a block, or its columns.
    """
    keep_out_of_line()
    groups, count, step = (n, columns, 1) if by_row else (columns, n, columns)
    for group in each(groups):
        start = group * columns if by_row else group
        only = -1
        for k in range(count):
            if d[start + k * step] != 0:
                if only >= 0:
                    only = -1
                    break
                only = k
        if only < 0:
            continue
        rest = kept[start + (step if only == 0 else 0)] if centred else kept.dtype.type(0)
        same = True
        for k in range(count):
            same = same and (k == only or kept[start + k * step] == rest)
        if same:
            d[start + only * step] = 0


@kernel
def norm_backward(spec, layer, d, n, e, kept, inverse, moments):
    """d 2^e <- the gradient at the input of `norm_forward`; returns the new exponent.

    Where no digits are left of it, it is NaN: what is zero in the law has to be zero before (see `lone`). Beside a
    carry that may outweigh it, it is taken as zero, and `layer.blur` bounds it.
    """
    keep_out_of_line()
    if spec.norm_eps == 0.0 and spec.probes == 1:
        silence_parallel(d, n, spec.batch, spec.norm == BATCH_NORM, spec.norm != RMS_NORM, kept)
    if spec.norm == BATCH_NORM:
        taken = batch_backward(d, n, spec.columns, kept, inverse)
    else:
        taken = column_backward(d, n, spec.columns, spec.norm != RMS_NORM, spec.batch == 1, kept, inverse, moments)
    least = smallest_part(d.itemsize, GRADIENT_DIGITS) * math.sqrt(taken)
    size = n * spec.columns
    layer.blur = -math.inf
    if not exceeds(d, size, least) and sum_of_squares(d, size) < least * least:
        if spec.forgives:
            layer.blur = math.log(least) + (e - layer.norm_exponent) * LN2
            clear(d, 0)
        else:
            d[0] = math.nan
    return e - layer.norm_exponent


@kernel
def silence(rule, d, n, columns, counts):
    """Zero the gradients of an n x `columns` block that are zero by a rule of `lone`; `counts`: one entry a column."""
    keep_out_of_line()
    if rule == LAYER:
        only = -1
        for i in range(n):
            for b in range(columns):
                if d[i * columns + b] != 0:
                    if only >= 0 and b != only:
                        return
                    only = b
        for k in range(n * columns):
            d[k] = 0
    elif rule in (UNIT, WHOLE_UNIT):
        zero = 1 if rule == UNIT else columns
        for i in range(n):
            own = d[i * columns : (i + 1) * columns]
            count = 0
            for b in range(columns):
                count += own[b] != 0
                if count > zero:
                    break
            if count == zero:
                for b in range(columns):
                    own[b] = 0
    else:
        zero = 1 if rule == COLUMN else n
        for b in range(columns):
            counts[b] = 0.0
        for i in range(n):
            for b in range(columns):
                counts[b] += d[i * columns + b] != 0
        for b in range(columns):
            if counts[b] == zero:
                for i in range(n):
                    d[i * columns + b] = 0
