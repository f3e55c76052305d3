"""From g_l = dLoss/dh_l to d_l, the gradient at W x: back through what a layer does to its pre-activations."""

from __future__ import annotations

import math

from . import keys
from .bits import keep_out_of_line
from .compiling import kernel, part
from .dropout import drop
from .layout import AFTER, BEFORE, BRANCH, LAYER_NORM, D, G
from .lone import NEVER
from .normalisation import GRADIENT_DIGITS, norm_backward, silence, smallest_part
from .ops import LINEAR, TANH
from .probes import nonzero_rows
from .streams import set_key
from .vectors import (
    DIGITS_32,
    DIGITS_64,
    LN2,
    SMALLEST_32,
    SMALLEST_64,
    absolute_maximum,
    clear,
    copy,
    multiply,
    normalise,
    scale,
)

# No activation beyond tanh is steeper than this.
STEEPEST = 1.2


@kernel
def note_lost(spec, progress, after, before, slopes, n):
    """Take units of an identity chain that fell out of the dtype out of a vector, and keep a bound on their norm.

    Elsewhere the next W mixes all units, and what is that far behind never counts again. Where units never mix, the
    others may yet fall below it.
    """
    keep_out_of_line()
    tiny = DIGITS_32 + SMALLEST_32 if after.itemsize == 4 else DIGITS_64 + SMALLEST_64
    smallest = math.ldexp(1.0, tiny)
    count = 0
    columns = spec.columns
    for i in range(n):
        for b in range(i * columns, (i + 1) * columns):
            # Slopes from TANH on are never zero: where one is, it rounded to it.
            slope = slopes[i if spec.probes > 1 else b]
            if abs(after[b]) < smallest and before[b] != 0 and (slope != 0 or spec.activation >= TANH):
                after[b] = 0
                count += 1
    if count > 0:
        fresh = 0.5 * math.log(count) + (tiny + progress.g_exponent) * LN2
        larger, smaller = max(progress.lost, fresh), min(progress.lost, fresh)
        progress.lost = larger + 0.5 * math.log1p(math.exp(2.0 * (smaller - larger)))


@part
def lost_counts(progress, log_norm, itemsize):
    """Whether units that left the dtype may be seen in a norm of which those left have this logarithm."""
    digits = DIGITS_32 if itemsize == 4 else DIGITS_64
    return progress.lost > log_norm - digits * LN2


@part
def steepest(spec):
    """A bound on |phi'|."""
    return STEEPEST if spec.activation > TANH else max(1.0, abs(spec.slope))


@kernel
def apply_slopes(d, slopes, n, columns):
    """Each of several columns times the same slopes."""
    keep_out_of_line()
    for i in range(n):
        for b in range(i * columns, (i + 1) * columns):
            d[b] *= slopes[i]


@part
def normal_directions(spec):
    """Directions of a vector that a norm over it takes out: ones, and its own unless eps gives it length."""
    return (1 if spec.norm == LAYER_NORM else 0) + (1 if spec.norm_eps == 0.0 else 0)


@kernel
def drop_silent(d, y, n, columns, batch):
    """Zero the gradients at units that are zero themselves: phi will not pass them."""
    keep_out_of_line()
    share = columns // batch
    for k in range(n * columns):
        if y[k // share] == 0:
            d[k] = 0


@part
def silence_lone(spec, progress, d, n, rule, moments):
    """Zero what is zero in the law because a norm divides by all that is there; of probes, one direction less."""
    if rule != NEVER:
        if spec.probes > 1:
            progress.rank = min(progress.rank, nonzero_rows(d, n, spec.columns) - 1)
            if progress.rank <= 0:
                clear(d, 0)
        else:
            silence(rule, d, n, spec.columns, moments[0])


@part
def undo_branch(spec, layers, progress, d, norms, inverse, moments, key, cell, chain, layer):
    """Back through what comes after phi: the branch's factor, dropout, a norm after phi."""
    n = layers[layer].width
    size = n * spec.columns
    if spec.skip:
        scale(d, size, spec.branch)
        progress.g_exponent += spec.branch_exponent
    if spec.drops:
        set_key(key, cell, chain, layer, keys.DROPOUT)
        drop(key, spec.threshold, spec.kept, d, n, spec.batch, spec.columns)
        if spec.probes > 1:
            progress.rank = min(progress.rank, nonzero_rows(d, n, spec.columns))
        rule = spec.kept_rule if layer < spec.depth else spec.kept_last
        if rule != NEVER and spec.norm_position == AFTER:
            drop_silent(d, norms[layer - 1], n, spec.columns, spec.batch)
        silence_lone(spec, progress, d, n, rule, moments)
    if spec.norm_position == AFTER:
        own = layers[layer]
        progress.g_exponent = norm_backward(
            spec, own, d, n, progress.g_exponent, norms[layer - 1], inverse[layer - 1], moments
        )
        progress.rank = min(progress.rank, n - normal_directions(spec))
    progress.g_exponent, _, _ = normalise(d, size, progress.g_exponent)


@part
def take_slopes(spec, layers, progress, vectors, slopes, norms, inverse, moments, key, cell, chain, layer):
    """d_l, normalised; returns ln ||d_l|| as held, NaN where it left the dtype and not the law.

    Where nobody needs that norm it is left out: a d of zero then shows in W^T d.
    """
    n = layers[layer].width
    size = n * spec.columns
    d, g = vectors[D], vectors[G]
    row = slopes[0 if spec.activation == LINEAR else layer - 1]
    before = g
    if spec.skip or spec.drops or spec.norm_position == AFTER:
        copy(g, d, size)
        undo_branch(spec, layers, progress, d, norms, inverse, moments, key, cell, chain, layer)
        copy(d, vectors[BRANCH], size)
        before = vectors[BRANCH]
    if spec.activation == LINEAR:
        copy(before, d, size)
    elif spec.probes > 1:
        copy(before, d, size)
        apply_slopes(d, row, n, spec.columns)
    else:
        multiply(row, before, d, size)
    clear(d, size)
    log_norm = 0.0
    top = progress.g_exponent
    if spec.probes > 1:
        progress.rank = min(progress.rank, nonzero_rows(d, n, spec.columns))
    silence_lone(spec, progress, d, n, spec.passed if layer < spec.depth else spec.passed_last, moments)
    if spec.norm and spec.activation != LINEAR:
        # What cancelled to rounding and is not known to be zero: where phi passes it, as large as rounding of the rest.
        largest = absolute_maximum(d, size)
        rest = absolute_maximum(before, size) * absolute_maximum(row, n * spec.batch)
        if largest != 0.0 and largest < rest * smallest_part(d.itemsize, GRADIENT_DIGITS):
            d[0] = math.nan
    last = spec.norm_position != BEFORE  # else the norm is still to come
    if spec.activation >= TANH or spec.unmixed or (last and (spec.wants_weight or spec.skip or spec.norm)):
        e, largest, log_norm = normalise(d, size, top)
        progress.g_exponent = e
        if spec.activation >= TANH:
            smallest = SMALLEST_32 if d.itemsize == 4 else SMALLEST_64
            if (largest == 0.0 or e < top + smallest) and absolute_maximum(before, size) > 0.0:
                log_norm = math.nan
        if spec.unmixed and not spec.skip:
            note_lost(spec, progress, d, before, row, n)
            progress.lost += math.log(steepest(spec))
            if lost_counts(progress, log_norm, d.itemsize):
                log_norm = math.nan
    if not last:
        own, e = layers[layer], progress.g_exponent
        e = norm_backward(spec, own, d, n, e, norms[layer - 1], inverse[layer - 1], moments)
        progress.rank = min(progress.rank, n - normal_directions(spec))
        left = math.isnan(log_norm)
        progress.g_exponent, _, log_norm = normalise(d, size, e)
        if left:
            log_norm = math.nan
    return log_norm
