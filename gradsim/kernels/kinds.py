"""Numba types of what the engine's kernels are given, for signatures that are written down before any call."""

from __future__ import annotations

from typing import Any

import numba
from numba import types

from .layout import LAYER, PROGRESS, SPEC, Memory

VOID, INT, REAL, FLAG = types.none, types.int64, types.float64, types.boolean
SPEC_RECORD, LAYER_RECORD, PROGRESS_RECORD = (numba.from_dtype(dtype) for dtype in (SPEC, LAYER, PROGRESS))
LAYERS = types.Array(LAYER_RECORD, 1, "C")
INDICES, LINKS = types.Array(types.int64, 1, "C"), types.Array(types.int64, 1, "C")
KEY = types.Array(types.uint32, 1, "C")
DOUBLES, DOUBLE_ROWS = types.Array(types.float64, 1, "C"), types.Array(types.float64, 2, "C")
OUT, SPECTRA = types.Array(types.float32, 3, "C"), types.Array(types.float32, 2, "C")
SPECTRUM = types.Array(types.float32, 1, "C")


def vector(real: Any) -> Any:
    """A vector of the chain's dtype."""
    return types.Array(real, 1, "C")


def matrix(real: Any) -> Any:
    """Rows of the chain's dtype."""
    return types.Array(real, 2, "C")


def memory(real: Any) -> Any:
    """`layout.Memory` for the chain's dtype."""
    rows, cube = matrix(real), types.Array(real, 3, "C")
    kinds = {
        "spec": SPEC_RECORD,
        "layers": LAYERS,
        "progress": PROGRESS_RECORD,
        "rows": rows,
        "slopes": rows,
        "states": rows,
        "squares": cube,
        "slab": rows,
        "norms": rows,
        "grams": rows,
        "queries": rows,
        "answers": rows,
        "back_queries": rows,
        "back_answers": rows,
        "coefficients": rows,
        "mixed": rows,
        "grams_64": DOUBLE_ROWS,
        "wide": DOUBLE_ROWS,
        "inverse": DOUBLE_ROWS,
        "moments": DOUBLE_ROWS,
        "logs": DOUBLE_ROWS,
        "active": INDICES,
        "key": KEY,
        "links": LINKS,
    }
    return types.NamedTuple(tuple(kinds[name] for name in Memory._fields), Memory)
