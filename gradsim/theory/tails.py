"""Tail probabilities to a small relative error, by integrating past the saddle point.

P(X <= y) = (1/2 pi i) int E e^{sX} e^{-sy}/(-s) ds along any path from -i oo to i oo on which s is left of 0 (and the
moment finite), P(X > y) the same with s in the place of -s and a path to the right of 0. Near the saddle point of E
e^{sX} e^{-sy} on the real axis the integrand is of the size of the result, and no digits cancel (Daniels 1954, Ann.
Math. Statist. 25, 631). A saddle point that is missed costs only digits, so that a few paths serve all y.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from gradsim.theory.special import ComplexArray, FloatArray

LogMoment = Callable[[ComplexArray], ComplexArray]

SMALL = 1e-6
"""Probabilities below this are worth a path of their own."""

_DIGITS = 30.0
_NEGLIGIBLE = 1e-14
_BLOCK = 32
_MAX_TERMS = 2048
_NODES = 64
# Distance of a contour from the pole at 0, in units of -1/y, at which that pole adds no more than e^-30.
_ROOM = 4.0
_SLOPES = 10
# How far up to a singularity of the moment a path may cross: nearer ones need more terms, further ones lose digits.
_INSIDE = 0.7


def slopes(limit: float, variance: float) -> FloatArray:
    """Positive real s to cross the axis at, from the body of a law to its far tail, well inside a limit."""
    return np.minimum(np.geomspace(0.5, 50.0, _SLOPES) / math.sqrt(variance), _INSIDE * limit)


def along_lines(log_moment: LogMoment, y: FloatArray, slopes: FloatArray, width: float) -> FloatArray:
    """Lower tails P(X <= y) where the slopes are negative, upper tails P(X > y) where they are positive.

    The trapezoidal rule with step h on the line through s adds e^{-|s| 2 pi/h} and, over that, the probability of lying
    2 pi/h further out. NaN where the moment decays too slowly.

    Parameters
    ----------
    log_moment : callable
        ln E e^{sX}, shape of s.
    y : array, shape (N,)
    slopes : array, shape (K,)
        Real s to choose from, all of one sign.
    width : float
        Range outside which X has negligible probability.
    """
    log_bound = log_moment(slopes.astype(np.complex128)).real
    exponents = log_bound[:, None] - slopes[:, None] * y
    chosen = np.argmin(exponents, axis=0)
    result = np.empty_like(y)
    for k in np.unique(chosen).tolist():
        at = chosen == k
        deepest = float(-exponents[k, at].min())
        room = (deepest + _DIGITS) / abs(slopes[k]), _DIGITS / abs(slopes[k]) * _INSIDE / (1.0 - _INSIDE)
        step = 2.0 * math.pi / max(width, *room)
        terms = _terms(log_moment, float(slopes[k]), step, float(log_bound[k]), float(np.mean(y[at])))
        if terms is None:
            result[at] = math.nan
            continue
        offset = y[at] - np.mean(y[at])
        total = _horner(terms, step * offset).real - 0.5 * terms[0].real
        result[at] = step / math.pi * total * np.exp(exponents[k, at])
    return result


def _terms(log_moment: LogMoment, slope: float, step: float, log_bound: float, centre: float) -> ComplexArray | None:
    """E e^{sX} e^{-i t centre}/|s|-signed s, over its bound, at s = slope + i t, t = 0, step, ..., until negligible."""
    blocks = []
    for first in range(0, _MAX_TERMS, _BLOCK):
        t = step * np.arange(first, first + _BLOCK)
        s = np.asarray(slope + 1j * t, dtype=np.complex128)
        blocks.append(np.exp(log_moment(s) - log_bound - 1j * t * centre) / (s if slope > 0.0 else -s))
        if np.abs(blocks[-1]).max() < _NEGLIGIBLE / abs(slope):
            return np.concatenate(blocks)
    return None


def _horner(terms: ComplexArray, angle: FloatArray) -> ComplexArray:
    """sum_k terms[k] exp(-i k angle)."""
    z = np.asarray(np.exp(-1j * angle), dtype=np.complex128)
    total = np.zeros_like(z)
    for term in terms[::-1]:
        total = total * z + term
    return np.asarray(total, dtype=np.complex128)


def along_contour(log_moment: LogMoment, y: FloatArray, slopes: FloatArray) -> FloatArray:
    """Lower tails P(X <= y) of X <= 0 whose moment is singular on the negative real axis alone: a cotangent contour
    around the singularities that crosses the real axis at a negative slope.

    Its scale is -1/y, and twice as many nodes as usual leave room for it between the singularities and 0; NaN where
    there is not enough.

    Parameters
    ----------
    log_moment : callable
    y : array, shape (N,)
        Negative.
    slopes : array, shape (K,)
        Real s to choose from, negative and right of all singularities.
    """
    exponents = log_moment(slopes.astype(np.complex128)).real[:, None] - slopes[:, None] * y
    crossing = slopes[np.argmin(exponents, axis=0)]
    z, dz = cotangent_contour(_NODES)
    start = _NODES * (0.5017 / 0.6407 - 0.6122)
    total = np.zeros_like(y)
    for node, slope in zip(z, dz, strict=True):
        s = crossing + (node - start) / (-2.0 * y)
        total += (np.exp(log_moment(s) - s * y) * slope / (s * y)).imag / _NODES
    return np.where(crossing * y < _ROOM, math.nan, total)


def cotangent_contour(nodes: int) -> tuple[ComplexArray, ComplexArray]:
    """Upper half of a contour around the negative real axis, and its derivative (Trefethen, Weideman and Schmelzer
    2006, BIT 46, 653); the lower half is its mirror image.
    """
    theta = math.pi * (np.arange(1, nodes, 2) / nodes)
    cot = 1.0 / np.tan(0.6407 * theta)
    z = nodes * (0.5017 * theta * cot - 0.6122 + 0.2645j * theta)
    dz = nodes * (0.5017 * cot - 0.5017 * 0.6407 * theta / np.sin(0.6407 * theta) ** 2 + 0.2645j)
    return z, dz
