"""Clipping of g_l by its norm inside the chain, for chains whose increments are independent.

Clipping changes the length of g_l alone, and the increments do not depend on it. So the distance D = ln c^2 -
ln||g_l||^2 below the threshold c is a random walk reflected at 0, D' = max(0, D - X) (Lindley 1952): it has an atom at
0, where g_l was clipped, and a density beyond, which a layer convolves with that of -X.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import fft

from gradsim.theory.inversion import Sum
from gradsim.theory.law import EXACT, Law, Layers
from gradsim.theory.special import ORDERS, ComplexArray, FloatArray, cumulants_from_moments

# ln of the probability that the walk may leave the grid.
_LOG_TAIL = 34.0
# Grid points per half period of the highest frequency of an increment, about seven to its standard deviation: halving
# the step changes nothing above 1e-8.
_RESOLUTION = 2.5
# Layers times grid points above which a law takes seconds.
_LARGEST = 5e6
# Of the largest density: less is rounding.
_ROUNDING = 1e-14
# Sizes between which transforms grow with the walk.
_PARTS = 8
# Variances below this are those of rounding.
_LEAST_VARIANCE = 1e-10
# E e^{-D} below this is not told from the rounding of a density that is larger elsewhere.
_LEAST_MOMENT = 1e-8
# Gregory's coefficients: what the trapezoidal rule needs at an end, in differences of order 0, 1, ...
_GREGORY = (-1 / 2, 1 / 12, -1 / 24, 19 / 720, -3 / 160, 863 / 60480, -275 / 24192, 33953 / 3628800)


@dataclass(frozen=True, kw_only=True, repr=False)
class ClippedLaw(Law):
    """A law with an atom at ln c.

    Attributes
    ----------
    moments : array, shape (6, L+1)
        First cumulants of ln||g_l|| given survival.
    walk : Walk or None
        None where nothing is random.
    bottom : Distances or None
        The law of the distance below the threshold at layer 0, which is asked for the most.
    """

    moments: FloatArray
    log_clip: float
    walk: Walk | None
    bottom: Distances | None

    @property
    def cumulants(self) -> FloatArray:
        """First six cumulants of ln||g_l|| given survival, shape (6, L+1)."""
        return self.moments

    def atom(self, layer: int = 0) -> float:
        """P(||g_layer|| = c) given survival."""
        return 1.0 if self.walk is None else self._at(self.walk, layer).atom

    def _at(self, walk: Walk, layer: int) -> Distances:
        return self.bottom if layer == 0 and self.bottom is not None else walk.at(layer)

    def mean_cdf(self, x: npt.ArrayLike, chains: int, layer: int = 0) -> FloatArray | None:
        """P(ln||g_layer|| <= x) given survival; None for a mean over several chains."""
        points = np.asarray(x, dtype=np.float64)
        if self.walk is None:
            return np.where(np.isnan(points), np.nan, np.where(points >= self.mean[layer], 1.0, 0.0))
        return self._at(self.walk, layer).beyond(2.0 * (self.log_clip - points)) if chains == 1 else None


def clipped(clip: float, base: Law) -> ClippedLaw | None:
    """The law of a chain with clipping to norm `clip`, given that without: exact, to 1e-8 by the grid.

    None where the increments are not known, have no smooth density, or need too large a grid, and where all but
    rounding errors of ||g_0|| are at the threshold.
    """
    if base.layers is None:
        return None
    log_clip = math.log(clip)
    distance = max(0.0, 2.0 * (log_clip - base.start))
    if not any(kind.parts for kind in base.layers.kinds):
        return _fixed(base, log_clip, distance)
    walk = Walk.of(base.layers, distance)
    if walk is None:
        return None
    cumulants, log_second, bottom = walk.summary()
    cumulants *= (-0.5) ** np.arange(1, ORDERS + 1)[:, None]
    cumulants[0] += log_clip
    if cumulants[1, 0] < _LEAST_VARIANCE:
        return None
    return _law(base, log_clip, cumulants, 2.0 * log_clip + log_second, walk, bottom)


def _fixed(base: Law, log_clip: float, distance: float) -> ClippedLaw:
    """Increments without spread."""
    assert base.layers is not None
    steps = base.layers.by_layer(np.array([kind.constant for kind in base.layers.kinds]))
    distances = [distance]
    for step in steps[::-1].tolist():
        distances.append(max(0.0, distances[-1] - step))
    cumulants = np.zeros((ORDERS, len(distances)))
    cumulants[0] = log_clip - np.array(distances[::-1]) / 2.0
    return _law(base, log_clip, cumulants, 2.0 * cumulants[0])


def _law(
    base: Law,
    log_clip: float,
    cumulants: FloatArray,
    log_second: FloatArray,
    walk: Walk | None = None,
    bottom: Distances | None = None,
) -> ClippedLaw:
    return ClippedLaw(
        name="clipped",
        validity=EXACT,
        source=f"random walk reflected at ln clip (Lindley 1952); {base.source}",
        mean=cumulants[0],
        var=cumulants[1],
        log_second_moment=log_second + np.log1p(-base.p_dead),
        p_dead=base.p_dead,
        rate=base.rate if math.isnan(base.rate) else min(base.rate, 0.0),
        start=min(base.start, log_clip),
        moments=cumulants,
        log_clip=log_clip,
        walk=walk,
        bottom=bottom,
    )


@dataclass(frozen=True)
class Distances:
    """The law of D at one layer: an atom at 0 and a density on the grid; or one value, D = `fixed`."""

    grid: FloatArray
    atom: float
    density: FloatArray
    fixed: float = 0.0

    def beyond(self, d: FloatArray) -> FloatArray:
        """P(D >= d), NaN at NaN."""
        if self.fixed > 0.0 or not self.density.any():
            return np.where(np.isnan(d), np.nan, np.where(d <= self.fixed, 1.0, 0.0))
        from scipy import interpolate  # here: few runs need it, and it loads slowly

        spline = interpolate.make_interp_spline(self.grid, self.density, k=7).antiderivative()
        inside = np.clip(np.nan_to_num(d, nan=0.0), 0.0, self.grid[-1])
        tail = np.clip(spline(self.grid[-1]) - spline(inside), 0.0, 1.0)
        return np.where(np.isnan(d), np.nan, np.where(d <= 0.0, 1.0, np.where(d >= self.grid[-1], 0.0, tail)))


@dataclass(frozen=True)
class Walk:
    """The reflected walk on a grid.

    Attributes
    ----------
    index : array of int, shape (L,)
        Kind of each layer's increment, from layer 1.
    increments : list of (array, array)
        Densities of -X of each kind at the grid points, and of X at the first of them.
    first : array
        The former of layer L at the grid points less `distance`.
    grid, weights : array, shape (N,)
        Points, and weights of the integral over them.
    distance : float
        D at layer L.
    reach : int
        Grid points beyond which the density of an increment is rounding, either way.
    """

    index: npt.NDArray[np.intp]
    increments: list[tuple[FloatArray, FloatArray]]
    first: FloatArray
    grid: FloatArray
    weights: FloatArray
    distance: float
    reach: int

    @classmethod
    def of(cls, layers: Layers, distance: float) -> Walk | None:
        """The walk of these increments; None where they have no smooth density or the grid is too large."""
        sums = [Sum(Counter(kind.parts), kind.constant) for kind in layers.kinds]
        highest = [total.highest_frequency() if total.counts else None for total in sums]
        if None in highest:
            return None
        step = math.pi / (_RESOLUTION * max(value for value in highest if value is not None))
        size = int(_farthest(sums, layers, distance) / step) + 16
        if size * len(layers.index) > _LARGEST:
            return None
        grid = np.asarray(step * np.arange(size), dtype=np.float64)
        weights = np.full(size, step)
        for order, coefficient in enumerate(_GREGORY):
            for k in range(order + 1):
                weights[k] += step * coefficient * math.comb(order, k) * (-1.0) ** (order - k)
        densities = [np.split(total.density(np.concatenate([-grid, grid, distance - grid])), 3) for total in sums]
        reach = max(_reach(side) for forward, backward, _ in densities for side in (forward, backward))
        increments = [(forward, backward[:reach]) for forward, backward, _ in densities]
        return cls(layers.index, increments, densities[layers.index[-1]][2], grid, weights, distance, reach)

    def steps(self) -> Iterator[Distances]:
        """The law of D at layers L, L - 1, ..., 0; one object as soon as it no longer changes."""
        yield Distances(self.grid, float(self.distance == 0.0), np.zeros_like(self.grid), self.distance)
        now = self._reflected(self.first)
        yield now
        settled = False
        kernels: dict[tuple[int, int], ComplexArray] = {}
        for kind in self.index[-2::-1].tolist():
            if not (settled and len(self.increments) == 1):
                last = now
                size = self._size(last.density)
                length = fft.next_fast_len(size + self.reach, real=True)
                if (kind, length) not in kernels:
                    kernels[kind, length] = self._kernel(kind, length)
                occupied = last.density[:size]
                spectrum = np.fft.rfft(self.weights[: occupied.size] * occupied, length)
                spectrum *= kernels[kind, length]
                moved = np.fft.irfft(spectrum, length)[:size]
                moved += last.atom * self.increments[kind][0][:size]
                now = self._reflected(moved)
                same = now.density.size == last.density.size
                settled = same and bool(np.abs(now.density - last.density).max() < 1e-14 * now.density.max())
            yield now

    def _size(self, density: FloatArray) -> int:
        """Points of the grid that D may reach in the next step: one of few numbers, to have few transforms."""
        part = -(-self.grid.size // _PARTS)
        return min(self.grid.size, -(-(_reach(density) + self.reach) // part) * part)

    def _kernel(self, kind: int, length: int) -> ComplexArray:
        """Transform of an increment's density. What it shifts around the end lands in zeros, of which there are as many
        as it reaches.
        """
        forward, backward = self.increments[kind]
        padded = np.zeros(length)
        padded[: self.reach] = forward[: self.reach]
        padded[length - self.reach + 1 :] = backward[:0:-1]
        return np.asarray(np.fft.rfft(padded))

    def _reflected(self, density: FloatArray) -> Distances:
        """With all mass beyond 0 at 0."""
        beyond = float(self.weights[: density.size] @ density)
        return Distances(self.grid[: density.size], max(0.0, 1.0 - beyond), density)

    def at(self, layer: int) -> Distances:
        """The law of D at a layer."""
        return next(itertools.islice(self.steps(), len(self.index) - layer, None))

    def summary(self) -> tuple[FloatArray, FloatArray, Distances]:
        """Cumulants of D, shape (6, L+1), ln E e^{-D}, shape (L+1,), from layer 0, NaN where that is too small, and the
        law of D at layer 0.
        """
        means, moments, log_second = [], [], []
        weighted = self.weights * np.exp(-self.grid)
        last: Distances | None = None
        for law in self.steps():
            if law is not last:
                mean, central, second = self._moments(law, weighted)
                last = law
            means.append(mean)
            moments.append(central)
            log_second.append(math.log(second) if second > _LEAST_MOMENT else math.nan)
        cumulants = cumulants_from_moments(np.array(moments[::-1]).T)
        cumulants[0] += means[::-1]
        assert last is not None
        return cumulants, np.array(log_second[::-1]), last

    def _moments(self, law: Distances, weighted: FloatArray) -> tuple[float, FloatArray, float]:
        """E D, the moments of D about it, shape (6,), and E e^{-D}."""
        if law.fixed > 0.0 or not law.density.any():
            return law.fixed, np.zeros(ORDERS), math.exp(-law.fixed)
        mass = self.weights[: law.density.size] * law.density
        mean = float(mass @ law.grid)
        centred = law.grid - mean
        square = centred * centred
        fourth = square * square
        odd, even = mass * centred, mass * square
        powers = [odd.sum(), even.sum(), odd @ square, even @ square, odd @ fourth, even @ fourth]
        central = np.array(powers) + law.atom * (-mean) ** np.arange(1, ORDERS + 1)
        return mean, central, float(weighted[: law.density.size] @ law.density) + law.atom


def _reach(density: FloatArray) -> int:
    """Points of the grid beyond which a density is nothing but rounding."""
    return min(density.size, int(np.flatnonzero(density > _ROUNDING * density.max()).max(initial=0)) + 2)


def _farthest(sums: list[Sum], layers: Layers, distance: float) -> float:
    """A distance that D exceeds with negligible probability at any layer.

    D at a layer is at most `distance` plus the largest of -X summed over some layers above, for each of which
    Chernoff's bound holds with the same s: all factors E e^{-sX} above 1 are taken.
    """
    times = np.bincount(layers.index, minlength=len(sums))
    pole = min(total.pole() for total in sums)
    spread = math.sqrt(max(float(total.cumulants()[1]) for total in sums))
    s = np.minimum(np.geomspace(1e-3, 100.0, 240) / spread, 0.95 * pole)
    growth = np.zeros_like(s)
    for total, count in zip(sums, times.tolist(), strict=True):
        moment = total.log_moment(-s.astype(np.complex128)).real - s * total.constant
        growth += count * np.maximum(moment, 0.0)
    return distance + float(np.min((_LOG_TAIL + math.log(len(layers.index)) + growth) / s))
