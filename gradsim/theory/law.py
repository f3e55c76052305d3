"""`Law`: what theory says about ln||g_l|| of one chain."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from gradsim.chain import Chain
from gradsim.theory.inversion import Sum
from gradsim.theory.special import ORDERS, FloatArray, Part, log_mean_of

EXACT = "exact"
LEADING_ORDER = "leading order"
MEAN_FIELD = "mean field"


@dataclass(frozen=True)
class Increment:
    """ln(||g_{l-1}||^2/||g_l||^2) through one layer, given survival: a constant and independent parts."""

    constant: float
    parts: tuple[Part, ...] = ()

    @cached_property
    def cumulants(self) -> FloatArray:
        """First cumulants, shape (ORDERS,)."""
        return Sum(Counter(self.parts), self.constant).cumulants()

    def outliers(self, distance: float) -> float:
        """Probability of lying further than `distance` standard deviations from the mean; 0 where unknown."""
        mean, var = self.cumulants[:2].tolist()
        reach = distance * math.sqrt(var)
        ends = Sum(Counter(self.parts), self.constant).cdf(np.array([mean - reach, mean + reach])) if var else None
        return 0.0 if ends is None else float(ends[0] + 1.0 - ends[1])

    @cached_property
    def log_mean(self) -> float:
        """ln E||g_{l-1}||^2/||g_l||^2, given survival; infinite where a reciprocal has no mean."""
        if any(part.reach <= 1.0 for part in self.parts):
            return math.inf
        return self.constant + sum(log_mean_of(part) for part in self.parts)


@dataclass(frozen=True)
class Layers:
    """Independent increments, one per layer, equal ones stored once.

    Attributes
    ----------
    kinds : tuple of Increment
    index : array of int, shape (L,)
        ``kinds[index[l - 1]]`` is the increment through layer l.
    """

    kinds: tuple[Increment, ...]
    index: npt.NDArray[np.intp]

    @classmethod
    def of(cls, increments: Sequence[Increment]) -> Layers:
        """Group increments given layer by layer, from layer 1."""
        kinds: dict[Increment, int] = {}
        # One object is hashed once: see `each`.
        known = {id(increment): kinds.setdefault(increment, len(kinds)) for increment in _once(increments)}
        index = [known[id(increment)] for increment in increments]
        return cls(tuple(kinds), np.array(index, dtype=np.intp))

    def above(self, layer: int, copies: int = 1) -> Sum:
        """The sum over the layers above `layer`, taken `copies` times independently."""
        constant, counts = 0.0, Counter[Part]()
        times = np.bincount(self.index[layer:], minlength=len(self.kinds))
        for kind, count in zip(self.kinds, times.tolist(), strict=True):
            constant += kind.constant * count * copies
            for part in kind.parts if count else ():
                counts[part] += count * copies
        return Sum(counts, constant)

    def by_layer(self, values: FloatArray) -> FloatArray:
        """Values of the kinds along the last axis, spread over the layers."""
        return np.asarray(values[..., self.index])


def each(build: Callable[..., Increment], arguments: Iterable[tuple[Any, ...]]) -> list[Increment]:
    """The increment of each layer from its arguments, one object for equal ones: long chains have few that differ."""
    kept: dict[tuple[Any, ...], Increment] = {}
    result = []
    for key in arguments:
        if key not in kept:
            kept[key] = build(*key)
        result.append(kept[key])
    return result


def _once(increments: Sequence[Increment]) -> Iterable[Increment]:
    """Each object once, in order."""
    return {id(increment): increment for increment in increments}.values()


@dataclass(frozen=True)
class IncrementMoments:
    """Moments of ln(||g_{l-1}||/||g_l||) given survival, entry l - 1 for layer l.

    Attributes
    ----------
    cumulants : array, shape (6, L)
    """

    cumulants: FloatArray

    @property
    def mean(self) -> FloatArray:
        """Means, shape (L,)."""
        return np.asarray(self.cumulants[0])

    @property
    def var(self) -> FloatArray:
        """Variances, shape (L,)."""
        return np.asarray(self.cumulants[1])

    @property
    def fourth(self) -> FloatArray:
        """Fourth central moments, shape (L,)."""
        return fourth_moment(self.cumulants)


@dataclass(frozen=True, kw_only=True, repr=False)
class Law:
    """What theory says about ln||g_l||, l = 0..L.

    Attributes
    ----------
    name : str
        The law's name in the registry.
    validity : str
        "exact" (at every finite width), "leading order" (in 1/width) or "mean field" (width to infinity).
    source : str
        Where the law comes from, and for an approximation the order of its error.
    mean : array, shape (L+1,)
        Mean of ln||g_l|| given survival; NaN where unknown.
    var : array, shape (L+1,), or None
        Its variance given survival.
    log_second_moment : array, shape (L+1,), or None
        ln E||g_l||^2, dead chains counting as 0; NaN where unknown.
    p_dead : array, shape (L+1,)
        Probability that g_l is exactly zero; NaN where unknown, as it mostly is from infinite width.
    rate : float
        Asymptotic growth of ln||g|| per layer going backward; NaN where unknown or not defined.
    start : float
        ln||g_L||.
    layers : Layers or None
        The independent increments that the law is made of.
    """

    name: str
    validity: str
    source: str
    mean: FloatArray
    var: FloatArray | None
    log_second_moment: FloatArray | None
    p_dead: FloatArray
    rate: float
    start: float = 0.0
    layers: Layers | None = None

    def __repr__(self) -> str:
        return f"Law({self.name!r}, {self.validity}, {len(self.mean)} layers, mean[0]={self.mean[0]:.4g})"

    @cached_property
    def increments(self) -> IncrementMoments | None:
        """Moments of the increments of ln||g|| through each layer."""
        if self.layers is None:
            return None
        squared = np.stack([kind.cumulants for kind in self.layers.kinds], axis=1)
        halved = squared / 2.0 ** np.arange(1, ORDERS + 1)[:, None]
        return IncrementMoments(self.layers.by_layer(halved))

    @cached_property
    def cumulants(self) -> FloatArray | None:
        """First six cumulants of ln||g_l|| given survival, shape (6, L+1)."""
        if self.increments is None:
            return None
        total = sum_above(self.increments.cumulants)
        total[0] += self.start
        return total

    @property
    def fourth(self) -> FloatArray | None:
        """Fourth central moment of ln||g_l|| given survival, shape (L+1,)."""
        return None if self.cumulants is None else fourth_moment(self.cumulants)

    def outliers(self, distance: float, layer: int = 0) -> float:
        """P(|ln||g_layer|| - mean| > distance) given survival; 0 where the law does not give it."""
        mean = self.mean[layer]
        ends = self.cdf(np.array([mean - distance, mean + distance]), layer)
        return 0.0 if ends is None else float(ends[0] + 1.0 - ends[1])

    def increment_outliers(self, distance: float) -> float:
        """Expected number of increments further than `distance` standard deviations from their mean.

        Per chain, given survival; layers whose distribution function is not known count for nothing.
        """
        if self.layers is None:
            return 0.0
        times = np.bincount(self.layers.index, minlength=len(self.layers.kinds)).tolist()
        expected = (n * kind.outliers(distance) for kind, n in zip(self.layers.kinds, times, strict=True))
        return float(sum(expected))

    def cdf(self, x: npt.ArrayLike, layer: int = 0) -> FloatArray | None:
        """P(ln||g_layer|| <= x) given survival, shape of `x`; None where the law does not give it."""
        return self.mean_cdf(x, 1, layer)

    def atom(self, layer: int = 0) -> float:
        """Probability of the likeliest single value of ln||g_layer||; 0 where the law does not give it."""
        total = self._above(layer, 1)
        return 0.0 if total is None else float(total.atom())

    @cached_property
    def _sums(self) -> dict[tuple[int, int], Sum]:
        """The sums that were asked for: what their distribution functions are inverted from is kept with them."""
        return {}

    def _above(self, layer: int, copies: int) -> Sum | None:
        """`Layers.above`, kept; None without layers."""
        if self.layers is None:
            return None
        if (layer, copies) not in self._sums:
            self._sums[layer, copies] = self.layers.above(layer, copies)
        return self._sums[layer, copies]

    def mean_cdf(self, x: npt.ArrayLike, chains: int, layer: int = 0) -> FloatArray | None:
        """Distribution function of the mean of ln||g_layer|| over independent surviving chains.

        Parameters
        ----------
        x : array_like
        chains : int
            How many chains are averaged.
        layer : int
        """
        total = self._above(layer, chains)
        y = 2.0 * chains * (np.asarray(x, dtype=np.float64) - self.start)
        return None if total is None else total.cdf(y)


def law_of_layers(
    increments: Sequence[Increment],
    *,
    name: str,
    source: str,
    chain: Chain,
    p_dead: FloatArray | None = None,
) -> Law:
    """The exact law of a chain whose increments, given survival, are independent of each other.

    Parameters
    ----------
    increments : sequence of Increment
        From layer 1 to layer L.
    name, source : str
    chain : Chain
    p_dead : array, shape (L+1,), optional
        Probability that g_l is exactly zero; 0 by default.
    """
    layers = Layers.of(increments)
    dead = np.zeros(chain.depth + 1) if p_dead is None else p_dead
    start = log_start(chain)
    means = layers.by_layer(np.array([kind.cumulants[0] for kind in layers.kinds]))
    spread = layers.by_layer(np.array([kind.cumulants[1] for kind in layers.kinds]))
    second = layers.by_layer(np.array([kind.log_mean for kind in layers.kinds]))
    with np.errstate(divide="ignore"):
        alive = np.log1p(-dead)
    return Law(
        name=name,
        validity=EXACT,
        source=source,
        mean=start + sum_above(means) / 2.0,
        var=sum_above(spread) / 4.0,
        log_second_moment=2.0 * start + sum_above(second) + alive,
        p_dead=dead,
        rate=float(means[0]) / 2.0 if is_uniform(chain) else math.nan,
        start=start,
        layers=layers,
    )


def fourth_moment(cumulants: FloatArray) -> FloatArray:
    """Fourth central moment from cumulants along the first axis."""
    return np.asarray(cumulants[3] + 3.0 * cumulants[1] ** 2)


def sum_above(values: FloatArray) -> FloatArray:
    """Sums over the layers above each l = 0..L of values given for layers 1..L along the last axis."""
    result = np.zeros((*values.shape[:-1], values.shape[-1] + 1))
    result[..., :-1] = np.cumsum(values[..., ::-1], axis=-1)[..., ::-1]
    return result


def log_start(chain: Chain) -> float:
    """ln||g_L||: 0 on the unit sphere, (1/2) ln n_L for all ones."""
    return 0.5 * math.log(chain.widths[-1]) if chain.output_gradient == "ones" else 0.0


def squared_gains(chain: Chain) -> list[float]:
    """sigma_w^2 of layers 1..L."""
    return [gain * gain for gain in chain.gains.tolist()]


def is_uniform(chain: Chain) -> bool:
    """Whether all layers are alike, so that an asymptotic rate exists."""
    return len(set(chain.widths)) == 1 and len(set(chain.gains.tolist())) == 1


def adds_nothing(chain: Chain) -> bool:
    """Whether pre-activations are W h alone: no bias, no noise."""
    return not chain.biases.any() and chain.input_noise == 0.0


def draws_fresh_weights(chain: Chain) -> bool:
    """Whether no weight is used twice: feedforward, or a recurrent chain of one step."""
    return not chain.tied or chain.depth == 1
