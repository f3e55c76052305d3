"""Random walks reflected at 0, on a grid, with their tails.

The distance D = ln c^2 - ln||g_l||^2 below a threshold c follows D' = max(0, D - X) (Lindley 1952): it has an atom at
0, where g_l was clipped, and a density beyond, which a layer convolves with that of -X.

Rounding leaves 1e-13 of such a density everywhere, which hides its tail. A tail is found from the density times
e^{sD}: that of the same walk with increments of density e^{-sx} f(x), whose body lies where the tail is (Esscher 1932).
No convolution is changed by that, nor what lies at D = 0.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import fft

from gradsim.theory.inversion import Sum
from gradsim.theory.law import Layers
from gradsim.theory.special import ORDERS, ComplexArray, FloatArray, cumulants_from_moments

# ln of the probability that the walk may leave the grid: little beside tails of 1e-12.
_LOG_TAIL = 38.0
# ln of the probability of the tails that are looked at most closely, between 1e-6 and 1e-12.
_LOG_SMALL = 21.0
# How far up to the pole of an increment's moment it is tilted: further, and what is left of its tail is too long.
_INSIDE, _LESS = 0.5, 0.7
# Probability beyond the body of a tilted walk.
_SMALLEST = 1e-12
# Grid points per half period of the highest frequency of an increment, about seven to its standard deviation: halving
# the step changes nothing above 1e-8.
_RESOLUTION = 2.5
# Layers times grid points above which a law takes seconds.
_LARGEST = 5.5e6
# Of the largest density: less is rounding.
_ROUNDING = 1e-14
# Sizes between which transforms grow with the walk.
_PARTS = 8
# Points before the first one asked for at which a spline begins, so that its end tells nothing there.
_MARGIN = 24
# E e^{-D} below this is not told from the rounding of a density that is larger elsewhere.
_LEAST_MOMENT = 1e-8
# Gregory's coefficients: what the trapezoidal rule needs at an end, in differences of order 0, 1, ...
_GREGORY = (-1 / 2, 1 / 12, -1 / 24, 19 / 720, -3 / 160, 863 / 60480, -275 / 24192, 33953 / 3628800)


@dataclass(frozen=True)
class Distances:
    """The law of D at one layer: an atom at 0 and a density on the grid; or one value, D = `fixed`.

    The density is e^{log_scale - slope d} times `density` at d.
    """

    grid: FloatArray
    atom: float
    density: FloatArray
    fixed: float = 0.0
    slope: float = 0.0
    log_scale: float = 0.0

    def beyond(self, d: FloatArray) -> FloatArray:
        """P(D >= d), NaN at NaN."""
        if self.fixed > 0.0 or not self.density.any():
            return np.where(np.isnan(d), np.nan, np.where(d <= self.fixed, 1.0, 0.0))
        from scipy import interpolate  # here: few runs need it, and it loads slowly

        inside = np.clip(np.nan_to_num(d, nan=0.0), 0.0, self.grid[-1])
        # Nothing nearer than asked for, where the scale may be out of range; and from the end, for a small integral is
        # no difference of two large ones.
        first = max(0, min(int(np.searchsorted(self.grid, inside.min(initial=math.inf))), self.grid.size) - _MARGIN)
        backward = self.grid[first:][::-1]
        values = self.density[first:][::-1] * np.exp(self.log_scale - self.slope * backward)
        integral = interpolate.make_interp_spline(-backward, values, k=7).antiderivative()
        tail = np.clip(integral(-inside) - integral(-self.grid[-1]), 0.0, 1.0)
        return np.where(np.isnan(d), np.nan, np.where(d <= 0.0, 1.0, np.where(d >= self.grid[-1], 0.0, tail)))


@dataclass(frozen=True)
class Summary:
    """What is kept of a walk.

    Attributes
    ----------
    cumulants : array, shape (6, L+1)
        Of D, from layer 0.
    log_second : array, shape (L+1,)
        ln E e^{-D}, NaN where that is too small.
    atoms : array, shape (L+1,)
        P(D = 0).
    bottom : Distances
        The law of D at layer 0, which is asked for the most.
    """

    cumulants: FloatArray
    log_second: FloatArray
    atoms: FloatArray
    bottom: Distances


@dataclass(frozen=True)
class Walk:
    """The reflected walk on a grid, its densities times e^{slope d} and scaled.

    Attributes
    ----------
    index : array of int, shape (L,)
        Kind of each layer's increment, from layer 1.
    sums : list of Sum
        The increments X of each kind.
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
    slope : float
        0, or where D is tilted.
    log_moments : array
        ln E e^{-slope X} of each kind: what its tilted density is to be multiplied by.
    atoms : array, shape (L+1,), or None
        P(D = 0) from layer 0, where known; else it is what the density leaves.
    """

    index: npt.NDArray[np.intp]
    sums: list[Sum]
    increments: list[tuple[FloatArray, FloatArray]]
    first: FloatArray
    grid: FloatArray
    weights: FloatArray
    distance: float
    reach: int
    slope: float
    log_moments: FloatArray
    atoms: FloatArray | None = None

    @classmethod
    def of(cls, layers: Layers, distance: float) -> Walk | None:
        """The walk of these increments; None where they have no smooth density or the grid is too large."""
        sums = [Sum(Counter(kind.parts), kind.constant) for kind in layers.kinds]
        highest = [total.highest_frequency() if total.counts else None for total in sums]
        if None in highest:
            return None
        step = math.pi / (_RESOLUTION * max(value for value in highest if value is not None))
        size = int((distance + _chernoff(sums, layers.index, _LOG_TAIL)[1]) / step) + 16
        if size * len(layers.index) > _LARGEST:
            return None
        grid = np.asarray(step * np.arange(size), dtype=np.float64)
        weights = np.full(size, step)
        for order, coefficient in enumerate(_GREGORY):
            for k in range(order + 1):
                weights[k] += step * coefficient * math.comb(order, k) * (-1.0) ** (order - k)
        densities = _densities(sums, grid, distance, layers.index[-1])
        return cls(layers.index, sums, *densities[:2], grid, weights, distance, densities[2], 0.0, np.zeros(len(sums)))

    def tail(self, layer: int, atoms: FloatArray) -> Distances:
        """The law of D at a layer with its small tails, given all atoms."""
        slope = min(_chernoff(self.sums, self.index, _LOG_SMALL)[0], _INSIDE * min(s.pole() for s in self.sums))
        while True:
            law = self._tilted(atoms, slope).at(layer)
            body = law.grid[np.argmax(law.density), None]
            # A slope meant for all layers may be too large for some, and the body then lies beyond the tail.
            if law.beyond(body)[0] > _SMALLEST:
                return law
            slope *= _LESS

    def _tilted(self, atoms: FloatArray, slope: float) -> Walk:
        """The walk times e^{slope d}, whose body lies where small tails of this one are."""
        tilted = [s.tilted(-slope) for s in self.sums]
        while any(s.highest_frequency() is None for s in tilted):
            # Too long a tail is left of one.
            slope *= _LESS
            tilted = [s.tilted(-slope) for s in self.sums]
        at = np.array([-slope], dtype=np.complex128)
        log_moments = np.array([float(s.log_moment(at)[0].real) - slope * s.constant for s in self.sums])
        increments, first, reach = _densities(tilted, self.grid, self.distance, self.index[-1])
        return replace(
            self, increments=increments, first=first, reach=reach, slope=slope, log_moments=log_moments, atoms=atoms
        )

    def steps(self) -> Iterator[Distances]:
        """The law of D at layers L, L - 1, ..., 0; one object as soon as it no longer changes."""
        yield Distances(self.grid, float(self.distance == 0.0), np.zeros_like(self.grid), self.distance)
        last = self.index.size - 1
        now = self._reflected(self.first, self.log_moments[self.index[last]] + self.slope * self.distance, last)
        yield now
        settled = False
        kernels: dict[tuple[int, int], ComplexArray] = {}
        for layer in range(last - 1, -1, -1):
            kind = int(self.index[layer])
            if not (settled and len(self.increments) == 1):
                before = now
                size = self._size(before.density)
                length = fft.next_fast_len(size + self.reach, real=True)
                if (kind, length) not in kernels:
                    kernels[kind, length] = self._kernel(kind, length)
                occupied = before.density[:size]
                spectrum = np.fft.rfft(self.weights[: occupied.size] * occupied, length)
                spectrum *= kernels[kind, length]
                moved = np.fft.irfft(spectrum, length)[:size]
                moved += before.atom * math.exp(-before.log_scale) * self.increments[kind][0][:size]
                now = self._reflected(moved, before.log_scale + self.log_moments[kind], layer)
                same = now.density.size == before.density.size
                settled = same and bool(np.abs(now.density - before.density).max() < 1e-14 * now.density.max())
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

    def _reflected(self, density: FloatArray, log_scale: float, layer: int) -> Distances:
        """With all mass beyond 0 at 0."""
        grid = self.grid[: density.size]
        if self.atoms is None:
            return Distances(grid, max(0.0, 1.0 - float(self.weights[: density.size] @ density)), density)
        # Scaled again, since a tilted walk gains or loses mass at any layer.
        largest = float(density.max())
        scale = log_scale + math.log(largest)
        return Distances(grid, float(self.atoms[layer]), density / largest, 0.0, self.slope, scale)

    def at(self, layer: int) -> Distances:
        """The law of D at a layer."""
        return next(itertools.islice(self.steps(), len(self.index) - layer, None))

    def summary(self) -> Summary:
        """Cumulants, atoms and E e^{-D} at every layer."""
        means, moments, log_second, atoms = [], [], [], []
        weighted = self.weights * np.exp(-self.grid)
        last: Distances | None = None
        for law in self.steps():
            if law is not last:
                mean, central, second = self._moments(law, weighted)
                last = law
            means.append(mean)
            moments.append(central)
            atoms.append(law.atom)
            log_second.append(math.log(second) if second > _LEAST_MOMENT else math.nan)
        cumulants = cumulants_from_moments(np.array(moments[::-1]).T)
        cumulants[0] += means[::-1]
        assert last is not None
        return Summary(cumulants, np.array(log_second[::-1]), np.array(atoms[::-1]), last)

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


def _densities(
    sums: list[Sum], grid: FloatArray, distance: float, last: int
) -> tuple[list[tuple[FloatArray, FloatArray]], FloatArray, int]:
    """`Walk.increments`, `Walk.first` and `Walk.reach`, `last` the kind of layer L."""
    sides = [np.split(total.density(np.concatenate([-grid, grid])), 2) for total in sums]
    reach = max(_reach(side) for both in sides for side in both)
    increments = [(forward, backward[:reach]) for forward, backward in sides]
    return increments, sums[last].density(distance - grid), reach


def _chernoff(sums: list[Sum], index: npt.NDArray[np.intp], log_tail: float) -> tuple[float, float]:
    """A slope s, and a distance that D, from 0, exceeds with probability below e^{-log_tail} at any layer.

    D at a layer is at most its first value plus the largest of -X summed over some layers above, for each of which
    Chernoff's bound holds with the same s: all factors E e^{-sX} above 1 are taken.
    """
    times = np.bincount(index, minlength=len(sums))
    pole = min(total.pole() for total in sums)
    spread = math.sqrt(max(float(total.cumulants()[1]) for total in sums))
    s = np.minimum(np.geomspace(1e-3, 100.0, 240) / spread, 0.95 * pole)
    growth = np.zeros_like(s)
    for total, count in zip(sums, times.tolist(), strict=True):
        moment = total.log_moment(-s.astype(np.complex128)).real - s * total.constant
        growth += count * np.maximum(moment, 0.0)
    bounds = (log_tail + math.log(len(index)) + growth) / s
    best = int(np.argmin(bounds))
    return float(s[best]), float(bounds[best])
