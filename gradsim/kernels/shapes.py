"""How much memory a kernel works in: sizes alone, so that a plan can count it without compiling anything."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from gradsim.chain import Chain

LANES = 16  # float32 in the widest vectors; narrow loops are padded to it, since a scalar remainder costs far more
SPARE = 4 * LANES  # entries at the end of a vector that hold blocks on their way
CACHE_LINE = 64  # bytes
VECTORS = 5  # working vectors beside the steps below
OUTER_ROWS = 16  # time steps whose outer products are added in one sweep over a tied weight gradient
SQUARES = 3  # working matrices of a tied chain
LAYER_BYTES = 56  # a record of `layout.LAYER`


class Shapes(NamedTuple):
    """Shapes of the arrays of `layout.Memory`; the first four hold the chain's dtype."""

    rows: tuple[int, int]
    slopes: tuple[int, int]
    states: tuple[int, int]
    squares: tuple[int, int, int]
    active: tuple[int]
    layers: tuple[int]


def padded(width: int) -> int:
    """Entries kept for a vector of this width: whole lanes, room for a last incomplete group of rows
    and the blocks on their way that `draws` keeps at the end."""
    return -(-width // LANES) * LANES + LANES + SPARE


def stores_matrix(chain: Chain) -> bool:
    """Whether the chain's matrix is kept: it is the same at every step."""
    return chain.tied and chain.init != "identity"


def keeps_gradient(chain: Chain, quantities: tuple[str, ...]) -> bool:
    """Whether the weight gradient is a total over time steps, and wanted."""
    return chain.tied and "log_weight_grad_norm" in quantities


def shapes(chain: Chain, quantities: tuple[str, ...]) -> Shapes:
    """What one thread needs for chains of this shape."""
    widest = max(chain.widths) if chain.width is None else chain.width
    total = keeps_gradient(chain, quantities)
    kept = widest if stores_matrix(chain) or total else 1
    width = padded(widest)
    return Shapes(
        rows=(VECTORS + OUTER_ROWS, width),
        slopes=(1 if chain.activation == "linear" else chain.depth, width),
        states=(chain.depth + 1 if total else 1, width),
        squares=(SQUARES, kept, -(-kept // LANES) * LANES),
        active=(width,),
        layers=(chain.depth + 1,),
    )


def working_bytes(chain: Chain, quantities: tuple[str, ...], itemsize: int) -> int:
    """Bytes one thread works in, beside records of fixed size."""
    of = shapes(chain, quantities)
    real = sum(math.prod(shape) * itemsize + CACHE_LINE for shape in (of.rows, of.slopes, of.states, of.squares))
    return real + 8 * of.active[0] + LAYER_BYTES * of.layers[0]
