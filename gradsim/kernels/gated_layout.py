"""What the kernel of gated chains is told about one, and the memory it works in."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .gated_shapes import VECTORS, WORK_ROWS, asked_of_gates, gated_shapes, outer_shape, unit_rows
from .layout import DRAW, IDENTITY, INIT_CODES, OUTPUT_CODES, QUANTITY_ROWS, START, aligned
from .linking import table

if TYPE_CHECKING:
    from gradsim.chain import Chain

# Quantities, as rows of the result: one more than of other chains.
GATED_ROWS = {**QUANTITY_ROWS, "log_cell_grad_norm": len(QUANTITY_ROWS)}
CELL_GRAD = len(QUANTITY_ROWS)

# Working vectors, rows of one array: h_l; dLoss/dh_l and dLoss/dc_l (for a GRU, what passes h by its update gate).
H, G, C, SCRATCH, COLUMN = range(VECTORS)
# Rows of what is worked out in float64: gates, their derivatives, and room for what comes of them.
VALUE, SLOPE, FIRST, SECOND = range(WORK_ROWS)

SPEC = np.dtype(
    [
        ("lstm", np.int64),
        ("gates", np.int64),
        ("width", np.int64),
        ("depth", np.int64),
        ("batch", np.int64),  # columns of the forward pass
        ("columns", np.int64),  # columns of the backward pass: those, or the probes
        ("probes", np.int64),
        ("forward_rows", np.int64),  # rows of W in a unit of work, how many there are, and what each costs in weights
        ("forward_units", np.int64),
        ("forward_cost", np.int64),
        ("backward_rows", np.int64),
        ("backward_units", np.int64),
        ("backward_cost", np.int64),
        ("deferred", np.int64),  # matrices are never formed, but asked
        ("asked_a_gate", np.int64),  # rows kept for what an orthogonal one is asked
        ("outer_rows", np.int64),  # of the weight gradient as it is kept
        ("outer_columns", np.int64),
        ("wants_maximum", np.int64),
        ("wants_weight", np.int64),
        ("unmixed", np.int64),  # units never meet, and one may fall behind another and catch up again
        ("init", np.int64),
        ("output", np.int64),
        ("bias_is_uniform", np.int64),
        ("input_exponent", np.int64),
        ("input_mantissa", np.float64),
        ("exponent", np.int64),  # mantissa 2^exponent multiplies W
        ("mantissa", np.float64),
        ("bias", np.float64),
        ("noise", np.float64),
        ("forget_bias", np.float64),
        ("log_clip", np.float64),  # infinite where nothing is clipped
        ("log_clip_value", np.float64),
    ],
    align=True,
)
# One entry a step, 0 .. L: exponents of the coefficients kept for the way back (see `gated_cells`), of h_l where it is
# kept, and of the gradient at the gates.
STEP = np.dtype(
    [
        ("width", np.int64),
        ("first", np.int64),
        ("second", np.int64),
        ("candidate", np.int64),
        ("output", np.int64),
        ("through", np.int64),
        ("kept", np.int64),
        ("state_exponent", np.int64),
        ("step_exponent", np.int64),
    ],
    align=True,
)
# Where a piece of work stands.
PROGRESS = np.dtype(
    [
        ("chain", np.int64),  # offset of the chain at hand within the piece
        ("phase", np.int64),
        ("layer", np.int64),
        ("unit", np.int64),  # work units of this pass that are done
        ("units", np.int64),  # how many it has
        ("h_exponent", np.int64),
        ("cell_exponent", np.int64),  # of c_l
        ("g_exponent", np.int64),
        ("c_exponent", np.int64),  # of dLoss/dc_l
        ("d_exponent", np.int64),  # of the gradient at the gates
        ("outer_exponent", np.int64),
        ("pending", np.int64),  # steps not yet added to the weight gradient
        ("log_h", np.float64),  # ln ||h||
        ("log_c", np.float64),  # ln ||dLoss/dc|| as held, which is not NaN where log_grad_norm is not
        ("g_offset", np.float64),  # ln of the factor between gradients as held and themselves
        ("lost", np.float64),  # ln of a bound on the part of them that left the dtype, where units never meet
        ("blurred", np.int64),  # where units never meet, one fell out of a state, and may grow again
        ("last_value", np.float64),  # -inf or NaN: what holds of all layers below
    ],
    align=True,
)


class GatedMemory(NamedTuple):
    """Arguments of a kernel call, sized by `gated_shapes`; `real` is the chain's dtype."""

    spec: Any  # a record of SPEC
    layers: NDArray[Any]  # (L + 1,) of STEP
    progress: Any  # a record of PROGRESS
    rows: NDArray[np.floating]  # (VECTORS, n C) real
    weights: NDArray[np.floating]  # (gates n, whole lanes of n) real: the matrices of the gates, one below the other
    gates: NDArray[np.floating]  # (gates n C,) real: W h, and on the way back the gradient there
    saved: NDArray[np.floating]  # (L coefficients, n B) real
    states: NDArray[np.floating]  # (L + 1, n B) real: h_l, where the weight gradient is wanted; else one row
    outer: NDArray[np.floating]  # like `weights`, real: the weight gradient
    pending: NDArray[np.floating]  # (OUTER_ROWS, gates n B) real: steps it still has to be given
    joint: NDArray[np.floating]  # (2 n k,) real: probes
    queries: NDArray[np.floating]  # (rows, n) real: what matrices that are never formed were asked, W x ...
    answers: NDArray[np.floating]  # of all gates where they are Gaussian
    back_queries: NDArray[np.floating]  # ... and W^T d
    back_answers: NDArray[np.floating]
    coefficients: NDArray[np.floating]  # (3 + k, rows) real: of vectors in those queries
    stacked: NDArray[np.floating]  # (gates n,) real: one column of all gates
    work: NDArray[np.float64]  # (WORK_ROWS, gates n B)
    cell: NDArray[np.float64]  # (n B,): c_l
    bias: NDArray[np.float64]  # (gates n,)
    logs: NDArray[np.float64]  # (3, k): growth of the probes, and room to find it
    active: NDArray[np.int64]  # (gates n,): 0, 1, 2, ...
    asked: NDArray[np.int64]  # (gates,): how many queries there are
    asked_back: NDArray[np.int64]  # (1,)
    links: NDArray[np.int64]  # addresses of kernels (see `linking`)
    key: NDArray[np.uint32]  # (4,): the stream at hand


def _units(chain: Chain, columns: int) -> tuple[int, int, int]:
    """Rows of W in a unit of work of a product with so many columns, how many units there are, and what each costs."""
    rows, total = unit_rows(chain, columns), chain.gates * chain.widths[0]
    multiplied = rows * columns * (1 if chain.init == "identity" else chain.widths[0])
    return rows, -(-total // rows), multiplied // 8 + 1


def _spec(chain: Chain, quantities: tuple[str, ...], method: str) -> Any:
    """The chain as a record of SPEC."""
    spec = np.recarray(1, SPEC)[0]
    width, scale = chain.widths[0], float(chain.gains[0])
    spec.lstm = chain.kind == "lstm"
    spec.gates, spec.width, spec.depth = chain.gates, width, chain.depth
    spec.batch, spec.columns, spec.probes = chain.batch, chain.columns, chain.probes
    spec.forward_rows, spec.forward_units, spec.forward_cost = _units(chain, chain.batch)
    spec.backward_rows, spec.backward_units, spec.backward_cost = _units(chain, chain.columns)
    spec.deferred = method == "deferred"
    spec.asked_a_gate = asked_of_gates(chain)[2]
    spec.outer_rows, spec.outer_columns = outer_shape(chain, method)
    if spec.deferred:
        columns = max(chain.batch, chain.columns)
        spec.forward_units, spec.backward_units = chain.batch, chain.columns
        spec.forward_cost = spec.backward_cost = chain.gates * width * (4 + min(width, chain.depth * columns) // 2)
    spec.wants_maximum = "log_grad_max" in quantities
    spec.wants_weight = "log_weight_grad_norm" in quantities
    spec.unmixed = (chain.init == "identity" or scale == 0.0) and chain.probes == 1
    spec.init = INIT_CODES[chain.init]
    spec.output = OUTPUT_CODES[chain.output_gradient]
    spec.bias_is_uniform = chain.bias_law == "uniform"
    spec.input_mantissa, spec.input_exponent = math.frexp(chain.input_scale)
    if chain.init not in ("orthogonal", "identity"):
        scale /= math.sqrt(width)
    spec.mantissa, spec.exponent = math.frexp(scale)
    spec.bias, spec.noise, spec.forget_bias = float(chain.biases[0]), chain.input_noise, chain.forget_bias
    spec.log_clip = math.log(chain.clip) if chain.clip > 0 else math.inf
    spec.log_clip_value = math.log(chain.clip_value) if chain.clip_value > 0 else math.inf
    return spec


def make_gated_memory(chain: Chain, quantities: tuple[str, ...], dtype: str, method: str = "dense") -> GatedMemory:
    """Everything one thread needs for gated chains of this shape, at the beginning of a piece."""
    spec, real = _spec(chain, quantities, method), np.dtype(dtype)
    of = gated_shapes(chain, quantities, method)
    layers = np.zeros(of.layers, STEP)
    layers["width"] = spec.width
    progress = np.zeros(1, PROGRESS).view(np.recarray)[0]
    progress.phase = START if spec.init == IDENTITY or spec.deferred else DRAW
    return GatedMemory(
        spec=spec,
        layers=layers,
        progress=progress,
        rows=aligned(of.rows, real),
        weights=aligned(of.weights, real),
        gates=aligned(of.gates, real),
        saved=aligned(of.saved, real),
        states=aligned(of.states, real),
        outer=aligned(of.outer, real),
        pending=aligned(of.pending, real),
        joint=aligned(of.joint, real),
        queries=aligned(of.queries, real),
        answers=aligned(of.answers, real),
        back_queries=aligned(of.back_queries, real),
        back_answers=aligned(of.back_answers, real),
        coefficients=aligned(of.coefficients, real),
        stacked=aligned(of.stacked, real),
        work=aligned(of.work, np.dtype(np.float64)),
        cell=aligned(of.cell, np.dtype(np.float64)),
        bias=aligned(of.bias, np.dtype(np.float64)),
        logs=np.zeros(of.logs),
        active=np.arange(of.active[0], dtype=np.int64),
        key=np.zeros(4, np.uint32),
        asked=np.zeros(spec.gates, np.int64),
        asked_back=np.zeros(1, np.int64),
        links=table(dtype),
    )
