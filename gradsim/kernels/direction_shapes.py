"""Which chains are but directions and lengths (see `directions`), and how much memory their kernel works in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .lone import HOMOGENEOUS
from .shapes import CACHE_LINE, padded

if TYPE_CHECKING:
    from gradsim.chain import Chain

# Layers that are drawn together where they are narrow: a short column costs less beside others.
AHEAD, AHEAD_ENTRIES = 16, 16_384
# Slopes whose fourth power float32 holds; others go the general way.
SMALLEST_SLOPE, LARGEST_SLOPE = 1e-6, 1e6
LAYER_BYTES = 48  # a record of `directions.LAYER`


def are_directions(chain: Chain, method: str) -> bool:
    """Whether a chain is Gaussian matrices and a homogeneous phi, one vector going each way, and nothing else."""
    plain = chain.kind == "feedforward" and chain.init == "gaussian" and chain.activation in HOMOGENEOUS
    added = chain.skip_factor or chain.dropout or chain.clip or chain.clip_value or chain.biases.any()
    single = chain.batch == 1 and chain.probes == 1 and chain.norm == "none"
    slope = abs(chain.negative_slope) if chain.activation == "leaky_relu" else 0.0
    held = slope == 0 or SMALLEST_SLOPE <= slope <= LARGEST_SLOPE
    return method == "deferred" and plain and single and held and not added and bool(min(chain.gains) > 0)


def layers_ahead(chain: Chain) -> int:
    """How many layers are drawn together."""
    return max(1, min(AHEAD, AHEAD_ENTRIES // max(chain.widths)))


def answers_shape(chain: Chain) -> tuple[int, int]:
    """Of the normals that are kept: a row for each layer, the input's among them."""
    return chain.depth + 1, padded(max(chain.widths))


def direction_bytes(chain: Chain, itemsize: int) -> int:
    """Bytes one thread works in, beside records of fixed size."""
    rows, row = answers_shape(chain)
    return (rows + layers_ahead(chain)) * row * itemsize + 2 * CACHE_LINE + LAYER_BYTES * rows + 64 * AHEAD
