"""Loops and sums that a team of threads shares: on the CPU a team is one thread, on a GPU the threads of a block.

What a chain's vectors go through is written once, for a team. A loop over `each` has iterations that are independent
of each other, and index i is always the same thread's; sums over such a loop are joined, in a fixed order, before
anybody uses them; and a function with such a loop ends only when all threads are there (see `cuda.target`). What lies
outside these loops is worked out by every thread for itself, from the same numbers, and comes out the same. On the CPU
all of this is nothing: `each` is `range`, and the others return what they are given.
"""

from __future__ import annotations

each = range


def sum_over(x):
    """The sum of what the team's threads have, float64 on a GPU."""
    return x


def max_over(x):
    """The largest of what they have, NaN if one has NaN."""
    return x


def count_over(x):
    """The sum of integers."""
    return x


def leads():
    """Whether this thread does what only one may do."""
    return True


def meet():
    """Wait until all threads are here: what one wrote before, all may read after."""


def add_once(x, i, value):
    """x[i] += value, once for the team."""
    x[i] += value
