"""What one layer does to the mean and variance of h and to the squared norm of g, at infinite width.

The entries of h_{l-1} have mean M and variance V over the units. Those of W h_{l-1} + b are N(0, q), q = gain^2 (V +
M^2) + bias^2, independent over the units and of h_{l-1}. W^T d has the squared norm gain^2 |d|^2, whatever d. Layer
and RMS norms divide by a number that does not fluctuate; what they take out of the gradient is one or two directions
of n.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gradsim import activations
from gradsim.activations import Activation
from gradsim.chain import Chain
from gradsim.gaussian import moments
from gradsim.theory.law import squared_gains
from gradsim.theory.special import FloatArray

# Two layers whose states agree to this relative distance are the same: there is a fixed point.
_SETTLED = 2e-15


class State(NamedTuple):
    """Mean and variance of the entries of h over the units."""

    mean: float
    variance: float

    @property
    def square(self) -> float:
        """Mean square."""
        return self.variance + self.mean * self.mean


class Weights(NamedTuple):
    """gain^2 and bias^2 of one layer, input noise counted as bias."""

    gain_squared: float
    bias_squared: float


@dataclass(frozen=True)
class LayerMap:
    """One layer of a chain without batch norm, in the limit.

    Attributes
    ----------
    activation : Activation
    norm, norm_position : str
        As in the chain.
    eps, keep, alpha, carry : float
        ``norm_eps``, 1 - ``dropout``, the factor of a skip (0 without one) and of h_{l-1} beside it.
    """

    activation: Activation
    norm: str
    norm_position: str
    eps: float
    keep: float
    alpha: float
    carry: float

    @classmethod
    def of(cls, chain: Chain) -> LayerMap:
        """The layers of a chain, which differ in their weights alone."""
        activation = activations.get(chain.activation, chain.negative_slope)
        position = "" if chain.norm == "none" else chain.norm_position
        factors = 1.0 - chain.dropout, chain.skip_factor, chain.carry
        return cls(activation, chain.norm, position, chain.norm_eps, *factors)

    def __call__(self, state: State, weights: Weights) -> tuple[State, float]:
        """The state of h_l, and the growth of ||g||^2 from layer l down to l - 1; NaN where numbers leave float64."""
        s2, b2 = weights
        through = 1.0
        square = state.square
        if self.norm_position == "pre":
            normed, through = self._normalise(state)
            square = normed.square
        q = s2 * square + b2
        if self.norm_position == "before":
            # Over the units of a layer z has mean 0, so that layer and RMS norm are one.
            scale = over(1.0, q + self.eps)
            q, through = over(q, q + self.eps), through * scale
        expected = moments(self.activation, q)
        y, slope = State(expected.mean, max(expected.variance, 0.0)), expected.slope
        if self.norm_position == "after":
            y, scale = self._normalise(y)
            through *= scale
        # Dropped with probability 1 - keep, scaled up otherwise: the mean square grows by 1/keep.
        if self.keep < 1.0:
            y = State(y.mean, y.variance + y.square * (1.0 / self.keep - 1.0))
        growth = s2 * slope * through / self.keep
        if not self.alpha:
            return y, growth
        alpha, carry = self.alpha, self.carry
        state = State(carry * state.mean + alpha * y.mean, carry * carry * state.variance + alpha * alpha * y.variance)
        growth = carry * carry + alpha * alpha * growth
        if self.norm_position == "post":
            state, scale = self._normalise(state)
            growth *= scale
        return state, growth

    def _normalise(self, state: State) -> tuple[State, float]:
        """Layer or RMS norm: the new state, and the square of the factor on a gradient."""
        if self.norm == "layer":
            divisor = state.variance + self.eps
            return State(0.0, over(state.variance, divisor)), over(1.0, divisor)
        divisor = state.square + self.eps
        return State(over(state.mean, math.sqrt(divisor)), over(state.variance, divisor)), over(1.0, divisor)


def over(a: float, b: float) -> float:
    """a/b; NaN for anything over zero."""
    return a / b if b else math.nan


def layer_weights(chain: Chain) -> Iterator[Weights]:
    """Weights of layers 1..L; gain^2 is n_{l-1}/n_l times as large where an orthogonal W is tall, since that
    keeps norms and so spreads them over more units.
    """
    noise = chain.input_noise * chain.input_noise
    sizes = zip(squared_gains(chain), chain.biases.tolist(), chain.widths[:-1], chain.widths[1:], strict=True)
    for s2, bias, m, n in sizes:
        yield Weights(s2 * (min(1.0, m / n) if chain.init == "orthogonal" else 1.0), bias * bias + noise)


def input_state(chain: Chain) -> State:
    """The state of h_0."""
    return State(0.0, chain.input_scale * chain.input_scale)


def log_growth(chain: Chain) -> tuple[FloatArray, State]:
    """ln of the growth of E||g||^2 through layers 1..L, shape (L,), and the state of h_L."""
    layer = LayerMap.of(chain)
    state = input_state(chain)
    result = np.empty(chain.depth)
    previous: Weights | None = None
    settled = False
    for index, weights in enumerate(layer_weights(chain)):
        if settled and weights == previous:
            # A fixed point: every further layer that is alike repeats this one.
            result[index] = result[index - 1]
            continue
        after, growth = layer(state, weights)
        result[index] = logarithm(growth)
        settled, state, previous = same(state, after), after, weights
    return result, state


def same(one: State, other: State) -> bool:
    """Whether two states are the same up to rounding."""
    near = abs(one.variance - other.variance) <= _SETTLED * abs(other.variance)
    return near and abs(one.mean - other.mean) <= _SETTLED * math.sqrt(max(other.square, 0.0))


def logarithm(value: float) -> float:
    """ln of a growth; NaN where it is 0 or beyond float64."""
    return math.log(value) if 0.0 < value < math.inf else math.nan
