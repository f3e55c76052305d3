"""Which tests one cell undergoes, and their p-values before any adjustment."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from gradsim.chain import Chain
from gradsim.paired_increments import PairedIncrements
from gradsim.rounding import rounding_tolerance, stored_spacing
from gradsim.significance import (
    FloatArray,
    binomial_excess_p,
    binomial_p,
    ks_distance,
    ks_p,
    mean_p,
    normal_quantile,
    spread_p,
    variance_law,
)
from gradsim.theory.law import EXACT, Law
from gradsim.zero_draws import chance_of_zero

AGREE, DISAGREE, APPROXIMATE = "agree", "disagree", "approximate"

_POWER = 0.9
_QUANTITY = "log_grad_norm"
_CHAINS_AT_ONCE = 1024
# Expected number of draws below which an atom of the law is not looked at.
_RARE = 1e-3


class Cell(Protocol):
    """What a comparison needs of a result cell."""

    @property
    def chain(self) -> Chain: ...
    @property
    def chains(self) -> int: ...
    @property
    def dtype(self) -> str: ...
    @property
    def quantities(self) -> Iterable[str]: ...
    @property
    def log_grad_norm(self) -> Any: ...
    @property
    def summary(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class StatisticalTest:
    """One row of a comparison; NaN and None where something is unknown or not defined.

    Attributes
    ----------
    quantity : str
    layer : int or None
        None for a test over all layers.
    statistic : str
        "mean", "variance", "ks", "deaths" or "increments".
    theory, empirical, standard_error, z, p, p_adjusted : float
    n : int
        Sample size.
    validity, source : str or None
        Of the law.
    verdict : str or None
        "agree" or "disagree" for an exact law, "approximate" for another, None for a row that only describes.
    """

    quantity: str
    layer: int | None
    statistic: str
    theory: float = math.nan
    empirical: float = math.nan
    standard_error: float = math.nan
    z: float = math.nan
    p: float = math.nan
    p_adjusted: float = math.nan
    n: int = 0
    validity: str | None = None
    source: str | None = None
    verdict: str | None = None


def examine(cell: Cell, law: Law | None) -> list[StatisticalTest]:
    """The tests and descriptive rows of one cell, before any adjustment; none where ln||g|| was not recorded."""
    if _QUANTITY not in cell.quantities:
        return []
    if law is None:
        return _described(cell, StatisticalTest(_QUANTITY, 0, ""))
    blank = StatisticalTest(_QUANTITY, 0, "", validity=law.validity, source=law.source)
    if law.validity != EXACT:
        return _approximate(cell, law, blank)
    if math.isnan(law.mean[0]) or law.var is None:
        return [*_described(cell, blank), _second_moment(cell, law, blank)]
    if law.var[0] <= stored_spacing(law.mean[:1])[0] ** 2:
        # A spread below that of the stored numbers, as of a very weak skip connection, is none.
        return [*_without_spread(cell, law, blank), _deaths(cell, law, blank)]
    return [
        _mean(cell, law, blank),
        _variance(cell, law, blank),
        _ks(cell, law, blank),
        _deaths(cell, law, blank),
        _increments(cell, law, blank),
    ]


def _described(cell: Cell, blank: StatisticalTest) -> list[StatisticalTest]:
    """Sample mean and variance, without theory."""
    mean, var, n = _sample(cell)
    error = math.sqrt(var / n) if n > 1 else math.nan
    described = replace(blank, n=n)
    return [
        replace(described, statistic="mean", empirical=mean, standard_error=error),
        replace(described, statistic="variance", empirical=var),
    ]


def _approximate(cell: Cell, law: Law, blank: StatisticalTest) -> list[StatisticalTest]:
    """Deviations from an approximation: z in sampling errors, not a test."""
    mean, variance = _described(cell, blank)
    var = float(law.var[0]) if law.var is not None else math.nan
    spread = var * math.sqrt(2.0 / (variance.n - 1)) if variance.n > 1 else math.nan
    rows = [
        _with_theory(mean, float(law.mean[0]), mean.standard_error),
        _with_theory(variance, var, spread),
        replace(_deaths(cell, law, blank), p=math.nan),
    ]
    return [replace(row, verdict=APPROXIMATE) if _says_something(row) else row for row in rows]


def _says_something(row: StatisticalTest) -> bool:
    known = not math.isnan(row.theory) and not math.isnan(row.empirical)
    return known and (row.statistic != "deaths" or row.theory > 0.0)


def _second_moment(cell: Cell, law: Law, blank: StatisticalTest) -> StatisticalTest:
    """E||g_0||^2 against its sample mean. Rare chains rule it, so that no test can be made of it."""
    row = replace(blank, quantity="squared_grad_norm", statistic="mean")
    if law.log_second_moment is None:
        return row
    with np.errstate(over="ignore", invalid="ignore"):
        squared = np.exp(2.0 * np.asarray(cell.log_grad_norm[:, 0], dtype=np.float64))
        theory = float(np.exp(law.log_second_moment[0]))
        n = squared.size
        error = float(squared.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
        mean = float(squared.mean()) if n else math.nan
    return replace(row, theory=theory, empirical=mean, standard_error=error, n=n)


def _without_spread(cell: Cell, law: Law, blank: StatisticalTest) -> list[StatisticalTest]:
    """Mean and variance under a law without spread; every kept trajectory must follow it within rounding at
    every layer.
    """
    mean, var, n = _sample(cell)
    tolerance = rounding_tolerance(cell.chain, cell.dtype, law.mean)
    within = abs(mean - law.mean[0]) <= tolerance[0] and all(
        bool(np.all(np.abs(logs - law.mean) <= tolerance)) for logs in _survivors(cell)
    )
    steady = not var > tolerance[0] ** 2
    row = replace(blank, n=n)
    return [
        replace(row, statistic="mean", theory=law.mean[0], empirical=mean, verdict=_judge(within, n)),
        replace(row, statistic="variance", theory=0.0, empirical=var, verdict=_judge(steady, n - 1)),
    ]


def _judge(holds: bool, n: int) -> str | None:
    return None if n < 1 else AGREE if holds else DISAGREE


def _mean(cell: Cell, law: Law, blank: StatisticalTest) -> StatisticalTest:
    mean, _, n = _sample(cell)
    row = replace(blank, statistic="mean", theory=float(law.mean[0]), n=n)
    if n == 0 or law.var is None:
        return row
    row = _with_theory(replace(row, empirical=mean), row.theory, math.sqrt(law.var[0] / n))
    cdf = law.mean_cdf(mean, n)
    return replace(row, p=mean_p(row.z, None if cdf is None else float(cdf)))


def _variance(cell: Cell, law: Law, blank: StatisticalTest) -> StatisticalTest:
    _, var, n = _sample(cell)
    cumulants = law.cumulants
    assert law.var is not None
    row = replace(blank, statistic="variance", theory=float(law.var[0]), n=n)
    if n < 2 or cumulants is None:
        return row
    stored = float(stored_spacing(law.mean[:1])[0] ** 2 / 12.0)
    spread, third = variance_law(n, cumulants[:, 0])
    error = math.sqrt(spread)
    expected = row.theory + stored
    return replace(
        row,
        empirical=var,
        standard_error=error,
        z=(var - expected) / error,
        p=spread_p(var, expected, spread, third, lambda excess: n * law.outliers(math.sqrt(n * excess))),
    )


def _ks(cell: Cell, law: Law, blank: StatisticalTest) -> StatisticalTest:
    row = replace(blank, statistic="ks")
    logs = np.asarray(cell.log_grad_norm[:, 0], dtype=np.float64)
    sample = np.sort(logs[np.isfinite(logs)])
    if sample.size == 0:
        return row
    margin = stored_spacing(sample) / 2.0
    if law.atom() * sample.size > _RARE:
        # Beside an atom the least rounding moves the distribution function by a jump.
        margin = margin + rounding_tolerance(cell.chain, cell.dtype, law.mean)[0]
    edges = law.cdf(np.stack([sample - margin, sample + margin]))
    if edges is None:
        return replace(row, n=sample.size)
    distance = ks_distance(sample, edges[0], edges[1])
    return replace(row, empirical=distance, n=sample.size, p=ks_p(distance, sample.size))


def _deaths(cell: Cell, law: Law, blank: StatisticalTest) -> StatisticalTest:
    """Chains without a finite ln||g_0|| against P(dead): where the law knows no death, none may be missing
    for any reason but zeros that were drawn, which are held to their own probability.
    """
    n, p = cell.chains, float(law.p_dead[0])
    dead = n - alive(cell)
    row = replace(blank, statistic="deaths", theory=p, empirical=dead / n if n else math.nan, n=n)
    if n == 0 or math.isnan(p) or (p == 0.0 and law.validity != EXACT):
        return row
    drawn = chance_of_zero(cell.chain, cell.dtype)
    if p == drawn == 0.0:
        return replace(row, verdict=DISAGREE if dead else AGREE)
    expected = p + (1.0 - p) * drawn
    row = _with_theory(row, expected, math.sqrt(expected * (1.0 - expected) / n))
    return replace(row, p=binomial_p(dead, n, expected) if p > 0.0 else binomial_excess_p(dead, n, expected))


def _increments(cell: Cell, law: Law, blank: StatisticalTest) -> StatisticalTest:
    """Pooled second moment of sums of two neighbouring standardised increments of ln||g||: 1 in the law."""
    row = replace(blank, layer=None, statistic="increments", theory=1.0)
    if law.increments is None:
        return row
    paired = PairedIncrements(law.increments)
    total, chains = paired.squares(_survivors(cell))
    n = chains * paired.count
    if n == 0:
        return row
    expected, spread, third = paired.mean_square(stored_spacing(law.mean) ** 2 / 12.0)
    error = math.sqrt(spread / n)

    def outliers(excess: float) -> float:
        # A single increment makes up a square by being sqrt 2 times as far out as the sum.
        return chains * law.increment_outliers(math.sqrt(2.0 * n * excess))

    return replace(
        row,
        empirical=total / n,
        standard_error=error,
        z=(total / n - expected) / error,
        n=n,
        p=spread_p(total / n, expected, error**2, third / n**2, outliers),
    )


def _with_theory(row: StatisticalTest, theory: float, error: float) -> StatisticalTest:
    z = (row.empirical - theory) / error if error > 0.0 else math.nan
    return replace(row, theory=theory, standard_error=error, z=z)


def _sample(cell: Cell) -> tuple[float, float, int]:
    """Mean, variance and number of the finite ln||g_0|| of all chains."""
    mean, var, n = (float(cell.summary[f"{_QUANTITY}_{name}"][0]) for name in ("mean", "var", "count"))
    return mean, var, int(n)


def alive(cell: Cell) -> int:
    """Chains whose ln||g_0|| is finite."""
    return _sample(cell)[2] if _QUANTITY in cell.quantities else 0


def _survivors(cell: Cell) -> Iterable[FloatArray]:
    """Kept trajectories whose ln||g|| is finite at every layer, some at a time; shape (chains, L+1)."""
    trajectories = cell.log_grad_norm
    for first in range(0, trajectories.shape[0], _CHAINS_AT_ONCE):
        logs = np.asarray(trajectories[first : first + _CHAINS_AT_ONCE], dtype=np.float64)
        yield logs[np.isfinite(logs).all(axis=1)]


def detectable_gain_error(cell: Cell, law: Law | None, level: float) -> float:
    """The gain error that shifts the mean by enough standard errors; without spread, by twice the rounding
    tolerance. NaN where a norm, a skip connection or clipping lets ||g|| not follow the gain.
    """
    chain = cell.chain
    if chain.norm != "none" or chain.skip_factor or chain.clip:
        return math.nan
    if law is None or law.validity != EXACT or law.var is None or math.isnan(law.mean[0]):
        return math.nan
    n = alive(cell)
    if n == 0:
        return math.nan
    if law.var[0] == 0.0:
        shift = 2.0 * float(rounding_tolerance(cell.chain, cell.dtype, law.mean)[0])
    else:
        quantiles = normal_quantile(1.0 - level / 2.0) + normal_quantile(_POWER)
        shift = quantiles * math.sqrt(law.var[0] / n)
    return math.expm1(shift / chain.depth)
