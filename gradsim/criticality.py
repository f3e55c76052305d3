"""Mean field at infinite width: the variance map, its fixed points and the critical gain.

The pre-activations of layer l are N(0, q_l) with ``q_{l+1} = gain^2 E phi(sqrt(q_l) Z)^2 + bias^2``, and the
squared gradient norm grows by ``chi_l = gain^2 E phi'(sqrt(q_l) Z)^2`` through layer l (Poole et al. 2016,
arXiv:1606.05340; Schoenholz et al. 2017, arXiv:1611.01232).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple, cast

import numpy as np

from gradsim.activations import Activation, get
from gradsim.errors import ExperimentError
from gradsim.gaussian import moments
from gradsim.vocabulary import CHAIN_FIELDS

_BISECTIONS = 200
# How far down and up a fixed point is looked for.
_SMALLEST, _LARGEST_Q = 1e-60, 1e62
# Largest bias and slope; far beyond it the square of a pre-activation leaves float64.
_LARGEST = 1e30
# phi(0) = 0 and a concave variance map: below slope 1 at 0 it has no other fixed point.
_CONCAVE = ("tanh", "erf")
# Where the critical gain of gelu and silu differs from a rectifier's by less than 1e-11.
_LARGE_BIAS = 1e5
# Brackets of q at the half-stable points; the values they are bisected to are in docs/theory/limits.md.
_HALF_STABLE = {"gelu": (2.0, 6.0), "silu": (8.0, 24.0)}
# How close (gain^2, bias^2) is to a half-stable pair where it is meant to be that pair.
_SAME_PAIR = 1e-7


def gaussian_squares(activation: Activation, q: float) -> tuple[float, float]:
    """``E phi(sqrt(q) Z)^2`` and ``E phi'(sqrt(q) Z)^2`` for Z ~ N(0, 1): see `gradsim.gaussian`."""
    expected = moments(activation, q)
    return expected.square, expected.slope


def next_variance(activation: Activation, q: float, gain: float, bias: float) -> float:
    """One step of the variance map, ``gain^2 E phi(sqrt(q) Z)^2 + bias^2``."""
    return gain * gain * moments(activation, q).square + bias * bias


def chi(activation: Activation, q: float, gain: float) -> float:
    """Growth factor of the squared gradient norm through one layer, ``gain^2 E phi'(sqrt(q) Z)^2``."""
    return gain * gain * moments(activation, q).slope


def fixed_point(activation: Activation, gain: float, bias: float, start: float | None = None) -> float:
    """The fixed point q* to which the variance map leads from `start`: 0 <= q* <= inf.

    The map increases with q for every activation, so that its iterates move one way, up or down, to the nearest
    fixed point there. For a homogeneous phi at the one gain that keeps every q (bias 0) there is a line of fixed
    points and the result is NaN: q stays what it was.

    Parameters
    ----------
    activation : Activation
    gain, bias : float
    start : float, optional
        q of the first layer; gain^2 + bias^2, that of an input of variance 1, by default. Only gelu and silu
        have more than one fixed point besides 0.
    """
    s2, b2 = gain * gain, bias * bias
    if activation.mean_square is not None:
        factor = s2 * activation.mean_square
        if abs(factor - 1.0) < 1e-12:
            return math.inf if b2 > 0.0 else math.nan
        return b2 / (1.0 - factor) if factor < 1.0 else math.inf
    if s2 == 0.0:
        return b2

    if b2 == 0.0 and activation.name in _CONCAVE and s2 * moments(activation, 0.0).slope <= 1.0:
        return 0.0

    def excess(q: float) -> float:
        return next_variance(activation, q, gain, bias) - q

    q = s2 + b2 if start is None else start
    q = min(max(q, _SMALLEST), _LARGEST_Q)
    upward = excess(q) > 0.0
    touching = _touching(activation, s2, b2)
    while _SMALLEST <= q <= _LARGEST_Q:
        following = q * _step(q) if upward else q / _step(q)
        low, high = min(q, following), max(q, following)
        crossed = _bisect_log(excess, low, high) if (excess(following) > 0.0) != upward else None
        if touching is not None and low <= touching <= high and not _passed(crossed, touching, upward):
            return touching
        if crossed is not None:
            return crossed
        q = following
    return math.inf if upward else 0.0


def _step(q: float) -> float:
    """Ratio of q to the next that is looked at: small where a map has two fixed points close together."""
    return 1.09 if 1e-3 < q < 1e4 else 64.0


def _passed(crossed: float | None, touching: float, upward: bool) -> bool:
    """Whether the iterates meet the crossing before the point where the map touches the diagonal."""
    return crossed is not None and (crossed < touching) == upward


def critical_gain(activation: str, bias: float | None = None, negative_slope: float = 0.01) -> tuple[float, float]:
    """The gain at which gradients neither grow nor shrink, chi(q*) = 1, at infinite width.

    Parameters
    ----------
    activation : str
        Name of the activation.
    bias : float, optional
        Standard deviation of the biases. Without it, the activation's documented critical pair: linear (1,
        0), relu (sqrt 2, 0), leaky_relu (sqrt(2/(1 + slope^2)), 0), tanh (1, 0), erf (sqrt(pi)/2, 0), sigmoid
        (10.149264, 0), and the half-stable points of gelu (1.4082110, 0.4158394) and silu (1.4099662,
        0.7450793) of Roberts, Yaida and Hanin 2022 (arXiv:2106.10165, section 5.3.4), where q keeps its size
        to first order as well.
    negative_slope : float
        Slope of ``leaky_relu``.

    Returns
    -------
    (gain, bias) : tuple of float

    Raises
    ------
    ExperimentError
        If no gain is critical at this bias, the bias is not a number from 0 to 1e30, or the slope not one from
        -1e30 to 1e30. For gelu and silu no gain is critical at a bias below the half-stable one: the fixed point
        at which chi = 1 is unstable there, and no chain stays at it.

    Examples
    --------
    >>> critical_gain("tanh")
    (1.0, 0.0)
    """
    name = cast(str, CHAIN_FIELDS["activation"].normalise(activation))
    phi = get(name, _number("negative_slope", negative_slope, -_LARGEST))
    b = 0.0 if bias is None else _number("bias", bias, 0.0)
    if phi.mean_square is not None:
        if b > 0.0:
            raise ExperimentError(
                f"{activation} has no critical gain at bias {b:g}: where chi = 1 activations grow without "
                "bound; set bias to 0, or give gain as a number"
            )
        return 1.0 / math.sqrt(phi.mean_square), 0.0
    if name in _HALF_STABLE:
        point = half_stable(name)
        lowest = math.sqrt(point.bias_squared)
        if bias is None:
            return math.sqrt(point.gain_squared), lowest
        if b < lowest * (1.0 - 1e-9):
            raise ExperimentError(
                f"{name} has no critical gain at bias {b:g}: where chi = 1 the variance of activations is unstable, "
                f"up to bias {lowest:.7f}; give a larger bias, none at all, or gain as a number"
            )
        return _critical_gain_at(name, max(b, lowest)) if b < _LARGE_BIAS else math.sqrt(2.0), b
    if b == 0.0 and float(phi.phi(np.zeros(1))[0]) == 0.0:
        return 1.0 / math.sqrt(moments(phi, 0.0).slope), 0.0
    return _critical_gain_at(name, b), b


class CriticalPoint(NamedTuple):
    """A fixed point q of the variance map with chi(q) = 1, and the gain and bias that it belongs to."""

    q: float
    gain_squared: float
    bias_squared: float


@lru_cache(maxsize=8)
def half_stable(name: str) -> CriticalPoint:
    """The critical point of gelu or silu at which the variance map touches the diagonal: chi = 1 and slope 1.

    By Gaussian integration d/dq E phi^2 = E phi'^2 + E phi phi'', so that the map has slope chi + gain^2 E phi
    phi'', and both are 1 where E phi phi'' = 0. Below it the slope at the point with chi = 1 is larger than 1.
    """
    phi = get(name)

    def crossed(q: float) -> float:
        # E phi phi'' as the derivative of E phi^2 less E phi'^2; five points, error O(step^4) = 1e-13.
        step = 1e-3 * q
        near, far = ((moments(phi, q + k * step).square - moments(phi, q - k * step).square) for k in (1.0, 2.0))
        return (8.0 * near - far) / (12.0 * step) - moments(phi, q).slope

    return _critical_point(phi, _bisect_log(crossed, *_HALF_STABLE[name]))


def _critical_point(phi: Activation, q: float) -> CriticalPoint:
    """chi(q) = 1 by gain^2 = 1/E phi'^2, and q = gain^2 E phi^2 + bias^2."""
    expected = moments(phi, q)
    return CriticalPoint(q, 1.0 / expected.slope, q - expected.square / expected.slope)


def _touching(activation: Activation, s2: float, b2: float) -> float | None:
    """The half-stable fixed point of this gain and bias: the map touches the diagonal there, and no change of
    sign shows it.
    """
    if activation.name not in _HALF_STABLE:
        return None
    point = half_stable(activation.name)
    same = abs(s2 - point.gain_squared) < _SAME_PAIR and abs(b2 - point.bias_squared) < _SAME_PAIR
    return point.q if same else None


def _number(name: str, value: object, smallest: float) -> float:
    """`value` as a float between `smallest` and the stated limit."""
    if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
        number = float(value)
        if smallest <= number <= _LARGEST:
            return number
    raise ExperimentError(f"{name} must be a number from {smallest:g} to {_LARGEST:g}, not {value!r}")


@lru_cache(maxsize=256)
def _critical_gain_at(activation: str, bias: float) -> float:
    """Follow the critical line by q*: bias^2 = q* - E phi^2/E phi'^2 grows with q* wherever it is not negative."""
    phi = get(activation)
    # sigmoid has no critical point with a real bias below q* = 45.6, gelu and silu no stable one below the half-stable.
    lowest = {"sigmoid": 16.0}.get(activation, max(bias * bias, 1e-300) / 2.0)
    if activation in _HALF_STABLE:
        lowest = half_stable(activation).q * (1.0 - 1e-9)

    def excess(q: float) -> float:
        return bias * bias - _critical_point(phi, q).bias_squared

    upper = max(1.0, bias * bias, 2.0 * lowest)
    while excess(upper) > 0.0:
        upper *= 2.0
        if not math.isfinite(upper):
            raise ExperimentError(f"{phi.name} has no critical gain at bias {bias:g}; give gain as a number")
    q = _bisect_log(excess, lowest, upper)
    return math.sqrt(_critical_point(phi, q).gain_squared)


def _bisect_log(f: Callable[[float], float], low: float, high: float) -> float:
    """The point where f changes sign from positive to negative, bisected in log q: q* can be as small as
    bias^(2/3).
    """
    a, b = math.log(low), math.log(high)
    for _ in range(_BISECTIONS):
        middle = (a + b) / 2.0
        if middle in (a, b):
            break
        if f(math.exp(middle)) > 0.0:
            a = middle
        else:
            b = middle
    return math.exp((a + b) / 2.0)
