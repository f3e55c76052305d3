"""How much memory the kernel of gated chains works in: sizes alone, as `shapes` has them for the dense one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from .shapes import CACHE_LINE, COEFFICIENT_ROWS, LANES, OUTER_ROWS, padded, whole_lanes

if TYPE_CHECKING:
    from gradsim.chain import Chain

VECTORS = 5  # working vectors
WORK_ROWS = 4  # what is worked out of the pre-activations, in float64
COEFFICIENTS = {"lstm": 6, "gru": 4}  # vectors that the way back needs of each step
STEP_BYTES = 80  # a record of `gated_layout.STEP`
# Rows of W in a unit of work with one column, and multiplications in one with several.
GROUP = 8
UNIT_PRODUCTS = 2**24


class GatedShapes(NamedTuple):
    """Shapes of the arrays of `gated_layout.GatedMemory`; those up to `joint` hold the chain's dtype."""

    rows: tuple[int, int]
    weights: tuple[int, int]
    gates: tuple[int]
    saved: tuple[int, int]
    states: tuple[int, int]
    outer: tuple[int, int]
    pending: tuple[int, int]
    joint: tuple[int]
    queries: tuple[int, int]
    answers: tuple[int, int]
    back_queries: tuple[int, int]
    back_answers: tuple[int, int]
    coefficients: tuple[int, int]
    stacked: tuple[int]
    work: tuple[int, int]
    cell: tuple[int]
    bias: tuple[int]
    logs: tuple[int, int]
    active: tuple[int]
    layers: tuple[int]


def asked_of_gates(chain: Chain) -> tuple[int, int, int]:
    """Queries of W h and W^T d of Gaussian gates, and pairs of one orthogonal gate, that are kept."""
    n, forward, back = cast(int, chain.width), chain.depth * chain.batch, chain.depth * chain.columns
    return min(n, forward), min(chain.gates * n, back), min(n, forward + back)


def outer_shape(chain: Chain, method: str) -> tuple[int, int]:
    """Of the weight gradient as it is kept: all gates, or its coefficients in what they were asked."""
    n = cast(int, chain.width)
    if method == "dense":
        return chain.gates * n, n
    forward, back, pairs = asked_of_gates(chain)
    return (chain.gates * pairs, pairs) if chain.init == "orthogonal" else (back, forward)


def _asked_shapes(chain: Chain) -> dict[str, Any]:
    """Shapes of what gates that are never formed were asked; a row more for what is no query."""
    n, stacked = cast(int, chain.width), padded(chain.gates * cast(int, chain.width))
    forward, back, pairs = asked_of_gates(chain)
    if chain.init == "orthogonal":
        rows, longest = (chain.gates * (pairs + 1), padded(n)), chain.gates * pairs
        shapes = {"queries": rows, "answers": rows, "back_queries": (1, LANES), "back_answers": (1, LANES)}
    else:
        longest = forward + back
        shapes = {"queries": (forward + 1, padded(n)), "answers": (forward + 1, stacked)}
        shapes |= {"back_queries": (back + 1, stacked), "back_answers": (back + 1, padded(n))}
    return {**shapes, "coefficients": (COEFFICIENT_ROWS + chain.columns, longest + LANES), "stacked": (stacked,)}


_UNASKED: dict[str, Any] = {
    **dict.fromkeys(("queries", "answers", "back_queries", "back_answers", "coefficients"), (1, LANES)),
    "stacked": (LANES,),
}


def gated_shapes(chain: Chain, quantities: tuple[str, ...], method: str = "dense") -> GatedShapes:
    """What one thread needs for gated chains of this shape."""
    n, depth, batch = cast(int, chain.width), chain.depth, chain.batch
    stacked, pitch = chain.gates * n, whole_lanes(n)
    total, deferred = "log_weight_grad_norm" in quantities, method == "deferred"
    rows, columns = outer_shape(chain, method)
    kept = whole_lanes(columns)
    return GatedShapes(
        rows=(VECTORS, padded(n * chain.columns)),
        weights=(1 if chain.init == "identity" or deferred else stacked, pitch),
        gates=(whole_lanes(stacked * chain.columns),),
        saved=(depth * COEFFICIENTS[chain.kind], whole_lanes(n * batch)),
        states=(depth + 1 if total else 1, whole_lanes(columns * batch)),
        outer=(rows if total else 1, kept),
        pending=((OUTER_ROWS if batch == 1 else 1) if total else 1, whole_lanes(rows * batch)),
        joint=(2 * n * chain.probes if chain.probes > 1 else 1,),
        **(_asked_shapes(chain) if deferred else _UNASKED),
        work=(WORK_ROWS, stacked * batch),
        cell=(n * batch,),
        bias=(stacked,),
        logs=(3, chain.probes),
        active=(stacked,),
        layers=(depth + 1,),
    )


def unit_rows(chain: Chain, columns: int) -> int:
    """Rows of W in a product that is not interrupted, by how many columns it has: any other number gives other bits."""
    n = cast(int, chain.width)
    if chain.init == "identity":
        return chain.gates * n
    return GROUP if columns == 1 else max(4, UNIT_PRODUCTS // (n * columns) // 4 * 4)


def gated_working_bytes(chain: Chain, quantities: tuple[str, ...], itemsize: int, method: str = "dense") -> int:
    """Bytes one thread works in for a gated chain, beside records of fixed size."""
    of = gated_shapes(chain, quantities, method)
    real = of[: GatedShapes._fields.index("stacked") + 1]
    double = (of.work, of.cell, of.bias, of.logs, of.active)
    own = sum(math.prod(shape) * itemsize + CACHE_LINE for shape in real)
    return own + sum(math.prod(shape) * 8 + CACHE_LINE for shape in double) + STEP_BYTES * of.layers[0]
