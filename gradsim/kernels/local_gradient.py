"""From g_l = dLoss/dh_l to d_l, the gradient at W x: back through what a layer does to its pre-activations."""

from __future__ import annotations

import math

from . import keys, links
from .bits import keep_out_of_line
from .compiling import kernel, part
from .kinds import FLAG, INT, KEY, REAL, VOID
from .layout import AFTER, BEFORE, BRANCH, LAYER_NORM, D, G
from .links import step
from .lone import NEVER
from .lost import lost_counts, steepest
from .normalisation import GRADIENT_DIGITS, silence, smallest_part
from .ops import LINEAR, TANH
from .probes import apply_slopes, nonzero_rows
from .streams import set_key
from .team import each
from .vectors import (
    SMALLEST_32,
    SMALLEST_64,
    absolute_maximum,
    clear,
    copy,
    exceeds,
    multiply,
    normalise,
    scale,
)


@part
def normal_directions(spec):
    """Directions of a vector that a norm over it takes out: ones, and its own unless eps gives it length."""
    return (1 if spec.norm == LAYER_NORM else 0) + (1 if spec.norm_eps == 0.0 else 0)


@kernel
def drop_silent(d, y, n, columns, batch):
    """Zero the gradients at units that are zero themselves: phi will not pass them."""
    keep_out_of_line()
    share = columns // batch
    for k in each(n * columns):
        if y[k // share] == 0:
            d[k] = 0


@part
def silence_lone(m, d, n, rule):
    """Zero what is zero in the law because a norm divides by all that is there; of probes, one direction less."""
    spec, progress = m.spec, m.progress
    if rule != NEVER:
        if spec.probes > 1:
            progress.rank = min(progress.rank, links.nonzero_rows(m, d, n, spec.columns) - 1)
            if progress.rank <= 0:
                clear(d, 0)
        else:
            silence(rule, d, n, spec.columns, m.moments[0])


@step(VOID, FLAG, INT)
def drop_cancelled(m, from_branch, layer):
    """Zero or NaN, as the law has it, for what a norm takes out of phi'(z_l) times what came to it."""
    spec = m.spec
    n = m.layers[layer].width
    size = n * spec.columns
    d, before = m.rows[D], m.rows[BRANCH if from_branch else G]
    silence_lone(m, d, n, spec.passed if layer < spec.depth else spec.passed_last)
    least = smallest_part(d.itemsize, GRADIENT_DIGITS)
    # What came to it is below 2, as all that was normalised.
    if spec.activation != LINEAR and not exceeds(d, size, 2.0 * steepest(spec) * least):
        # What cancelled to rounding and is not known to be zero: where phi passes it, as large as rounding of the rest.
        largest = absolute_maximum(d, size)
        rest = absolute_maximum(before, size) * absolute_maximum(m.slopes[layer - 1], n * spec.batch)
        if largest != 0.0 and largest < rest * least:
            d[0] = math.nan


@part
def undo_norm(m, d, layer):
    """Back through the norm of the values of a layer."""
    spec, progress, own = m.spec, m.progress, m.layers[layer]
    kept, inverse = m.norms[layer - 1], m.inverse[layer - 1]
    n = own.width
    progress.g_exponent = links.norm_backward(m, spec, own, d, n, progress.g_exponent, kept, inverse, m.moments)
    progress.rank = min(progress.rank, n - normal_directions(spec))


@step(VOID, KEY, INT, INT)
def undo_branch(m, cell, chain, layer):
    """Back from g_l through what comes after phi: the branch's factor, dropout, a norm after phi; into BRANCH."""
    spec, progress = m.spec, m.progress
    n = m.layers[layer].width
    size = n * spec.columns
    d = m.rows[BRANCH]
    copy(m.rows[G], d, size)
    if spec.skip:
        scale(d, size, spec.branch)
        progress.g_exponent += spec.branch_exponent
    if spec.drops:
        set_key(m.key, cell, chain, layer, keys.DROPOUT)
        links.drop(m, m.key, spec.threshold, spec.kept, d, n, spec.batch, spec.columns)
        if spec.probes > 1:
            progress.rank = min(progress.rank, links.nonzero_rows(m, d, n, spec.columns))
        rule = spec.kept_rule if layer < spec.depth else spec.kept_last
        if rule != NEVER and spec.norm_position == AFTER:
            drop_silent(d, m.norms[layer - 1], n, spec.columns, spec.batch)
        silence_lone(m, d, n, rule)
    if spec.norm_position == AFTER:
        undo_norm(m, d, layer)
    progress.g_exponent, _, _ = normalise(d, size, progress.g_exponent)


@part
def is_blurred(m, layer):
    """Whether d_l is zero because it cancelled in a norm behind or before phi, the law's value unknown."""
    inside = m.spec.norm_position in (BEFORE, AFTER)
    return m.spec.forgives != 0 and inside and m.layers[layer].blur > -math.inf


@step(REAL, FLAG, INT)
def measure(m, from_branch, layer):
    """Back from phi'(z_l) times what came to it through a norm before phi; returns ln ||d_l||, d_l normalised.

    NaN where it left the dtype and not the law.
    """
    spec, progress = m.spec, m.progress
    n = m.layers[layer].width
    size = n * spec.columns
    d, before = m.rows[D], m.rows[BRANCH if from_branch else G]
    if spec.norm:
        drop_cancelled(m, from_branch, layer)
    top = progress.g_exponent
    largest, log_norm, left = 0.0, 0.0, False
    if spec.activation >= TANH or spec.norm_position != BEFORE:
        progress.g_exponent, largest, log_norm = normalise(d, size, top)
    if spec.activation >= TANH:
        smallest = SMALLEST_32 if d.itemsize == 4 else SMALLEST_64
        left = (largest == 0.0 or progress.g_exponent < top + smallest) and absolute_maximum(before, size) > 0.0
    if spec.unmixed and not spec.skip:
        links.note_lost(m, spec, progress, d, before, m.slopes[layer - 1], n)
        progress.lost += math.log(steepest(spec))
        left = left or lost_counts(progress, log_norm, d.itemsize)
    if spec.norm_position == BEFORE:
        undo_norm(m, d, layer)
        progress.g_exponent, _, log_norm = normalise(d, size, progress.g_exponent)
    return math.nan if left or is_blurred(m, layer) else log_norm


@step(VOID, INT)
def shed_slopes(m, layer):
    """D times the slopes that all probes share, and how many of them can be independent after that."""
    spec, progress = m.spec, m.progress
    d, n = m.rows[D], m.layers[layer].width
    if spec.activation != LINEAR:
        apply_slopes(d, m.slopes[layer - 1], n, spec.probes)
    progress.rank = min(progress.rank, nonzero_rows(d, n, spec.probes))


@part
def take_slopes(m, cell, chain, layer):
    """d_l; returns ln ||d_l|| as held, NaN where it left the dtype and not the law.

    Where nobody needs that norm it is left out: a d of zero then shows in W^T d.
    """
    spec = m.spec
    n = m.layers[layer].width
    size = n * spec.columns
    d, row = m.rows[D], m.slopes[0 if spec.activation == LINEAR else layer - 1]
    from_branch = spec.skip != 0 or spec.drops != 0 or spec.norm_position == AFTER
    if from_branch:
        undo_branch(m, cell, chain, layer)
    before = m.rows[BRANCH if from_branch else G]
    if spec.activation == LINEAR or spec.probes > 1:
        copy(before, d, size)
    else:
        multiply(row, before, d, size)
    if spec.probes > 1:
        shed_slopes(m, layer)
    clear(d, size)
    log_norm = 0.0
    if spec.activation >= TANH or spec.unmixed or spec.wants_weight or spec.skip or spec.norm:
        log_norm = measure(m, from_branch, layer)
    return log_norm
