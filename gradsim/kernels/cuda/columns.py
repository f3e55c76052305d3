"""Sums over columns and over entries, where the CPU's loops have one thread in mind; signatures are the CPU's."""

from __future__ import annotations

import math

import numpy as np

from gradsim.kernels.lone import COLUMN, LAYER, UNIT, WHOLE_UNIT
from gradsim.kernels.normalisation import SPREAD_DIGITS, inverse_sigma, smallest_part

from .threads import count_over, each, max_over, sum_over


def absolute_maximum(x, n):
    """Largest |x_i| of the first n entries as float64; NaN if any entry is NaN."""
    largest = 0.0
    for i in each(n):
        v = abs(np.float64(x[i]))
        largest = v if v > largest or v != v else largest
    return max_over(largest)


def exceeds(x, n, bound):
    """Whether some |x_i| of the first n entries is above a bound."""
    count = 0
    for i in each(n):
        count += abs(x[i]) > bound
    return count_over(count) > 0


def orthogonalise(g, n, k, p, along):
    """Take column p, of length 1, out of the columns after it."""
    for r in range(p + 1, k):
        total = 0.0
        for i in each(n):
            total += np.float64(g[i * k + p]) * g[i * k + r]
        part = g.dtype.type(sum_over(total))
        for i in each(n):
            g[i * k + r] -= g[i * k + p] * part


def reflect_columns(v, length, factor, y, start, columns, along):
    """Rows start .. of Y <- H times them, H = 1 - factor v v^T."""
    for b in range(columns):
        total = 0.0
        for r in each(length):
            total += np.float64(v[r]) * y[(start + r) * columns + b]
        step = y.dtype.type(factor * sum_over(total))
        for r in each(length):
            y[(start + r) * columns + b] -= step * v[r]


def column_forward(x, n, columns, centred, shrink, eps, true, silent, lost, kept, inverse, moments):
    """Layer or RMS norm of each of the columns, over n units."""
    least = smallest_part(x.itemsize, SPREAD_DIGITS)
    for b in range(columns):
        mean = 0.0
        if centred:
            for i in each(n):
                mean += x[i * columns + b]
            mean = sum_over(mean) / n
        square = 0.0
        for i in each(n):
            v = x[i * columns + b] - mean
            square += v * v
        factor = inverse_sigma(sum_over(square) / n, mean, least, shrink, eps, silent, lost)
        inverse[b] = factor
        for i in each(n):
            v = x.dtype.type((x[i * columns + b] - mean) * factor)
            x[i * columns + b] = v
            kept[i * columns + b] = v * true


def column_backward(d, n, columns, centred, shared, kept, inverse, moments):
    """The way back through `column_forward`; with `shared`, of several gradients through one column.

    Returns the square of what was taken out.
    """
    taken = 0.0
    for b in range(columns):
        mean, along = 0.0, 0.0
        for i in each(n):
            v = np.float64(d[i * columns + b])
            mean += v
            along += v * kept[i if shared else i * columns + b]
        mean = sum_over(mean) / n if centred else 0.0
        along = sum_over(along) / n
        factor = inverse[0 if shared else b]
        for i in each(n):
            y = kept[i if shared else i * columns + b]
            d[i * columns + b] = (d[i * columns + b] - mean - y * along) * factor
        taken += n * (mean * mean + along * along) * (factor * factor)
    return taken


def silence(rule, d, n, columns, counts):
    """Zero the gradients of an n x `columns` block that are zero by a rule of `lone`; `counts`: one entry a column."""
    if rule == LAYER:
        first, last = math.inf, -1.0
        for k in each(n * columns):
            if d[k] != 0:
                first, last = min(first, float(k % columns)), max(last, float(k % columns))
        first, last = -max_over(-first), max_over(last)
        if last <= first:
            for k in each(n * columns):
                d[k] = 0
    elif rule in (UNIT, WHOLE_UNIT):
        zero = 1 if rule == UNIT else columns
        for i in each(n):
            count = 0
            for b in range(i * columns, (i + 1) * columns):
                count += d[b] != 0
            if count == zero:
                for b in range(i * columns, (i + 1) * columns):
                    d[b] = 0
    else:
        zero = 1 if rule == COLUMN else n
        for b in range(columns):
            count = 0
            for i in each(n):
                count += d[i * columns + b] != 0
            if count_over(count) == zero:
                for i in each(n):
                    d[i * columns + b] = 0
