"""What a dense kernel is told about a chain, and the memory it works in.

Kernels take NumPy records and few arrays: a record is one pointer to compiled code, where a tuple of arrays would be
copied, reference by reference, at every call and compiled again in every function it passes through.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .linking import table
from .lone import bias_is_taken_out, input_is_lone, rules, weights_can_cancel
from .ops import ACTIVATION_CODES, LINEAR
from .shapes import CACHE_LINE, VECTORS, asked_a_layer, asks_blocks, keeps_gradient, shapes, stores_matrix

if TYPE_CHECKING:
    from gradsim.chain import Chain

# How a layer's matrix acts.
DRAWN, REFLECTED, SCALED, STORED, DEFERRED = range(5)
GAUSSIAN, UNIFORM, RADEMACHER, ORTHOGONAL, IDENTITY = range(5)
INIT_CODES = {
    "gaussian": GAUSSIAN,
    "uniform": UNIFORM,
    "rademacher": RADEMACHER,
    "orthogonal": ORTHOGONAL,
    "identity": IDENTITY,
}
NO_NORM, BATCH_NORM, LAYER_NORM, RMS_NORM = range(4)
NORM_CODES = {"none": NO_NORM, "batch": BATCH_NORM, "layer": LAYER_NORM, "rms": RMS_NORM}
NOWHERE, BEFORE, AFTER, PRE, POST = range(5)
POSITION_CODES = {"before": BEFORE, "after": AFTER, "pre": PRE, "post": POST}
RANDOM, ONES, LOSS = range(3)
OUTPUT_CODES = {"random": RANDOM, "ones": ONES, "loss": LOSS}

# Quantities, as rows of the result.
QUANTITY_ROWS = {"log_grad_norm": 0, "log_activation_norm": 1, "log_weight_grad_norm": 2, "log_grad_max": 3}
GRAD, ACTIVATION, WEIGHT_GRAD, GRAD_MAX = range(4)

START, DRAW, FORWARD, TURN, BACKWARD, CLOSE = range(6)

# Working vectors, rows of one array: a branch's input and output and the gradient kept for its carry, where they are no
# others; from STEPS on, the steps a tied weight gradient still has to be given.
H, Z, G, D, SCRATCH, SPARE_ROW, BRANCH_INPUT, BRANCH, CARRIED = range(VECTORS)
STEPS = VECTORS

# Working matrices of a tied chain.
MATRIX, TRANSPOSED, OUTER = range(3)

SPEC = np.dtype(
    [
        ("action", np.int64),
        ("tied", np.int64),
        ("asks_blocks", np.int64),  # all columns of a layer at once, of a matrix that is never formed
        ("asked_a_layer", np.int64),  # rows kept for what an untied matrix is asked
        ("wants_maximum", np.int64),
        ("wants_weight", np.int64),
        ("tied_gradient", np.int64),  # the wanted weight gradient is a total over time steps
        ("keeps_inputs", np.int64),  # a weight gradient needs the input of every branch
        ("unmixed", np.int64),  # units never meet, and one may fall behind another and catch up again
        ("batch", np.int64),  # columns of the forward pass
        ("columns", np.int64),  # columns of the backward pass: those, or the probes
        ("probes", np.int64),
        ("skip", np.int64),  # h_l has a second branch
        ("norm", np.int64),
        ("norm_position", np.int64),
        ("passed", np.int64),  # which gradients a norm makes zero (see `lone.Rules`)
        ("passed_last", np.int64),
        ("kept_rule", np.int64),
        ("kept_last", np.int64),
        ("lone_input", np.int64),  # dLoss/dh_0 is zero
        ("weights_cancel", np.int64),  # dLoss/dW_l may be
        ("forgives", np.int64),  # a gradient that cancelled in a norm has a carry beside it
        ("drops", np.int64),
        ("threshold", np.int64),  # a unit whose word is below it is dropped
        ("init", np.int64),
        ("activation", np.int64),
        ("output", np.int64),
        ("depth", np.int64),
        ("forward", np.int64),  # something needs the forward pass
        ("bias_is_uniform", np.int64),
        ("input_exponent", np.int64),
        ("input_mantissa", np.float64),
        ("slope", np.float64),
        ("noise", np.float64),
        ("carry", np.float64),  # factor of h_{l-1}: mantissa and exponent, and that of the branch
        ("carry_exponent", np.int64),
        ("branch", np.float64),
        ("branch_exponent", np.int64),
        ("norm_eps", np.float64),
        ("kept", np.float64),  # what a unit that is not dropped is multiplied by
        ("log_clip", np.float64),  # infinite where nothing is clipped
        ("log_clip_value", np.float64),
    ],
    align=True,
)
# One entry a layer, 0 .. L; scale = mantissa 2^exponent multiplies W_l. The others are written by the passes: exponent
# and logarithm of the norm of the branch's input, exponents of d_l as held and of the norm's sigma.
LAYER = np.dtype(
    [
        ("width", np.int64),
        ("exponent", np.int64),
        ("mantissa", np.float64),
        ("bias", np.float64),
        ("input_exponent", np.int64),
        ("log_input", np.float64),
        ("step_exponent", np.int64),
        ("norm_exponent", np.int64),
        # Queries of a matrix that is never formed: of W x, of W^T d, and of W x before a pass began.
        ("asked", np.int64),
        ("asked_back", np.int64),
        ("asked_before", np.int64),
        ("blur", np.float64),  # ln of a bound on a gradient that cancelled in a norm, where a carry may outweigh it
    ],
    align=True,
)
# Where a piece of work stands.
PROGRESS = np.dtype(
    [
        ("chain", np.int64),  # offset of the chain at hand within the piece
        ("phase", np.int64),
        ("layer", np.int64),
        ("unit", np.int64),  # work units of this layer's pass that are done
        ("units", np.int64),  # how many it has
        ("h_exponent", np.int64),
        ("log_h", np.float64),  # ln ||h||
        ("g_exponent", np.int64),
        ("carried_exponent", np.int64),
        ("rank", np.int64),  # of as many probes as this, directions can be independent in the law
        ("outer_exponent", np.int64),
        ("pending", np.int64),  # steps not yet added to a tied weight gradient
        ("largest_step", np.float64),  # ln of the norm that none of its steps exceeds
        ("g_offset", np.float64),  # ln of the factor between g as held and g
        ("lost", np.float64),  # ln of a bound on the norm of the part of g that left the dtype, where units never meet
        ("last_value", np.float64),  # ln ||g|| of the last layer that was worked out; -inf and NaN hold below it too
    ],
    align=True,
)


class Memory(NamedTuple):
    """Arguments of a kernel call, sized by `shapes`; N is the largest width, padded, `real` the chain's dtype."""

    spec: Any  # a record of SPEC
    layers: NDArray[Any]  # (L + 1,) of LAYER
    progress: Any  # a record of PROGRESS
    rows: NDArray[np.floating]  # (STEPS + OUTER_ROWS, N) real
    slopes: NDArray[np.floating]  # (L, N) real: phi'(z_l); one row where phi is linear
    states: NDArray[
        np.floating
    ]  # (L, N) real: inputs of the branches, where a weight gradient needs them; else one row
    squares: NDArray[np.floating]  # (3, n, whole lanes of n) real for matrices that are kept; else (3, 1, LANES)
    slab: NDArray[np.floating]  # (4 K, whole lanes) real: weights drawn for several columns
    norms: NDArray[np.floating]  # (L, N) real: what norms gave; else one row
    grams: NDArray[np.floating]  # (2, B B) real
    queries: NDArray[np.floating]  # (rows, N) real: what matrices that are never formed were asked, W x ...
    answers: NDArray[np.floating]
    back_queries: NDArray[np.floating]  # ... and W^T d
    back_answers: NDArray[np.floating]
    coefficients: NDArray[np.floating]  # (3 + k, rows) real: of vectors in those queries
    mixed: NDArray[np.floating]  # (2, C C) real: room for products of what several columns ask at once
    inverse: NDArray[np.float64]  # (L, groups): 1 / sigma of norms
    moments: NDArray[np.float64]  # (2, groups)
    logs: NDArray[np.float64]  # (2, k): growth of the probes, and lengths to work with
    grams_64: NDArray[np.float64]  # (3, C C): their Gram matrices and factors
    wide: NDArray[np.float64]  # (2, CHUNK C)
    active: NDArray[np.int64]  # (N,)
    key: NDArray[np.uint32]  # (4,): the stream of the layer at hand
    links: NDArray[np.int64]  # addresses of kernels (see `linking`)


def aligned(shape: tuple[int, ...], real: np.dtype[Any]) -> NDArray[Any]:
    """Zeros that begin at a cache line: a vector load that straddles two costs twice."""
    size = math.prod(shape) * real.itemsize
    raw = np.zeros(size + CACHE_LINE, np.uint8)
    start = -raw.ctypes.data % CACHE_LINE
    return raw[start : start + size].view(real).reshape(shape)


def _action(chain: Chain, method: str) -> int:
    """How this chain's matrices act."""
    if method == "deferred":
        return DEFERRED
    if chain.init == "identity":
        return SCALED
    if stores_matrix(chain):
        return STORED
    return REFLECTED if chain.init == "orthogonal" else DRAWN


def _spec(chain: Chain, quantities: tuple[str, ...], method: str, dtype: str) -> Any:
    """The chain as a record of SPEC."""
    spec = np.recarray(1, SPEC)[0]
    wants_weight = "log_weight_grad_norm" in quantities
    spec.action = _action(chain, method)
    spec.asks_blocks = method == "deferred" and asks_blocks(chain) and dtype == "float32"
    spec.asked_a_layer = asked_a_layer(chain)
    spec.tied = chain.tied
    spec.wants_maximum = "log_grad_max" in quantities
    spec.wants_weight = wants_weight
    spec.tied_gradient = keeps_gradient(chain, quantities)
    # A matrix that is never formed keeps what it was asked, as coefficients.
    spec.keeps_inputs = wants_weight and (chain.batch > 1 or chain.tied) and not (chain.tied and method == "deferred")
    bends = chain.activation not in ("linear", "relu")
    spec.unmixed = chain.init == "identity" and bends and chain.norm == "none" and chain.probes == 1
    spec.batch, spec.columns, spec.probes = chain.batch, chain.columns, chain.probes
    spec.skip = chain.skip_factor != 0
    spec.carry, spec.carry_exponent = math.frexp(chain.carry)
    spec.branch, spec.branch_exponent = math.frexp(chain.skip_factor if spec.skip else 1.0)
    spec.norm, spec.norm_eps = NORM_CODES[chain.norm], chain.norm_eps
    spec.norm_position = POSITION_CODES[chain.norm_position] if spec.norm else NOWHERE
    spec.passed, spec.passed_last, spec.kept_rule, spec.kept_last = rules(chain)
    spec.lone_input, spec.weights_cancel = input_is_lone(chain), weights_can_cancel(chain)
    spec.forgives = spec.skip and spec.carry > 0 and spec.norm_position in (BEFORE, AFTER, PRE) and spec.probes == 1
    spec.drops, spec.threshold = chain.dropout > 0, math.floor(chain.dropout * 2.0**32)
    spec.kept = 1.0 / (1.0 - chain.dropout)
    spec.log_clip = math.log(chain.clip) if chain.clip > 0 else math.inf
    spec.log_clip_value = math.log(chain.clip_value) if chain.clip_value > 0 else math.inf
    spec.init = INIT_CODES[chain.init]
    spec.activation = ACTIVATION_CODES[chain.activation]
    spec.output = OUTPUT_CODES[chain.output_gradient]
    spec.depth = chain.depth
    spec.forward = (
        wants_weight
        or "log_activation_norm" in quantities
        or spec.activation != LINEAR
        or chain.output_gradient == "loss"
        or chain.norm != "none"
        or spec.action == DEFERRED  # what W answers backward depends on what it answered forward
    )
    spec.bias_is_uniform = chain.bias_law == "uniform"
    spec.input_mantissa, spec.input_exponent = math.frexp(chain.input_scale)
    spec.slope = chain.negative_slope
    spec.noise = chain.input_noise
    return spec


def _layers(chain: Chain) -> NDArray[Any]:
    """Widths, scales and biases as records of LAYER."""
    layers = np.zeros(chain.depth + 1, LAYER)
    widths = np.array(chain.widths, dtype=np.int64)
    scales = np.array(chain.gains, dtype=np.float64)
    if chain.init not in ("orthogonal", "identity"):
        scales = scales / np.sqrt(widths[:-1])
    layers["width"] = widths
    layers["mantissa"][1:], layers["exponent"][1:] = np.frexp(scales)
    layers["bias"][1:] = 0.0 if bias_is_taken_out(chain) else chain.biases
    return layers


def make_memory(chain: Chain, quantities: tuple[str, ...], dtype: str, method: str = "dense") -> Memory:
    """Everything one thread needs for chains of this shape, at the beginning of a piece."""
    spec, layers = _spec(chain, quantities, method, dtype), _layers(chain)
    real, of = np.dtype(dtype), shapes(chain, quantities, method)
    progress = np.zeros(1, PROGRESS).view(np.recarray)[0]
    progress.phase = DRAW if spec.action == STORED else START
    return Memory(
        spec=spec,
        layers=layers,
        progress=progress,
        rows=aligned(of.rows, real),
        slopes=aligned(of.slopes, real),
        states=aligned(of.states, real),
        squares=aligned(of.squares, real),
        slab=aligned(of.slab, real),
        norms=aligned(of.norms, real),
        grams=aligned(of.grams, real),
        queries=aligned(of.queries, real),
        answers=aligned(of.queries, real),
        back_queries=aligned(of.back_queries, real),
        back_answers=aligned(of.back_queries, real),
        coefficients=aligned(of.coefficients, real),
        mixed=aligned(of.mixed, real),
        grams_64=np.zeros(of.grams_64),
        wide=np.zeros(of.wide),
        inverse=np.zeros(of.inverse),
        moments=np.zeros(of.moments),
        logs=np.zeros(of.logs),
        active=np.arange(of.active[0], dtype=np.int64),
        key=np.zeros(4, np.uint32),
        links=table(dtype),
    )
