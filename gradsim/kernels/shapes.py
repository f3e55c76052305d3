"""How much memory a kernel works in: sizes alone, so that a plan can count it without compiling anything."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, cast

if TYPE_CHECKING:
    from gradsim.chain import Chain

LANES = 16  # float32 in the widest vectors; narrow loops are padded to it, since a scalar remainder costs far more
SPARE = 4 * LANES  # entries at the end of a vector that hold blocks on their way
CACHE_LINE = 64  # bytes
VECTORS = 9  # working vectors beside the steps below
CHUNK = 512  # units of a batch that are taken to float64 at a time
COEFFICIENT_ROWS = 3  # of a query in those before, and room to work them out
OUTER_ROWS = 16  # time steps whose outer products are added in one sweep over a tied weight gradient
SQUARES = 3  # working matrices of a tied chain
DRAWN_INITS = ("gaussian", "uniform", "rademacher")
SLAB_ENTRIES = 2**18  # weights drawn at a time where several columns share them: they stay in the second-level cache
LAYER_BYTES = 96  # a record of `layout.LAYER`


class Shapes(NamedTuple):
    """Shapes of the arrays of `layout.Memory`; those up to `grams` hold the chain's dtype."""

    rows: tuple[int, int]
    slopes: tuple[int, int]
    states: tuple[int, int]
    squares: tuple[int, int, int]
    slab: tuple[int, int]
    norms: tuple[int, int]
    grams: tuple[int, int]
    queries: tuple[int, int]
    back_queries: tuple[int, int]
    coefficients: tuple[int, int]
    mixed: tuple[int, int]
    inverse: tuple[int, int]
    moments: tuple[int, int]
    logs: tuple[int, int]
    grams_64: tuple[int, int]
    wide: tuple[int, int]
    active: tuple[int]
    layers: tuple[int]


def padded(width: int) -> int:
    """Entries kept for a vector of this width: whole lanes, room for a last incomplete group of rows
    and the blocks on their way that `draws` keeps at the end."""
    return whole_lanes(width) + LANES + SPARE


def stores_matrix(chain: Chain) -> bool:
    """Whether the chain's matrix is kept: it is the same at every step."""
    return chain.tied and chain.init != "identity"


def keeps_gradient(chain: Chain, quantities: tuple[str, ...]) -> bool:
    """Whether the weight gradient is a total over time steps, and wanted."""
    return chain.tied and "log_weight_grad_norm" in quantities


def slab_quarter(chain: Chain, width: int) -> int:
    """Row groups of a layer that are drawn together for several columns; a group is four rows."""
    return max(1, min((width + 3) // 4, SLAB_ENTRIES // (4 * whole_lanes(width))))


def asked_a_layer(chain: Chain) -> int:
    """Rows kept for what an untied matrix is asked: of an orthogonal one backward too, but for the last."""
    return chain.batch + (chain.columns - 1 if chain.init == "orthogonal" else 0)


def asks_blocks(chain: Chain) -> bool:
    """Whether a matrix that is never formed answers all columns of a layer at once.

    Not where they are more than its dimensions: one after the other, those past them cost less.
    """
    several = 1 < chain.columns <= min(chain.widths)
    return chain.init == "gaussian" and not chain.tied and several


def _asked(chain: Chain) -> tuple[int, int, int]:
    """Queries of W x and W^T d that are kept, with a row to spare for what turns out to be none, and of one matrix."""
    pairs = chain.init == "orthogonal"
    if not chain.tied:
        return chain.depth * asked_a_layer(chain) + 1, 1 if pairs else chain.columns + 1, chain.batch + chain.columns
    n, forward, back = cast(int, chain.width), chain.depth * chain.batch, chain.depth * chain.columns
    if pairs:
        return min(n, forward + back) + 1, 1, min(n, forward + back)
    return min(n, forward) + 1, min(n, back) + 1, min(n, max(forward, back))


def shapes(chain: Chain, quantities: tuple[str, ...], method: str = "dense") -> Shapes:
    """What one thread needs for chains of this shape."""
    deferred = method == "deferred"
    blocks, shared = deferred and asks_blocks(chain), chain.columns
    asked, asked_back, spanned = _asked(chain) if deferred else (1, 1, 1)
    widest = max(chain.widths) if chain.width is None else chain.width
    total = keeps_gradient(chain, quantities)
    per_layer = chain.batch > 1 and "log_weight_grad_norm" in quantities
    if deferred:
        kept = spanned if total else 1
    else:
        kept = widest if stores_matrix(chain) or total else 1
    drawn = not deferred and chain.columns > 1 and not stores_matrix(chain) and chain.init in DRAWN_INITS
    forward, normed = padded(widest * chain.batch), chain.norm != "none"
    groups = max(widest if chain.norm == "batch" else 1, chain.columns)
    return Shapes(
        rows=(VECTORS + OUTER_ROWS, padded(widest * chain.columns)),
        slopes=(1 if chain.activation == "linear" else chain.depth, forward),
        states=(chain.depth if total or per_layer else 1, forward),
        squares=(SQUARES, kept, whole_lanes(kept)),
        slab=(4 * slab_quarter(chain, widest), whole_lanes(widest)) if drawn else (4, LANES),
        norms=(chain.depth if normed else 1, forward if normed else LANES),
        grams=(2, chain.batch**2 if per_layer and not chain.tied else 1),
        queries=(asked, padded(widest) if deferred else LANES),
        back_queries=(asked_back, padded(widest) if deferred else LANES),
        mixed=(2, shared**2 if blocks else 1),
        coefficients=(COEFFICIENT_ROWS + chain.columns, 2 * spanned + LANES if deferred else LANES),
        inverse=(chain.depth if normed else 1, groups),
        moments=(2, groups),
        logs=(2, chain.probes),
        grams_64=(3, shared**2 if blocks else 1),
        wide=(2, CHUNK * shared if blocks else 1),
        active=(padded(widest * chain.columns),),
        layers=(chain.depth + 1,),
    )


def working_bytes(chain: Chain, quantities: tuple[str, ...], itemsize: int, method: str = "dense") -> int:
    """Bytes one thread works in, beside records of fixed size."""
    of = shapes(chain, quantities, method)
    asked = (of.queries, of.queries, of.back_queries, of.back_queries, of.coefficients)
    reals = (of.rows, of.slopes, of.states, of.squares, of.slab, of.norms, of.grams, of.mixed, *asked)
    doubles = (of.inverse, of.moments, of.logs, of.grams_64, of.wide, of.active)
    real = sum(math.prod(shape) * itemsize + CACHE_LINE for shape in reals)
    return real + 8 * sum(math.prod(shape) for shape in doubles) + LAYER_BYTES * of.layers[0]


def whole_lanes(width: int) -> int:
    """Rounded up to whole lanes."""
    return -(-width // LANES) * LANES
