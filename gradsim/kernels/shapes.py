"""How much memory a kernel works in: sizes alone, so that a plan can count it without compiling anything."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from gradsim.chain import Chain

LANES = 16  # float32 in the widest vectors; narrow loops are padded to it, since a scalar remainder costs far more
SPARE = 4 * LANES  # entries at the end of a vector that hold blocks on their way
CACHE_LINE = 64  # bytes
VECTORS = 9  # working vectors beside the steps below
OUTER_ROWS = 16  # time steps whose outer products are added in one sweep over a tied weight gradient
SQUARES = 3  # working matrices of a tied chain
SLAB_ENTRIES = 2**18  # weights drawn at a time where several columns share them: they stay in the second-level cache
LAYER_BYTES = 72  # a record of `layout.LAYER`


class Shapes(NamedTuple):
    """Shapes of the arrays of `layout.Memory`; those up to `grams` hold the chain's dtype."""

    rows: tuple[int, int]
    slopes: tuple[int, int]
    states: tuple[int, int]
    squares: tuple[int, int, int]
    slab: tuple[int, int]
    norms: tuple[int, int]
    grams: tuple[int, int]
    inverse: tuple[int, int]
    moments: tuple[int, int]
    logs: tuple[int, int]
    active: tuple[int]
    layers: tuple[int]


def padded(width: int) -> int:
    """Entries kept for a vector of this width: whole lanes, room for a last incomplete group of rows
    and the blocks on their way that `draws` keeps at the end."""
    return _whole_lanes(width) + LANES + SPARE


def stores_matrix(chain: Chain) -> bool:
    """Whether the chain's matrix is kept: it is the same at every step."""
    return chain.tied and chain.init != "identity"


def keeps_gradient(chain: Chain, quantities: tuple[str, ...]) -> bool:
    """Whether the weight gradient is a total over time steps, and wanted."""
    return chain.tied and "log_weight_grad_norm" in quantities


def slab_quarter(chain: Chain, width: int) -> int:
    """Row groups of a layer that are drawn together for several columns; a group is four rows."""
    return max(1, min((width + 3) // 4, SLAB_ENTRIES // (4 * _whole_lanes(width))))


def shapes(chain: Chain, quantities: tuple[str, ...]) -> Shapes:
    """What one thread needs for chains of this shape."""
    widest = max(chain.widths) if chain.width is None else chain.width
    total = keeps_gradient(chain, quantities)
    per_layer = chain.batch > 1 and "log_weight_grad_norm" in quantities
    kept = widest if stores_matrix(chain) or total else 1
    drawn = chain.columns > 1 and not stores_matrix(chain) and chain.init not in ("orthogonal", "identity")
    forward, normed = padded(widest * chain.batch), chain.norm != "none"
    groups = max(widest if chain.norm == "batch" else 1, chain.columns)
    return Shapes(
        rows=(VECTORS + OUTER_ROWS, padded(widest * chain.columns)),
        slopes=(1 if chain.activation == "linear" else chain.depth, forward),
        states=(chain.depth if total or per_layer else 1, forward),
        squares=(SQUARES, kept, _whole_lanes(kept)),
        slab=(4 * slab_quarter(chain, widest), _whole_lanes(widest)) if drawn else (4, LANES),
        norms=(chain.depth if normed else 1, forward if normed else LANES),
        grams=(2, chain.batch**2 if per_layer and not chain.tied else 1),
        inverse=(chain.depth if normed else 1, groups),
        moments=(2, groups),
        logs=(2, chain.probes),
        active=(padded(widest * chain.columns),),
        layers=(chain.depth + 1,),
    )


def working_bytes(chain: Chain, quantities: tuple[str, ...], itemsize: int) -> int:
    """Bytes one thread works in, beside records of fixed size."""
    of = shapes(chain, quantities)
    reals = (of.rows, of.slopes, of.states, of.squares, of.slab, of.norms, of.grams)
    doubles = (of.inverse, of.moments, of.logs, of.active)
    real = sum(math.prod(shape) * itemsize + CACHE_LINE for shape in reals)
    return real + 8 * sum(math.prod(shape) for shape in doubles) + LAYER_BYTES * of.layers[0]


def _whole_lanes(width: int) -> int:
    return -(-width // LANES) * LANES
