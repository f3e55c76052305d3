"""Clipping of g_l by its norm inside the chain, for chains whose increments are independent.

Clipping changes the length of g_l alone, and the increments do not depend on it. So the distance below the threshold
is a random walk reflected at 0: see `gradsim.theory.walk`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from gradsim.theory import tails
from gradsim.theory.law import EXACT, Law
from gradsim.theory.special import ORDERS, FloatArray
from gradsim.theory.walk import Distances, Summary, Walk

# Variances below this are those of rounding.
_LEAST_VARIANCE = 1e-10


@dataclass(frozen=True, kw_only=True, repr=False)
class ClippedLaw(Law):
    """A law with an atom at ln c.

    Attributes
    ----------
    moments : array, shape (6, L+1)
        First cumulants of ln||g_l|| given survival.
    walk : Walk or None
        None where nothing is random.
    summary : Summary or None
        What was found by going through it.
    """

    moments: FloatArray
    log_clip: float
    walk: Walk | None
    summary: Summary | None

    @property
    def cumulants(self) -> FloatArray:
        """First six cumulants of ln||g_l|| given survival, shape (6, L+1)."""
        return self.moments

    def atom(self, layer: int = 0) -> float:
        """P(||g_layer|| = c) given survival."""
        return 1.0 if self.summary is None else float(self.summary.atoms[layer])

    def mean_cdf(self, x: npt.ArrayLike, chains: int, layer: int = 0) -> FloatArray | None:
        """P(ln||g_layer|| <= x) given survival; None for a mean over several chains."""
        points = np.asarray(x, dtype=np.float64)
        if self.walk is None:
            return np.where(np.isnan(points), np.nan, np.where(points >= self.mean[layer], 1.0, 0.0))
        if chains > 1:
            return None
        distance = 2.0 * (self.log_clip - points)
        result = self._at(self.walk, layer).beyond(distance)
        small = (result < tails.SMALL) & (distance < self.walk.grid[-1])
        if small.any() and layer < len(self.walk.index):
            result[small] = self._tail(self.walk, layer).beyond(distance[small])
        return result

    @cached_property
    def _tails(self) -> dict[int, Distances]:
        """Laws of D for their tails, of the layers that were asked for."""
        return {}

    def _tail(self, walk: Walk, layer: int) -> Distances:
        if layer not in self._tails:
            assert self.summary is not None
            self._tails[layer] = walk.tail(layer, self.summary.atoms)
        return self._tails[layer]

    def _at(self, walk: Walk, layer: int) -> Distances:
        return self.summary.bottom if layer == 0 and self.summary is not None else walk.at(layer)


def clipped(clip: float, base: Law) -> ClippedLaw | None:
    """The law of a chain with clipping to norm `clip`, given that without: exact, moments to 1e-8 by the grid.

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
    summary = walk.summary()
    cumulants = summary.cumulants * (-0.5) ** np.arange(1, ORDERS + 1)[:, None]
    cumulants[0] += log_clip
    if cumulants[1, 0] < _LEAST_VARIANCE:
        return None
    return _law(base, log_clip, cumulants, 2.0 * log_clip + summary.log_second, walk, summary)


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
    summary: Summary | None = None,
) -> ClippedLaw:
    with np.errstate(divide="ignore"):
        alive = np.log1p(-base.p_dead)
    return ClippedLaw(
        name="clipped",
        validity=EXACT,
        source=f"random walk reflected at ln clip (Lindley 1952); {base.source}",
        mean=cumulants[0],
        var=cumulants[1],
        log_second_moment=log_second + alive,
        p_dead=base.p_dead,
        rate=base.rate if math.isnan(base.rate) else min(base.rate, 0.0),
        start=min(base.start, log_clip),
        moments=cumulants,
        log_clip=log_clip,
        walk=walk,
        summary=summary,
    )
