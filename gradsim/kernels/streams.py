"""Pointing the key of a kernel at one stream of a cell."""

from __future__ import annotations

import numpy as np

from . import rng
from .bits import keep_out_of_line, prefer_wide_vectors
from .compiling import kernel, part
from .team import each


@kernel
def _set_key(key, cell, chain, layer, purpose):
    keep_out_of_line()
    key[0], key[1], key[2], key[3] = rng.layer_key(cell[0], cell[1], cell[2], cell[3], chain, layer, purpose)


@part
def set_key(key, cell, chain, layer, purpose):
    """Point `key` at one stream."""
    # Of one type each: Numba compiles a function again for every constant it is called with.
    _set_key(key, cell, chain, np.int64(layer), np.int64(purpose))


@kernel
def _set_keys(words, cell, chain, first, step, purpose):
    prefer_wide_vectors()
    keep_out_of_line()
    c0, c1, c2, c3 = cell[0], cell[1], cell[2], cell[3]
    low, high = np.uint32(chain & 0xFFFFFFFF), np.uint32(chain >> 32)
    start, increment, own = np.uint32(first), np.uint32(step), np.uint32(purpose)
    w0, w1, w2, w3 = words[0], words[1], words[2], words[3]
    for r in each(len(w0)):
        layer = np.uint32(start + np.uint32(increment * np.uint32(r)))
        w0[r], w1[r], w2[r], w3[r] = rng.threefry20(c0, c1, c2, c3, low, high, layer, own)


@part
def set_keys(words, cell, chain, first, step, purpose):
    """Keys of the streams of layers first, first + step, ..., a column each: side by side they cost as much as one."""
    _set_keys(words, cell, chain, np.int64(first), np.int64(step), np.int64(purpose))
