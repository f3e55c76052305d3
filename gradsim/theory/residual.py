"""Skip connections around one matrix, h_l = carry h_{l-1} + alpha phi(W_l h_{l-1} + b_l), at large width.

At infinite width E||g||^2 grows by carry^2 + alpha^2 chi(q_l) per layer: W'd is as good as independent of g (Yang and
Schoenholz 2017, arXiv:1712.08969). But where phi is not odd h acquires a mean, and g has overlaps with h and with
(1, ..., 1) that may grow faster. They are of relative size 1/sqrt(n) at the top, and rule after some log n layers; for
ReLU they grow as ||h_l||^2 does going up, since <g_l, h_l> is conserved. `Overlaps` carries them along to leading order
in 1/n.
Derivation: docs/theory/residual.md.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from gradsim.chain import Chain
from gradsim.gaussian import cross_moments, moments
from gradsim.theory.law import Law, draws_fresh_weights, sum_above
from gradsim.theory.layer_map import (
    LayerMap,
    State,
    Weights,
    input_state,
    layer_weights,
    log_growth,
    logarithm,
    same,
)
from gradsim.theory.mean_field import ODD, layers_are_alike, limit_law, mixes
from gradsim.theory.normalised import settled_rate
from gradsim.theory.special import FloatArray

# A mean square outside 1e-60..1e60 is brought nearer to 1: there every phi is linear, a rectifier or negligible.
_FAR_OUT, _RESCALING = 1e60, 1e20
_STEADY, _LONGEST, _HALVINGS = 1e-13, 1000, 60
# Beyond this q gelu and silu are rectifiers, as far as float64 can tell.
_RECTIFIED = 1e32
_UNBOUNDED = ("relu", "leaky_relu", "gelu", "silu", "linear")
_SOURCE = "skip at infinite width: sum of log(carry^2 + alpha^2 chi(q_l)) (Yang and Schoenholz 2017)"


def one_matrix(chain: Chain) -> Law | None:
    """A skip around one matrix and any activation, without a norm."""
    applies = chain.skip and chain.norm == "none" and draws_fresh_weights(chain) and mixes(chain)
    if not applies:
        return None
    if chain.activation in ODD:
        growth, state = log_growth(chain)
        return limit_law(chain, "mean-field-skip", [_SOURCE], growth, _odd_rate(chain, state))
    if chain.batch > 1 or chain.output_gradient != "random":
        return None
    return _with_overlaps(chain)


def _odd_rate(chain: Chain, state: State) -> float:
    if not layers_are_alike(chain) or isinstance(chain.skip, str):
        return math.nan
    layer = LayerMap.of(chain)
    if chain.activation == "linear":
        return logarithm(layer(state, next(layer_weights(chain)))[1]) / 2.0
    # h grows without bound, and chi falls to 0.
    return math.log(chain.carry) if chain.carry >= 1.0 else settled_rate(layer, chain, state)


def _with_overlaps(chain: Chain) -> Law:
    """The noise of g grows by carry^2 + alpha^2 chi; what E||g||^2 has beyond it is the square of a Gaussian amplitude.

    So ln||g||^2 = ln N + ln(1 + S Z^2), N the noise and N (1 + S) the second moment.
    """
    layer = LayerMap.of(chain)
    total, noise = np.empty(chain.depth), np.empty(chain.depth)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        steps = _steps(layer, chain)
        overlaps = Overlaps.random(steps[-1].plane.ratio, chain.widths[-1])
        steady = False
        for index in range(chain.depth - 1, -1, -1):
            step = steps[index]
            if steady and step is steps[index + 1]:
                total[index], noise[index] = total[index + 1], noise[index + 1]
                continue
            below, growth = overlaps.below(step, chain.init == "orthogonal")
            total[index], noise[index] = logarithm(growth), logarithm(step.noise)
            steady, overlaps = below.near(overlaps), below
        law = limit_law(
            chain,
            "mean-field-skip",
            [_SOURCE, "with the overlaps of g with h and (1, ..., 1), which takes log E||g||^2 to first order in 1/n"],
            total,
            _overlap_rate(chain, layer),
        )
        return replace(law, mean=law.start + (sum_above(noise) + _log_spread(sum_above(total - noise))) / 2.0)


def _log_spread(excess: FloatArray) -> FloatArray:
    """E ln(1 + S Z^2) for S = exp(excess) - 1, and excess itself where S <= 0."""
    # In u = ln Z, where the integrand is smooth and falls off on both sides: beyond u = -38 it is below 1e-13, and with
    # singularities no nearer than |Im u| = pi/4 the rule leaves exp(-2 pi (pi/4)/0.1) < 1e-21.
    u = np.arange(-38.0, 3.0, 0.1)
    z = np.exp(u)
    density = 0.1 * 2.0 * z * np.exp(-z * z / 2.0) / math.sqrt(2.0 * math.pi)
    positive = np.maximum(excess, 0.0)
    strength = np.where(positive > 30.0, positive, np.log(np.expm1(np.clip(positive, 1e-300, 30.0))))
    mean = np.logaddexp(0.0, strength[:, None] + 2.0 * u) @ density
    return np.where(excess > 0.0, mean, excess)


def _steps(layer: LayerMap, chain: Chain) -> list[Step]:
    """The layers 1..L, each to a scale of its own; the same object for layers that are alike but for their scale."""
    state, scale = input_state(chain), 1.0
    steps: list[Step] = []
    previous, steady = None, False
    for weights in layer_weights(chain):
        if steady and weights == previous:
            steps.append(steps[-1])
            continue
        state, factor = _near_one(state)
        scale *= factor
        scaled = Weights(weights.gain_squared, weights.bias_squared * scale)
        above, _ = layer(state, scaled)
        steps.append(Step.of(layer, state, scaled, above))
        steady = same(state, above) or (_scales(layer, state, scaled) and _alike(state, above))
        state, previous = above, weights
    return steps


def _scales(layer: LayerMap, state: State, weights: Weights) -> bool:
    """Whether a larger h gives a layer that is larger and otherwise the same."""
    rectified = layer.activation.name in ("gelu", "silu") and state.square * weights.gain_squared > _RECTIFIED
    unbiased = weights.bias_squared <= _STEADY * _STEADY * weights.gain_squared * state.square
    return unbiased and (layer.activation.homogeneous or rectified)


def _near_one(state: State) -> tuple[State, float]:
    """The state to a scale at which nothing overflows, and the factor on mean squares."""
    factor = 1.0
    if state.square > _FAR_OUT:
        factor = 1.0 / _RESCALING
    elif 0.0 < state.square < 1.0 / _FAR_OUT:
        factor = _RESCALING
    return State(state.mean * math.sqrt(factor), state.variance * factor), factor


class Pair(NamedTuple):
    """Averages of some vector with h_l/rms h_l and with 1, or coefficients in these two."""

    h: float
    one: float


class Plane(NamedTuple):
    """The plane of h_l and 1: rms h_l, the average of h_l/rms h_l with 1, and 1 less its square."""

    root: float
    ratio: float
    rest: float

    @classmethod
    def of(cls, state: State) -> Plane:
        """That of the h with this mean and variance."""
        root = math.sqrt(state.square)
        return cls(root, state.mean / root, state.variance / state.square)

    def coefficients(self, averages: Pair) -> Pair:
        """Of the projection of a vector with these averages."""
        h, one = averages
        return Pair((h - self.ratio * one) / self.rest, (one - self.ratio * h) / self.rest)


class Step(NamedTuple):
    """One layer as the overlaps see it.

    With z less its bias, and the mask of dropout: A = z phi'(z) and F = carry h_{l-1} + alpha A. Pairs are averages
    with h_l and 1; `slope`, `slope_h` and `slope_squares` those of phi'^2 times 1, h_l/rms h_l and its square.
    """

    layer: LayerMap
    state: State
    gain_squared: float
    plane: Plane
    below: Pair
    forward: Pair
    active: Pair
    forward_square: float
    mixed: float
    active_square: float
    active_below: float
    slope: float
    slope_h: float
    slope_squares: float

    @classmethod
    def of(cls, layer: LayerMap, state: State, weights: Weights, above: State) -> Step:
        """The layer between the states of h_{l-1} and h_l."""
        s2, b2 = weights
        c, alpha, keep = layer.carry, layer.alpha, layer.keep
        mean, square, plane = state.mean, state.square, Plane.of(above)
        q = s2 * square + b2
        plain, cross = moments(layer.activation, q), cross_moments(layer.activation, q)
        # E[z | z + b], relative, and what is left of z.
        share = s2 * square / q
        slope = plain.slope / keep
        active_1 = share * cross.slope
        active_h = c * mean * active_1 + alpha * share * cross.product / keep
        active_square = share * b2 * slope + share * share * cross.slope_squared / keep
        below_h = c * square + alpha * plain.mean * mean
        slope_value = cross.value_slopes / keep**2
        slope_squares = alpha * alpha * cross.squares / keep**3 + 2.0 * c * alpha * mean * slope_value
        return cls(
            layer,
            state,
            s2,
            plane,
            below=Pair(below_h / plane.root, mean),
            forward=Pair((c * below_h + alpha * active_h) / plane.root, c * mean + alpha * active_1),
            active=Pair(active_h / plane.root, active_1),
            forward_square=c * c * square + 2.0 * c * alpha * mean * active_1 + alpha * alpha * active_square,
            mixed=c * mean * active_1 + alpha * active_square,
            active_square=active_square,
            active_below=mean * active_1,
            slope=slope,
            slope_h=(c * mean * slope + alpha * slope_value) / plane.root,
            slope_squares=(slope_squares + c * c * square * slope) / plane.root**2,
        )

    @property
    def noise(self) -> float:
        """Growth of the part of g that overlaps with nothing."""
        return self.layer.carry**2 + self.layer.alpha**2 * self.gain_squared * self.slope

    def transfer(self) -> FloatArray:
        """What takes the overlaps of g_l, (<g, h>/rms h, <g, 1>), to those of g_{l-1}; shape (2, 2)."""
        forward, active = self.plane.coefficients(self.forward), self.plane.coefficients(self.active)
        lever, root = self.layer.alpha * self.state.mean / self.state.square, math.sqrt(self.state.square)
        rows = [[forward.h / root, forward.one / root], [lever * active.h, lever * active.one + self.layer.carry]]
        return np.array(rows)


class Overlaps(NamedTuple):
    """Second moments of the overlaps x = <g, h>/rms h and y = <g, 1>, averages over n units, relative to <g, g>."""

    xx: float
    xy: float
    yy: float
    width: int

    @classmethod
    def random(cls, ratio: float, width: int) -> Overlaps:
        """Those of a random g_L, `ratio` the mean of h_L over its rms."""
        return cls(1.0 / width, ratio / width, 1.0 / width, width)

    def near(self, other: Overlaps) -> bool:
        """Whether two are the same up to rounding."""
        return all(abs(a - b) <= _STEADY * (self.xx + self.yy) for a, b in zip(self[:3], other[:3], strict=True))

    def below(self, step: Step, isometric: bool) -> tuple[Overlaps, float]:
        """The overlaps of g_{l-1} from those of g_l, and the growth of E||g||^2.

        Parameters
        ----------
        step : Step
        isometric : bool
            Whether W'd has exactly the length of gain d.
        """
        c, alpha, s2, n = step.layer.carry, step.layer.alpha, step.gain_squared, self.width
        xx, xy, yy, _ = self
        mean, square = step.state.mean, step.state.square
        _, ratio, rest = step.plane
        noise = 1.0 - (xx - 2.0 * ratio * xy + yy) / rest

        def product(one: Pair, other: Pair, value: float) -> float:
            """E <g, a> <g, b> of two vectors with these averages and <a, b>: projections and noise."""
            u, v = step.plane.coefficients(one), step.plane.coefficients(other)
            fixed = one.h * v.h + one.one * v.one
            return u.h * (xx * v.h + xy * v.one) + u.one * (xy * v.h + yy * v.one) + noise / n * (value - fixed)

        active = product(step.active, step.active, step.active_square)
        active_below = product(step.active, step.below, step.active_below)
        # <phi'^2 g, g>: of the noise, and of what lies along h_l and 1.
        along_h = xx - 2.0 * ratio * xy + ratio * ratio * yy
        along_1 = yy - 2.0 * ratio * xy + ratio * ratio * xx
        both = (1.0 + ratio * ratio) * xy - ratio * (xx + yy)
        along = along_h * step.slope_squares + 2.0 * both * step.slope_h + along_1 * step.slope
        # The noise is random within what is orthogonal to h_l and 1, and so lacks their share of phi'^2.
        share = (step.slope_squares - 2.0 * ratio * step.slope_h + step.slope) / rest
        through = noise * (step.slope - (share - 2.0 * step.slope) / n) + along / rest**2
        fresh = s2 * through - active / square if isometric else s2 * through * (1.0 - 1.0 / n)
        growth = c * c + 2.0 * c * alpha * active_below / square + alpha * alpha * (fresh + active / square)
        # x = <g, F>/rms h_{l-1} and y = carry <g, 1> + lever <g, A> + alpha <fresh, 1> of the layer below.
        lever, root, unit = alpha * mean / square, math.sqrt(square), Pair(ratio, 1.0)
        new_xx = product(step.forward, step.forward, step.forward_square) / square
        forward_1 = product(step.forward, unit, step.forward.one)
        new_xy = (c * forward_1 + lever * product(step.forward, step.active, step.mixed)) / root
        active_1 = product(step.active, unit, step.active.one)
        spread = alpha * alpha * fresh * step.state.variance / square / n
        new_yy = c * c * yy + 2.0 * c * lever * active_1 + lever * lever * active + spread
        return Overlaps(new_xx / growth, new_xy / growth, new_yy / growth, n), growth


def _overlap_rate(chain: Chain, layer: LayerMap) -> float:
    """Half the logarithm of the faster of noise and overlaps, where layers have become alike up to scale."""
    if not layers_are_alike(chain) or isinstance(chain.skip, str):
        return math.nan
    if chain.carry >= 1.0 and chain.activation not in _UNBOUNDED:
        # h grows without bound, and chi falls to 0.
        return math.log(chain.carry)
    s2, b2 = next(layer_weights(chain))
    if chain.carry >= 1.0:
        # h grows until gelu and silu are rectifiers and the bias is nothing; then only mean/rms matters.
        return _fastest(layer, _far_out(layer, s2), Weights(s2, 0.0))
    state, scale = input_state(chain), 1.0
    for _ in range(_LONGEST):
        weights = Weights(s2, b2 * scale)
        above, _ = layer(state, weights)
        if same(state, above) or (_scales(layer, state, weights) and _alike(state, above)):
            return _fastest(layer, state, weights)
        state, factor = _near_one(above)
        scale *= factor
    return math.nan


def _fastest(layer: LayerMap, state: State, weights: Weights) -> float:
    """Half the logarithm of the faster of noise and overlaps, per layer that keeps the state but for its scale."""
    step = Step.of(layer, state, weights, layer(state, weights)[0])
    overlaps = float(np.max(np.abs(np.linalg.eigvals(step.transfer())))) ** 2
    return logarithm(max(step.noise, overlaps)) / 2.0


def _far_out(layer: LayerMap, gain_squared: float) -> State:
    """The state, of mean square 1e60, whose mean/rms a layer keeps."""
    low, high = -1.0, 1.0
    for _ in range(_HALVINGS):
        ratio = (low + high) / 2.0
        state = State(ratio * math.sqrt(_FAR_OUT), (1.0 - ratio * ratio) * _FAR_OUT)
        above, _ = layer(state, Weights(gain_squared, 0.0))
        low, high = (ratio, high) if above.mean > ratio * math.sqrt(above.square) else (low, ratio)
    return state


def _alike(one: State, other: State) -> bool:
    """Whether mean/rms has settled."""
    ratios = [state.mean / math.sqrt(state.square) if state.square else math.nan for state in (one, other)]
    return abs(ratios[0] - ratios[1]) <= _STEADY
