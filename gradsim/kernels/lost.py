"""Units of an identity chain that leave the dtype: no matrix ever mixes them with others, so they may yet count."""

from __future__ import annotations

import math

from .bits import keep_out_of_line
from .compiling import kernel, part
from .ops import TANH
from .team import count_over, each
from .vectors import DIGITS_32, DIGITS_64, LN2, SMALLEST_32, SMALLEST_64

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
    for i in each(n):
        for b in range(i * columns, (i + 1) * columns):
            # Slopes from TANH on are never zero: where one is, it rounded to it.
            slope = slopes[i if spec.probes > 1 else b]
            if abs(after[b]) < smallest and before[b] != 0 and (slope != 0 or spec.activation >= TANH):
                after[b] = 0
                count += 1
    count = count_over(count)
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
