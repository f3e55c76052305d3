"""Dropout with inverted scaling: a unit stays, divided by 1 - p, or goes; the mask is drawn wherever it is needed."""

from __future__ import annotations

import numpy as np

from . import rng
from .bits import keep_out_of_line
from .compiling import kernel
from .team import each

u32 = np.uint32


@kernel
def drop(key, threshold, factor, x, n, batch, columns):
    """x times the mask: zero where a unit's word is below `threshold`, else `factor`.

    The mask has a column for each of the batch, or one that several gradients share.
    """
    keep_out_of_line()
    k0, k1, k2, k3 = key[0], key[1], key[2], key[3]
    k4 = rng.parity(k0, k1, k2, k3)
    zero, kept = x.dtype.type(0), x.dtype.type(factor)
    limit = u32(threshold)
    q = (n + 3) // 4
    share = columns // batch
    for b in range(batch):
        for i in each(q):
            words = rng.threefry13(k0, k1, k2, k3, k4, u32(b), u32(i))
            for r in range(4):
                unit = i + r * q
                if unit < n:
                    mask = zero if words[r] < limit else kept
                    for c in range(unit * columns + b * share, unit * columns + (b + 1) * share):
                        x[c] *= mask
