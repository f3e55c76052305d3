"""Pointing the key of a kernel at one stream of a cell."""

from __future__ import annotations

import numpy as np

from . import rng
from .bits import keep_out_of_line
from .compiling import kernel, part


@kernel
def _set_key(key, cell, chain, layer, purpose):
    keep_out_of_line()
    key[0], key[1], key[2], key[3] = rng.layer_key(cell[0], cell[1], cell[2], cell[3], chain, layer, purpose)


@part
def set_key(key, cell, chain, layer, purpose):
    """Point `key` at one stream."""
    # Of one type each: Numba compiles a function again for every constant it is called with.
    _set_key(key, cell, chain, np.int64(layer), np.int64(purpose))
