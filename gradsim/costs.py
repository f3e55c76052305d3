"""What a chain costs: its weights, and the time its kernel is expected to take."""

from __future__ import annotations

from typing import cast

from gradsim.chain import Chain
from gradsim.kernels.direction_shapes import are_directions
from gradsim.kernels.lone import HOMOGENEOUS
from gradsim.kernels.shapes import asks_blocks

__all__ = ["count_weights", "nanoseconds"]

# What the kernels cost on one core of a current AVX-512 machine, in nanoseconds of float32 arithmetic.
_NS_DRAWN = 0.75  # a weight drawn and multiplied, each pass
_NS_USED = 0.05  # a stored weight multiplied, ...
_NS_USED_FAR = 0.2  # ... where its matrix does not fit the second-level cache
_NEAR_BYTES = 2**21
_NS_SHARED = 1.0  # beside drawing it, a weight laid down for several columns, each pass ...
_NS_COLUMN = 0.04  # ... and multiplied with each
_NS_REFLECTED = 1.5  # a weight of an orthogonal matrix, drawn and applied as reflectors, each pass
_NS_REFLECTOR = 150.0  # beside that for each reflector: keys and calls
_NS_BUILT = 1.0  # per n^3: an orthogonal matrix formed from its reflectors
_NS_ASKED = 2.0  # an entry of an answer, drawn
_NS_QUERY_PAIR = 0.3  # an entry of a query held against an earlier one
_NS_BLOCK_PAIR = 0.12  # where a layer's columns are asked at once
_NS_DIRECTION = 1.0  # a unit of a chain of directions, each pass
_NS_UNIT = 3.0  # an activation with its derivative and its share of the norms, each pass
_NS_UNIT_SMOOTH = 5.0  # with an exponential in it
_NS_UNIT_ERF = 25.0  # with an error function
_NS_UNIT_GATE = 12.0  # of every gate of a step
_NS_UNIT_NORM = 4.0  # normalised, each pass
_NS_UNIT_DROPPED = 1.0  # kept or dropped, each pass
_NS_UNIT_PAIR = 0.5  # orthogonalised, each pair of probes
_NS_LAYER = 150.0  # keys, logarithms and calls, each pass
_FLOAT64_FACTOR = 3.0


def count_weights(chain: Chain) -> int:
    """Return the number of weights of a chain, counted once where they are tied."""
    if chain.profile is not None:
        return sum(a * b for a, b in zip(chain.profile, chain.profile[1:], strict=False))
    matrix = cast(int, chain.width) ** 2 * chain.gates
    return matrix if chain.tied else matrix * chain.depth


def _units(chain: Chain) -> int:
    """Return the number of units over all layers but the input."""
    return sum(chain.profile[1:]) if chain.profile is not None else cast(int, chain.width) * chain.depth


def _widest(chain: Chain) -> int:
    return max(chain.profile) if chain.profile is not None else cast(int, chain.width)


def nanoseconds(chain: Chain, dtype: str, method: str) -> float:
    """Return the expected time of one chain, forward and backward, on one core."""
    factor = 1.0 if dtype == "float32" else _FLOAT64_FACTOR
    if are_directions(chain, method):
        return factor * (2 * _units(chain) * _NS_DIRECTION + 2 * chain.depth * _NS_LAYER)
    unit = _nanoseconds_of_phi(chain)
    unit += _NS_UNIT_NORM if chain.norm != "none" else 0.0
    unit += _NS_UNIT_DROPPED if chain.dropout else 0.0
    vectors = _units(chain) * unit * (chain.batch + chain.columns) + 2 * chain.depth * _NS_LAYER
    if chain.probes > 1:
        vectors += _units(chain) * _NS_UNIT_PAIR * chain.probes**2
    matrices = _asking_nanoseconds(chain) if method == "deferred" else _matrix_nanoseconds(chain)
    return factor * (matrices + vectors)


def _nanoseconds_of_phi(chain: Chain) -> float:
    """Return what a unit's activation takes, each pass."""
    if chain.gates > 1:
        return _NS_UNIT_GATE * chain.gates
    if chain.activation in HOMOGENEOUS:
        return _NS_UNIT
    return _NS_UNIT_ERF if chain.activation in ("erf", "gelu") else _NS_UNIT_SMOOTH


def _matrix_nanoseconds(chain: Chain) -> float:
    """Return what drawing and applying the matrices takes in both passes."""
    weights = count_weights(chain)
    if chain.init == "identity":
        return 0.0
    if chain.tied:
        made = weights * (_widest(chain) * _NS_BUILT if chain.init == "orthogonal" else _NS_DRAWN)
        # One copy serves the gates in both directions, two a recurrent chain.
        near = weights * (4 if chain.gates > 1 else 8) <= _NEAR_BYTES
        once = _NS_USED if near else _NS_USED_FAR
        used = sum(max(once, _NS_COLUMN * columns) for columns in (chain.batch, chain.columns))
        return made + weights * chain.depth * used
    shared = sum(_NS_SHARED + _NS_COLUMN * columns for columns in (chain.batch, chain.columns) if columns > 1)
    if chain.init == "orthogonal":
        return weights * (2 * _NS_REFLECTED + shared) + 2 * _units(chain) * _NS_REFLECTOR
    return weights * (2 * _NS_DRAWN + shared)


def _pairs(queries: int, most: int) -> float:
    """Return how many earlier queries all of them are held against, where no more than `most` are kept."""
    kept = min(queries, most)
    return kept**2 / 2 + (queries - kept) * kept


def _asking_nanoseconds(chain: Chain) -> float:
    """Return what it takes to ask matrices that are never formed, in both passes."""
    steps, units = (chain.depth, _widest(chain)) if chain.tied else (1, _units(chain))
    forward, back, most = steps * chain.batch, steps * chain.columns, _widest(chain)
    # Each query is held against all before it, and those of the way back against those of the way forward.
    pairs = _pairs(forward, most) + _pairs(back, most) + min(forward, most) * back
    asked = (chain.batch + chain.columns) * steps
    pair = _NS_BLOCK_PAIR if asks_blocks(chain) else _NS_QUERY_PAIR
    return units * chain.gates * (asked * _NS_ASKED + pairs * pair)
