"""Gradients that a norm makes exactly zero: those of a value that is alone in what a norm divides it by.

Where nothing above sees the size of a vector, its gradient is orthogonal to it. If one entry alone of the vector is
not zero, and alone passes a gradient on, that gradient is zero in the law; rounding would leave a number there. So
it is told from which entries carry a gradient, not from how large that gradient is. Under batch norm a vector is a
unit over the batch; and a layer that differs from input to input in one column alone gives every unit of the next
layer the same normalised values, up to sign.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from gradsim.chain import Chain

# Which gradients are zero: none, a column's with one entry, a unit's with one entry, all if they are in one column;
# and, of a loss that the norm holds constant, a column's and a unit's of which nothing is missing.
NEVER, COLUMN, UNIT, LAYER, WHOLE_COLUMN, WHOLE_UNIT = range(6)
HOMOGENEOUS = ("linear", "relu", "leaky_relu")


def _has_one_branch(chain: Chain) -> bool:
    return chain.skip_factor == 0 or chain.carry == 0


def _seen_by_next(chain: Chain) -> int:
    """The rule for h_l where the norm is behind W_{l+1}."""
    if chain.input_noise > 0 or not _has_one_branch(chain):
        return NEVER
    if chain.norm == "batch":
        return LAYER
    homogeneous = chain.norm_position == "before" or chain.activation in HOMOGENEOUS
    return COLUMN if homogeneous and not chain.biases.any() else NEVER


def _held_constant(chain: Chain) -> int:
    """The rule for g_L of a loss that is constant where dropout and phi pass all of what the norm gave."""
    if chain.output_gradient == "random" or chain.clip_value > 0 or not _has_one_branch(chain):
        return NEVER
    if chain.output_gradient == "ones" and chain.norm == "rms":
        return NEVER
    slopes = {"linear": 1.0, "relu": 0.0, "leaky_relu": chain.negative_slope}
    constant = (0.0, 1.0) if chain.output_gradient == "ones" else (0.0, 1.0, -1.0)
    if chain.norm_position == "before" and slopes.get(chain.activation, math.nan) not in constant:
        return NEVER
    return WHOLE_UNIT if chain.norm == "batch" else WHOLE_COLUMN


class Rules(NamedTuple):
    """What is zero of the gradient that phi and dropout pass, and of what dropout does: below layer L, and at it."""

    passed: int = NEVER
    passed_last: int = NEVER
    kept: int = NEVER
    kept_last: int = NEVER


def rules(chain: Chain) -> Rules:
    """The rules of a chain."""
    if chain.norm == "none" or chain.norm_eps > 0:
        return Rules()
    # A slope that rounds to zero is no unit without a value: then only what dropout takes counts.
    exact = chain.activation in HOMOGENEOUS
    own = UNIT if chain.norm == "batch" else COLUMN
    if chain.norm_position == "after":
        kept = (_seen_by_next(chain), _held_constant(chain)) if chain.dropout > 0 else (NEVER, NEVER)
        return Rules(own if exact else NEVER, own if exact else NEVER, *kept)
    if chain.norm_position == "before":
        below, last = _seen_by_next(chain), _held_constant(chain)
    else:
        below = own if _has_one_branch(chain) else NEVER
        last = below if chain.norm_position == "post" else NEVER
    if exact:
        return Rules(below, last)
    return Rules(NEVER, NEVER, below, last) if chain.dropout > 0 else Rules()


def input_is_lone(chain: Chain) -> bool:
    """Whether h_0 is one unit of which nothing sees the size."""
    if chain.widths[0] > 1 or chain.norm not in ("layer", "rms") or chain.norm_eps > 0:
        return False
    return _seen_by_next(chain) == COLUMN


def weights_can_cancel(chain: Chain) -> bool:
    """Whether dLoss/dW_l is zero where the inputs of W_l differ in one direction alone, which batch norm rescales."""
    if chain.norm != "batch" or chain.norm_eps > 0 or chain.input_noise > 0:
        return False
    return chain.norm_position in ("before", "after") or _has_one_branch(chain)


def bias_is_taken_out(chain: Chain) -> bool:
    """Whether batch norm takes the bias, the same in every column, out again before anything sees it."""
    if chain.norm != "batch":
        return False
    straight = chain.norm_position == "after" or (chain.norm_position == "post" and chain.dropout == 0)
    return chain.norm_position == "before" or (straight and chain.activation == "linear")
