"""Golden vectors of the random streams, written by the reference alone: integers that must never change.

    python -m tests.kernels.golden > tests/kernels/golden.json

is run again only when `STREAM_VERSION` rises.
"""

from __future__ import annotations

import json
import sys

import numpy as np

from gradsim.kernels import keys
from gradsim.kernels.reference import stream_key, threefry4x32

PURPOSES = {name: getattr(keys, name) for name in ("WEIGHT", "BIAS", "INPUT", "OUTPUT", "NOISE", "DROPOUT")}
CELLS = (
    (0, "{}", "independent"),
    (1, "{}", "independent"),
    (2**64 - 1, "{}", "independent"),
    (0, '{"width":64}', "independent"),
    (0, "{}", "common"),
)
CHAINS = (0, 1, 2**32 - 1, 2**32, 2**40 + 7)
LAYERS = (0, 1, 10_000)
ROWS = (1, 2, 3, 5, 7, 64)
COLUMNS = 3


def hexadecimal(words):
    """Words as text, eight digits each."""
    return [f"{int(word):08x}" for word in np.ravel(words)]


def block(key, column, group):
    """The four words at one counter."""
    return threefry4x32(key, np.array([[column], [group], [0], [0]], np.uint32), 13)


def matrix_words(key, rows, columns):
    """The word behind each entry of a matrix, row by row."""
    q = -(-rows // 4)
    return [[hexadecimal(block(key, j, r % q))[r // q] for j in range(columns)] for r in range(rows)]


def golden():
    """Everything, as it goes into JSON."""
    first_cell = keys.cell_key(*CELLS[0])
    streams = [(chain, layer, name) for chain in CHAINS for layer in LAYERS for name in PURPOSES]
    first = stream_key(first_cell, 0, 1, keys.WEIGHT)
    return {
        "made_by": "python -m tests.kernels.golden > tests/kernels/golden.json",
        "stream_version": keys.STREAM_VERSION,
        "cells": [
            {"seed": cell[0], "canonical": cell[1], "streams": cell[2], "key": hexadecimal(keys.cell_key(*cell))}
            for cell in CELLS
        ],
        "layers": [
            {
                "chain": chain,
                "layer": layer,
                "purpose": name,
                "key": hexadecimal(stream_key(first_cell, chain, layer, PURPOSES[name])),
                "first_block": hexadecimal(block(stream_key(first_cell, chain, layer, PURPOSES[name]), 0, 0)),
            }
            for chain, layer, name in streams
        ],
        "matrices": [{"rows": rows, "words": matrix_words(first, rows, COLUMNS)} for rows in ROWS],
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(golden(), indent=1) + "\n")
