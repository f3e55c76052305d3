"""A team of threads: the threads of a block, and the one function through which they join what each has.

All functions use the same shared memory, whose size a launch gives (`shared_bytes`): each only between two moments at
which all threads meet.
"""

from __future__ import annotations

import numpy as np
from numba import cuda

# How many threads take the first step of a sum; each then adds up what these have.
JOINERS = 16


class Placeholder:
    """What a translation puts a value in the place of."""


#: The chain's dtype.
real = Placeholder()
#: Threads of a block are EDGE^2, so that a block is a square of matrix entries as well.
EDGE = Placeholder()
#: Four times EDGE.
SPAN = Placeholder()


def shared_bytes(threads: int, edge: int) -> int:
    """Shared memory of a block: four numbers of each thread, or two blocks of 4 edge^2, float64."""
    return 8 * max(4 * threads, 8 * edge**2)


def each(n):
    """Indices below n that are this thread's."""
    return range(cuda.threadIdx.x, n, cuda.blockDim.x)


def leads():
    """Whether this is the first thread."""
    return cuda.threadIdx.x == 0


def meet():
    """Wait until all threads are here."""
    cuda.syncthreads()


def larger(a, b):
    """The larger of two, NaN if one is."""
    return a if a > b or a != a else b


def join(x, largest):
    """The sum of what all threads have, or the largest; float64, in a fixed order, the same for each thread."""
    room = cuda.shared.array(0, np.float64)
    thread, threads = cuda.threadIdx.x, cuda.blockDim.x
    room[thread] = x
    cuda.syncthreads()
    if thread < JOINERS:
        own = room[thread]
        for k in range(thread + JOINERS, threads, JOINERS):
            own = larger(own, room[k]) if largest else own + room[k]
        room[thread] = own
    cuda.syncthreads()
    total = room[0]
    for k in range(1, min(JOINERS, threads)):
        total = larger(total, room[k]) if largest else total + room[k]
    cuda.syncthreads()
    return total


def sum_over(x):
    """The sum of what all threads have."""
    return join(np.float64(x), False)


def max_over(x):
    """The largest of what they have, NaN if one has NaN."""
    return join(np.float64(x), True)


def count_over(x):
    """The sum of integers, exact up to 2^53."""
    return np.int64(join(np.float64(x), False))


def add_once(x, i, value):
    """x[i] += value, by one thread."""
    cuda.syncthreads()
    if cuda.threadIdx.x == 0:
        x[i] += value
    cuda.syncthreads()


def lanes_for(count, threads):
    """How many threads lie side by side over so many entries: of the powers of two, the one that wastes fewest.

    The other threads form rows of their own, each of which takes a slice of what is summed over.
    """
    best = threads
    least = (count + best - 1) // best * best
    lanes = threads // 2
    while lanes >= 32 or (lanes >= count and lanes > 0):
        padded = (count + lanes - 1) // lanes * lanes
        if padded < least:
            best, least = lanes, padded
        lanes //= 2
    return best
