"""Where an engine stands in a chain, and how far a call may go: phases, layers, work units and what they cost."""

from __future__ import annotations

from .compiling import part
from .layout import CLOSE
from .shapes import LANES

# What a layer costs in each pass beside its weights, in weights.
LAYER_COST = 1000
# What a unit of a layer costs for each of several columns, in weights.
UNIT_COST = 10


@part
def enter(progress, phase, layer):
    """Go to the beginning of a phase."""
    progress.phase = phase
    progress.layer = layer
    progress.unit = 0
    progress.units = 0


@part
def next_units(progress, cost, budget):
    """First and last of the next work units: a multiple of four within the budget, or all that are left."""
    first = progress.unit
    last = min(progress.units, first + max(budget // cost // 4 * 4, 4))
    progress.unit = last
    return first, last


@part
def unit_cost(columns, n):
    """What is done for each unit of a layer, in weights."""
    return n if columns == 1 else UNIT_COST * n * columns


@part
def close(progress, layer, value):
    """Go to the end of a chain: ln ||g_{layer-1}|| is `value` and, where that is -inf or NaN, so it is below."""
    enter(progress, CLOSE, layer)
    progress.last_value = value


@part
def whole_lanes(n):
    """n rounded up to whole lanes."""
    return (n + LANES - 1) // LANES * LANES
