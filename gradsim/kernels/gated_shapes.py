"""How much memory the kernel of gated chains works in: sizes alone, as `shapes` has them for the dense one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, cast

from .shapes import CACHE_LINE, LANES, OUTER_ROWS, padded

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
    work: tuple[int, int]
    cell: tuple[int]
    bias: tuple[int]
    logs: tuple[int, int]
    active: tuple[int]
    layers: tuple[int]


def whole_lanes(n: int) -> int:
    """n rounded up to whole lanes."""
    return -(-n // LANES) * LANES


def gated_shapes(chain: Chain, quantities: tuple[str, ...]) -> GatedShapes:
    """What one thread needs for gated chains of this shape."""
    n, depth, batch = cast(int, chain.width), chain.depth, chain.batch
    stacked, pitch = chain.gates * n, whole_lanes(n)
    total = "log_weight_grad_norm" in quantities
    return GatedShapes(
        rows=(VECTORS, padded(n * chain.columns)),
        weights=(1 if chain.init == "identity" else stacked, pitch),
        gates=(whole_lanes(stacked * chain.columns),),
        saved=(depth * COEFFICIENTS[chain.kind], whole_lanes(n * batch)),
        states=(depth + 1 if total else 1, whole_lanes(n * batch)),
        outer=(stacked if total else 1, pitch),
        pending=((OUTER_ROWS if batch == 1 else 1) if total else 1, whole_lanes(stacked * batch)),
        joint=(2 * n * chain.probes if chain.probes > 1 else 1,),
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


def gated_working_bytes(chain: Chain, quantities: tuple[str, ...], itemsize: int) -> int:
    """Bytes one thread works in for a gated chain, beside records of fixed size."""
    of = gated_shapes(chain, quantities)
    real = of[: of.index(of.joint) + 1]
    double = (of.work, of.cell, of.bias, of.logs, of.active)
    own = sum(math.prod(shape) * itemsize + CACHE_LINE for shape in real)
    return own + sum(math.prod(shape) * 8 + CACHE_LINE for shape in double) + STEP_BYTES * of.layers[0]
