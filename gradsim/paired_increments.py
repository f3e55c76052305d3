"""The increments of ln||g|| through neighbouring layers, pooled over layers and chains.

A single second moment of all standardised increments would not see weights that are repeated from layer to
layer: each increment keeps nearly its own law and only their independence is lost. The second moment of sums
of two neighbours sees both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from gradsim.significance import FloatArray
from gradsim.theory.law import IncrementMoments


class PairedIncrements:
    """Sums of two neighbouring standardised increments over sqrt 2; the last stands alone where their number
    is odd.

    Layers whose increment has no spread are left out.

    Parameters
    ----------
    moments : IncrementMoments
    """

    def __init__(self, moments: IncrementMoments) -> None:
        self._layers = np.flatnonzero(moments.var > 0.0)
        self._mean = moments.mean[self._layers]
        self._scale = np.sqrt(moments.var[self._layers])
        powers = np.arange(1, len(moments.cumulants) + 1)[:, None]
        standard = moments.cumulants[:, self._layers] / self._scale**powers
        self._cumulants = self._paired(standard, 2.0 ** (powers / 2.0))

    @property
    def count(self) -> int:
        """Sums per chain."""
        return int(self._cumulants.shape[1])

    def squares(self, trajectories: Iterable[FloatArray]) -> tuple[float, int]:
        """Total of the squared sums, and number of chains, over arrays of ln||g||, shape (chains, L+1)."""
        total, chains = 0.0, 0
        for logs in trajectories:
            steps = (logs[:, :-1] - logs[:, 1:])[:, self._layers]
            total += float(np.sum(self._paired((steps - self._mean) / self._scale, math.sqrt(2.0)) ** 2))
            chains += len(logs)
        return total, chains

    def mean_square(self, rounding: FloatArray) -> tuple[float, float, float]:
        """Expected square of a sum, and the variance and third cumulant of squares, on average over the sums.

        Parameters
        ----------
        rounding : array, shape (L+1,)
            Variance of the rounding error of each stored ln||g_l||.
        """
        _, k2, k3, k4, _, k6 = self._cumulants
        fourth = k4 + 3.0 * k2**2
        sixth = k6 + 15.0 * k4 * k2 + 10.0 * k3**2 + 15.0 * k2**3
        third = sixth - 3.0 * fourth * k2 + 2.0 * k2**3
        expected = 1.0 + float(np.mean(self._rounding(rounding)))
        return expected, float(np.mean(fourth - k2**2)), float(np.mean(third))

    def _rounding(self, rounding: FloatArray) -> FloatArray:
        """Variance that rounding adds to each sum; two neighbours share, and partly cancel, the error between
        them.
        """
        size = 1.0 / self._scale
        alone = (rounding[self._layers] + rounding[self._layers + 1]) * size**2
        shared = np.zeros_like(alone)
        if alone.size > 1:
            touching = np.diff(self._layers) == 1
            shared[:-1] = np.where(touching, rounding[self._layers[1:]] * size[:-1] * size[1:], 0.0)
        even = len(alone) // 2 * 2
        pairs = (alone[:even:2] + alone[1:even:2] - 2.0 * shared[:even:2]) / 2.0
        return np.concatenate([pairs, alone[even:]])

    @staticmethod
    def _paired(values: FloatArray, scale: float | FloatArray) -> FloatArray:
        """Sums of neighbours along the last axis over `scale`, then the odd one out as it is."""
        even = values.shape[-1] // 2 * 2
        pairs = (values[..., :even:2] + values[..., 1:even:2]) / scale
        return np.concatenate([pairs, values[..., even:]], axis=-1)
