"""The deferred engine of plain homogeneous chains: Gaussian weights, phi linear, ReLU or leaky ReLU, nothing else.

What such a chain asks of W_l is one direction forward and one backward (see `deferred`), and lengths go through phi as
factors. So with xi_l the normals that W_l answers its input's direction,

    h_l = s_l ||h_{l-1}|| phi(xi_l),

and with x fresh normals, u = phi(xi_{l-1}) / ||phi(xi_{l-1})|| and d_l = phi'(xi_l) g_l,

    g_{l-1} = s_l ||d_l|| (x + u (<xi_l, d_l> / ||d_l|| - <u, x>)).

Every xi_l is kept; h_l, d_l and g_l are never written down. Each pass is sums over xi_l and x of single layers, and a
recursion of a few numbers a layer on top of them. The numbers are those of the general engine to rounding.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import keys
from .bits import keep_out_of_line, prefer_wide_vectors
from .compiling import kernel, part, reduction
from .direction_shapes import AHEAD, answers_shape, layers_ahead
from .draws import fill_gaussian, fill_rows_gaussian
from .layout import (
    ACTIVATION,
    BACKWARD,
    CLOSE,
    FORWARD,
    GRAD,
    GRAD_MAX,
    ONES,
    OUTPUT_CODES,
    RANDOM,
    TURN,
    WEIGHT_GRAD,
    aligned,
)
from .streams import set_key, set_keys
from .team import add_once, each, meet, sum_over
from .vectors import LN2, absolute_maximum, sum_of_squares
from .walk import LAYER_COST, whole_lanes

if TYPE_CHECKING:
    from gradsim.chain import Chain

# Entries summed in the chain's dtype before float64 takes the sum over, and width below which float64 sums all: of
# few entries, what is left of x along and across phi(xi) may be little beside it.
CHUNK, WIDE = 4096, 128
# Sums over one layer, phi' standing for slopes: x^2, phi x, (phi' x)^2, phi'^2 phi x and (phi' phi)^2.
X_X, PHI_X, D_D, PHI_D, BENT = range(5)
SUMS = 5

SPEC = np.dtype(
    [
        ("depth", np.int64),
        ("wants_maximum", np.int64),
        ("wants_weight", np.int64),
        ("wants_lengths", np.int64),  # ||h_l||, or something it is in
        ("output", np.int64),
        ("narrow", np.int64),  # float64 sums
        ("ahead", np.int64),  # how many layers are drawn together
        ("slope", np.float64),
        ("log_input", np.float64),
    ],
    align=True,
)
PROGRESS = np.dtype(
    [
        ("chain", np.int64),  # offset of the chain at hand within the piece
        ("phase", np.int64),
        ("layer", np.int64),
        ("square", np.float64),  # g_l = (x + coefficient phi(xi_l)) times the root of square 2^power
        ("power", np.int64),
        ("coefficient", np.float64),
        ("d_square", np.float64),  # ||phi'(xi_l) w||^2 and <xi_l, phi'(xi_l) w>, w = x + coefficient phi(xi_l)
        ("met", np.float64),
    ],
    align=True,
)
LAYER = np.dtype(
    [
        ("width", np.int64),
        ("log_scale", np.float64),
        ("square", np.float64),  # s_l^2 = square 2^power
        ("power", np.int64),
        ("log_h", np.float64),
        ("length", np.float64),  # ||phi(xi_l)||
    ],
    align=True,
)


class Directions(NamedTuple):
    """Arguments of a kernel call; N is the largest width, padded, `real` the chain's dtype."""

    spec: Any  # a record of SPEC
    layers: NDArray[Any]  # (L + 1,) of LAYER
    progress: Any  # a record of PROGRESS
    answers: NDArray[np.floating]  # (L + 1, N) real: xi_l; of layer 0 the input, as drawn
    fresh: NDArray[np.floating]  # (ahead, N) real: x of this layer and of those below it
    sizes: NDArray[np.int64]  # (AHEAD,)
    streams: NDArray[np.uint32]  # (4, AHEAD): keys of layers drawn together
    sums: NDArray[np.float64]  # (AHEAD, 5): of layers drawn together
    key: NDArray[np.uint32]  # (4,): the stream of the layer at hand


@reduction
def rectified_length(xi, slope, n, zero):
    """||phi(xi)||, chunks summed in the dtype of `zero`."""
    prefer_wide_vectors()
    keep_out_of_line()
    one, own = xi.dtype.type(1), xi.dtype.type(slope)
    total = 0.0
    for start in range(0, n, CHUNK):
        part_of = xi[start : min(start + CHUNK, n)]
        chunk = zero
        for i in each(len(part_of)):
            phi = (zero + (one if part_of[i] > 0 else own)) * (zero + part_of[i])
            chunk += phi * phi
        total += sum_over(chunk)
    return math.sqrt(total)


@reduction
def _add_sums(xi, slope, x, zero, sums):
    """Add those of a chunk, summed in the dtype of `zero`, to the sums."""
    prefer_wide_vectors()
    keep_out_of_line()
    one, own = xi.dtype.type(1), xi.dtype.type(slope)
    length, along, passed, both, bent = zero, zero, zero, zero, zero
    for i in each(len(xi)):
        v, w = zero + xi[i], zero + x[i]
        bend = zero + (one if xi[i] > 0 else own)
        phi = bend * v
        length += w * w
        along += phi * w
        w *= bend
        passed += w * w
        both += bend * phi * w
        phi *= bend
        bent += phi * phi
    add_once(sums, X_X, sum_over(length))
    add_once(sums, PHI_X, sum_over(along))
    add_once(sums, D_D, sum_over(passed))
    add_once(sums, PHI_D, sum_over(both))
    add_once(sums, BENT, sum_over(bent))


@kernel
def sum_up(xi, slope, x, n, zero, sums):
    """The sums of one layer over xi_l and x (see `step_backward`)."""
    keep_out_of_line()
    for k in range(SUMS):
        sums[k] = 0.0
    for start in range(0, n, CHUNK):
        stop = min(start + CHUNK, n)
        _add_sums(xi[start:stop], slope, x[start:stop], zero, sums)


@kernel
def write_down(xi, slope, x, coefficient, n):
    """x <- x + coefficient phi(xi)."""
    keep_out_of_line()
    zero, one, own, c = xi.dtype.type(0), xi.dtype.type(1), xi.dtype.type(slope), xi.dtype.type(coefficient)
    for i in each(n):
        x[i] += c * ((one if xi[i] > zero else own) * xi[i])


def make_directions(chain: Chain, quantities: tuple[str, ...], dtype: str, method: str) -> Directions:
    """Everything one thread needs for chains of this shape, at the beginning of a piece."""
    spec, progress = (np.zeros(1, of).view(np.recarray)[0] for of in (SPEC, PROGRESS))
    progress.phase = FORWARD
    spec.depth, spec.output = chain.depth, OUTPUT_CODES[chain.output_gradient]
    spec.ahead, spec.narrow = layers_ahead(chain), min(chain.widths) < WIDE
    spec.wants_maximum = "log_grad_max" in quantities
    spec.wants_weight = "log_weight_grad_norm" in quantities
    spec.wants_lengths = spec.wants_weight or "log_activation_norm" in quantities or chain.output_gradient == "loss"
    spec.slope = {"linear": 1.0, "relu": 0.0, "leaky_relu": chain.negative_slope}[chain.activation]
    spec.log_input = math.log(chain.input_scale)
    layers = np.zeros(chain.depth + 1, LAYER)
    layers["width"] = chain.widths
    layers["log_scale"][1:] = np.log(chain.gains) - 0.5 * np.log(chain.widths[:-1])
    squares, powers = np.frexp(chain.gains)
    layers["square"][1:] = squares**2 / chain.widths[:-1]
    layers["power"][1:] = 2 * powers
    rows, real = answers_shape(chain), np.dtype(dtype)
    return Directions(
        spec=spec,
        layers=layers,
        progress=progress,
        answers=aligned(rows, real),
        fresh=aligned((spec.ahead, rows[1]), real),
        sizes=np.zeros(AHEAD, np.int64),
        streams=np.zeros((4, AHEAD), np.uint32),
        sums=np.zeros((AHEAD, SUMS)),
        key=np.zeros(4, np.uint32),
    )


@kernel
def pad(x, n):
    """Zeros after n entries up to whole lanes."""
    keep_out_of_line()
    rest = x[n : whole_lanes(n)]
    for i in each(len(rest)):
        rest[i] = 0


@part
def draw_forward(m, cell, chain, layer, count):
    """xi of this layer and of those above it that are drawn with it; the input for layer 0."""
    set_keys(m.streams, cell, chain, layer, 1, keys.ANSWER)
    if layer == 0:
        set_key(m.key, cell, chain, 0, keys.INPUT)
        for word in range(4):
            m.streams[word, 0] = m.key[word]
    for r in range(count):
        m.sizes[r] = m.layers[layer + r].width
    fill_rows_gaussian(m.streams, False, m.answers, layer, count, m.sizes)
    for r in range(count):
        pad(m.answers[layer + r], m.sizes[r])


@part
def draw_back(m, cell, chain, layer, count):
    """x of W_l^T and of the matrices below that are drawn with it."""
    set_keys(m.streams, cell, chain, layer, -1, keys.ANSWER_BACK)
    for r in range(count):
        m.sizes[r] = m.layers[layer - r - 1].width
    fill_rows_gaussian(m.streams, False, m.fresh, 0, count, m.sizes)
    for r in range(count):
        pad(m.fresh[r], m.sizes[r])


@part
def bend_of(m, layer):
    """Slope of phi below zero; layer 0 has no phi."""
    return m.spec.slope if layer > 0 else 1.0


@part
def log_of(x):
    """ln x, of 0 as well."""
    return math.log(x) if x > 0.0 else -math.inf


@part
def step_forward(m, cell, chain, out):
    """xi_l, and the length of h_l, of as many layers as are drawn together; returns how many normals."""
    spec, progress, first = m.spec, m.progress, m.progress.layer
    count, drawn = min(spec.ahead, spec.depth + 1 - first), 0
    draw_forward(m, cell, chain, first, count)
    for layer in range(first, first + count):
        own, xi = m.layers[layer], m.answers[layer]
        n = whole_lanes(own.width)
        drawn += n
        if layer == 0 or m.layers[layer - 1].length > 0.0:
            if spec.narrow:
                own.length = rectified_length(xi, bend_of(m, layer), n, 0.0)
            else:
                own.length = rectified_length(xi, bend_of(m, layer), n, xi.dtype.type(0))
        else:
            for i in each(n):
                xi[i] = 0
            meet()
            own.length = 0.0
        if spec.wants_lengths:
            below = spec.log_input if layer == 0 else m.layers[layer - 1].log_h + own.log_scale
            own.log_h = below + log_of(own.length)
            out[ACTIVATION, progress.chain, layer] = own.log_h
    progress.phase = FORWARD if first + count <= spec.depth else TURN
    progress.layer = min(first + count, spec.depth)
    return drawn


@part
def sum_layer(m, layer, x, place):
    """The sums of a layer with this x."""
    n, xi, slope = whole_lanes(m.layers[layer].width), m.answers[layer], bend_of(m, layer)
    if m.spec.narrow:
        sum_up(xi, slope, x, n, 0.0, m.sums[place])
    else:
        sum_up(xi, slope, x, n, x.dtype.type(0), m.sums[place])


@part
def write_gradient(m, layer, x, place, out):
    """Norm and largest entry of g_l, and what the matrix below will need of d_l."""
    progress, sums, c = m.progress, m.sums[place], m.progress.coefficient
    square, log_power, length = progress.square, progress.power * LN2, m.layers[layer].length
    progress.d_square = max(sums[D_D] + c * (2.0 * sums[PHI_D] + c * sums[BENT]), 0.0)
    progress.met = sums[PHI_X] + c * length * length
    g_square = max(sums[X_X] + c * (sums[PHI_X] + progress.met), 0.0)
    out[GRAD, progress.chain, layer] = 0.5 * (log_of(square * g_square) + log_power)
    if m.spec.wants_maximum:
        n = m.layers[layer].width
        write_down(m.answers[layer], bend_of(m, layer), x, c, n)
        log_maximum = log_of(absolute_maximum(x, n))
        out[GRAD_MAX, progress.chain, layer] = log_maximum + 0.5 * (math.log(square) + log_power)
    progress.layer = layer
    progress.phase = CLOSE if layer == 0 or progress.d_square == 0.0 else BACKWARD


@part
def step_turn(m, cell, chain, out):
    """g_L: uniform on the sphere, all ones, or h_L."""
    spec, progress, own = m.spec, m.progress, m.layers[m.spec.depth]
    n, x = own.width, m.fresh[0]
    progress.coefficient, progress.square, progress.power = 0.0, 1.0, 0
    if spec.output == RANDOM:
        set_key(m.key, cell, chain, spec.depth, keys.OUTPUT)
        fill_gaussian(m.key, 0, x, n)
        pad(x, n)
        squared = sum_of_squares(x, n)
        if squared == 0.0:
            x[0] = squared = 1.0  # a narrow output whose normals all rounded to zero, which float32 allows
        progress.square = 1.0 / squared
    else:
        for i in each(whole_lanes(n)):
            x[i] = 1 if spec.output == ONES and i < n else 0
        meet()
        if spec.output != ONES and own.length > 0.0:
            write_down(m.answers[spec.depth], bend_of(m, spec.depth), x, 1.0, n)
            doublings = 2.0 * (own.log_h - math.log(own.length)) / LN2
            progress.power = math.floor(doublings)
            progress.square = 2.0 ** (doublings - progress.power)
    sum_layer(m, spec.depth, x, 0)
    write_gradient(m, spec.depth, x, 0, out)
    return n


@part
def step_backward(m, cell, chain, out):
    """Ask as many W_l^T as are drawn together, and write down what comes of it; returns how many normals.

    With w = x + c phi(xi), of which g_l is a multiple, ||w||^2, ||phi' w||^2 and <xi, phi' w> are polynomials in c
    whose coefficients are sums over xi and x alone: layers wait for each other's numbers, not for their vectors.
    """
    spec, progress, first = m.spec, m.progress, m.progress.layer
    count, drawn = min(spec.ahead, first), 0
    draw_back(m, cell, chain, first, count)
    for r in range(count):
        sum_layer(m, first - 1 - r, m.fresh[r], r)
        drawn += m.layers[first - 1 - r].width
    for r in range(count):
        if progress.phase == BACKWARD:
            own, below = m.layers[progress.layer], m.layers[progress.layer - 1]
            square = progress.square * progress.d_square
            if spec.wants_weight:
                log_d = 0.5 * (math.log(square) + progress.power * LN2)
                out[WEIGHT_GRAD, progress.chain, progress.layer - 1] = log_d + below.log_h
            progress.coefficient = 0.0
            if below.length > 0.0:
                beside = m.sums[r, PHI_X] / below.length
                progress.coefficient = (progress.met / math.sqrt(progress.d_square) - beside) / below.length
            progress.square, shift = math.frexp(square * own.square)
            progress.power += own.power + shift
            write_gradient(m, progress.layer - 1, m.fresh[r], r, out)
    return drawn


@part
def step_close(m, out):
    """Write what is left of a chain: layers below a gradient that vanished."""
    progress = m.progress
    for below in range(progress.layer):
        out[GRAD, progress.chain, below] = -math.inf
        out[GRAD_MAX, progress.chain, below] = -math.inf
        out[WEIGHT_GRAD, progress.chain, below] = -math.inf
    progress.chain += 1
    progress.phase, progress.layer = FORWARD, 0


@kernel
def advance_directions(m, cell, first_chain, count, out, spectra, budget):
    """`dense.advance` for plain homogeneous chains; `budget` counts normals."""
    progress = m.progress
    while progress.chain < count and budget > 0:
        chain = first_chain + progress.chain
        if progress.phase == FORWARD:
            budget -= step_forward(m, cell, chain, out) + LAYER_COST
        elif progress.phase == BACKWARD:
            budget -= step_backward(m, cell, chain, out) + LAYER_COST
        elif progress.phase == TURN:
            budget -= step_turn(m, cell, chain, out)
        else:
            step_close(m, out)
    return progress.chain == count
