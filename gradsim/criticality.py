"""Mean field at infinite width: Gaussian expectations, the variance map, its fixed point and the critical
gain.

The pre-activations of layer l are N(0, q_l) with ``q_{l+1} = gain^2 E phi(sqrt(q_l) Z)^2 + bias^2``, and the
squared gradient norm grows by ``chi_l = gain^2 E phi'(sqrt(q_l) Z)^2`` through layer l (Poole et al. 2016,
arXiv:1606.05340; Schoenholz et al. 2017, arXiv:1611.01232).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import cast

import numpy as np
import numpy.typing as npt

from gradsim.activations import Activation, get
from gradsim.errors import ExperimentError
from gradsim.vocabulary import CHAIN_FIELDS

Float64Array = npt.NDArray[np.float64]

# The Gaussian weight beyond 40 standard deviations is exp(-800) < 1e-347: nothing is left out in float64.
_RANGE = 40.0
_NODES = 16
_TOLERANCE = 1e-13
_MAX_REFINEMENTS = 6
#: Those whose variance map is understood: homogeneous, or bounded with phi(0) = 0 and a concave map.
_SUPPORTED = ("linear", "relu", "leaky_relu", "tanh", "erf")
_BISECTIONS = 200
# Largest bias and slope; far beyond it the square of a pre-activation leaves float64.
_LARGEST = 1e30


def gaussian_squares(activation: Activation, q: float) -> tuple[float, float]:
    """``E phi(sqrt(q) Z)^2`` and ``E phi'(sqrt(q) Z)^2`` for Z ~ N(0, 1).

    Composite Gauss-Legendre quadrature over ranges that double away from 0 and begin at the scale of phi, so
    that neither the kink of a rectifier at 0 nor the narrow peak of a saturating phi' at large q is missed
    (Gauss-Hermite misses it). The ranges are halved until two passes agree to 1e-13, relative.

    Parameters
    ----------
    activation : Activation
    q : float
        Variance of the pre-activation, >= 0.
    """
    if activation.mean_square is not None:
        return activation.mean_square * q, activation.mean_square
    if q == 0.0:
        zero = np.zeros(1)
        return float(activation.phi(zero)[0] ** 2), float(activation.dphi(zero)[0] ** 2)
    edges = _split_range(math.sqrt(q))
    previous = _integrate(activation, q, edges)
    for _ in range(_MAX_REFINEMENTS):
        edges = np.sort(np.concatenate([edges, (edges[1:] + edges[:-1]) / 2.0]))
        current = _integrate(activation, q, edges)
        if all(abs(c - p) <= _TOLERANCE * abs(c) for c, p in zip(current, previous, strict=True)):
            break
        previous = current
    return current


def next_variance(activation: Activation, q: float, gain: float, bias: float) -> float:
    """One step of the variance map, ``gain^2 E phi(sqrt(q) Z)^2 + bias^2``."""
    return gain * gain * gaussian_squares(activation, q)[0] + bias * bias


def chi(activation: Activation, q: float, gain: float) -> float:
    """Growth factor of the squared gradient norm through one layer, ``gain^2 E phi'(sqrt(q) Z)^2``."""
    return gain * gain * gaussian_squares(activation, q)[1]


def fixed_point(activation: Activation, gain: float, bias: float) -> float:
    """The stable fixed point q* of the variance map: 0 <= q* <= inf.

    For a homogeneous phi at the one gain that keeps every q (bias 0) there is a line of fixed points and the
    result is NaN: q stays what it was.
    """
    s2, b2 = gain * gain, bias * bias
    if activation.mean_square is not None:
        factor = s2 * activation.mean_square
        if abs(factor - 1.0) < 1e-12:
            return math.inf if b2 > 0.0 else math.nan
        return b2 / (1.0 - factor) if factor < 1.0 else math.inf
    slope_at_zero = s2 * gaussian_squares(activation, 0.0)[1]
    if b2 == 0.0 and slope_at_zero <= 1.0:
        return 0.0
    # phi is bounded by 1 and the map is concave: above q* the map falls below the diagonal, below q* it lies
    # above.
    return _bisect_log(lambda q: next_variance(activation, q, gain, bias) - q, 1e-300, s2 + b2 + 1e-300)


def critical_gain(activation: str, bias: float | None = None, negative_slope: float = 0.01) -> tuple[float, float]:
    """The gain at which gradients neither grow nor shrink, chi(q*) = 1, at infinite width.

    Parameters
    ----------
    activation : str
        Name of the activation.
    bias : float, optional
        Standard deviation of the biases. Without it, the activation's documented critical pair: linear (1,
        0), relu (sqrt 2, 0), leaky_relu (sqrt(2/(1 + slope^2)), 0), tanh (1, 0), erf (sqrt(pi)/2, 0).
    negative_slope : float
        Slope of ``leaky_relu``.

    Returns
    -------
    (gain, bias) : tuple of float

    Raises
    ------
    ExperimentError
        If the activation is not supported, no gain is critical at this bias, the bias is not a number from 0 to
        1e30, or the slope not one from -1e30 to 1e30.

    Examples
    --------
    >>> critical_gain("tanh")
    (1.0, 0.0)
    """
    name = cast(str, CHAIN_FIELDS["activation"].normalise(activation))
    if name not in _SUPPORTED:
        text = f"the critical gain of {name} is not supported yet; it is for {', '.join(_SUPPORTED)}"
        raise ExperimentError(f"{text}: give gain as a number")
    phi = get(name, _number("negative_slope", negative_slope, -_LARGEST))
    b = 0.0 if bias is None else _number("bias", bias, 0.0)
    if phi.mean_square is not None:
        if b > 0.0:
            raise ExperimentError(
                f"{activation} has no critical gain at bias {b:g}: where chi = 1 activations grow without "
                "bound; set bias to 0, or give gain as a number"
            )
        return 1.0 / math.sqrt(phi.mean_square), 0.0
    if b == 0.0:
        return 1.0 / math.sqrt(gaussian_squares(phi, 0.0)[1]), 0.0
    return _critical_gain_at(name, negative_slope, b), b


def _number(name: str, value: object, smallest: float) -> float:
    """`value` as a float between `smallest` and the stated limit."""
    if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
        number = float(value)
        if smallest <= number <= _LARGEST:
            return number
    raise ExperimentError(f"{name} must be a number from {smallest:g} to {_LARGEST:g}, not {value!r}")


@lru_cache(maxsize=256)
def _critical_gain_at(activation: str, negative_slope: float, bias: float) -> float:
    """Follow the critical line by q*: gain^2 = 1/E phi'^2, bias^2 = q* - gain^2 E phi^2 grows with q*."""
    phi = get(activation, negative_slope)

    def excess(q: float) -> float:
        square, slope = gaussian_squares(phi, q)
        return bias * bias - (q - square / slope)

    upper = max(1.0, bias * bias)
    while excess(upper) > 0.0:
        upper *= 2.0
        if not math.isfinite(upper):
            raise ExperimentError(f"{phi.name} has no critical gain at bias {bias:g}; give gain as a number")
    q = _bisect_log(excess, max(bias * bias, 1e-300) / 2.0, upper)
    return 1.0 / math.sqrt(gaussian_squares(phi, q)[1])


def _bisect_log(f: Callable[[float], float], low: float, high: float) -> float:
    """The point where f, positive at `low` and not at `high`, changes sign, bisected in log q: q* can be as
    small as bias^(2/3).
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


def _split_range(scale: float) -> Float64Array:
    """Edges 0, s, 2 s, 4 s, ... with s the z at which sqrt(q) z = 1/2 (at most 1/2); no range is wider than
    1.
    """
    edges = [0.0, 0.5 / max(scale, 1.0)]
    while edges[-1] < _RANGE:
        edges.append(edges[-1] + min(edges[-1], 1.0))
    return np.array(edges)


def _integrate(activation: Activation, q: float, edges: Float64Array) -> tuple[float, float]:
    nodes, weights = _legendre()
    half = np.diff(edges) / 2.0
    z = ((edges[1:] + edges[:-1]) / 2.0)[:, None] + half[:, None] * nodes
    density = (half[:, None] * weights) * np.exp(-z * z / 2.0) / math.sqrt(2.0 * math.pi)
    x = math.sqrt(q) * np.concatenate([z, -z])
    density = np.concatenate([density, density])
    return float(np.sum(density * activation.phi(x) ** 2)), float(np.sum(density * activation.dphi(x) ** 2))


@lru_cache(maxsize=1)
def _legendre() -> tuple[Float64Array, Float64Array]:
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    return nodes, weights
