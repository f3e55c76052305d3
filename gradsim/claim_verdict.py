"""Whether a claim holds: confidence intervals of means over chains, held against what was expected.

An expectation about a layer of a cell is judged by the mean of its quantity over the chains that are alive there, with
its Student interval and what rounding may have moved the mean by. The intervals of a claim share its level
(Bonferroni), so that with probability 1 - alpha, in the limit of many chains, each of them covers the mean it is about,
and no verdict "held" or "not held" is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from scipy import special as sp

from gradsim.chain import Chain
from gradsim.claim import Claim, Expectation, columns_of
from gradsim.rounding import rounding_of_mean
from gradsim.tables import counted

__all__ = ["HELD", "NOT_HELD", "UNDECIDED", "ClaimVerdict", "ExpectationVerdict", "judge"]

HELD, NOT_HELD, UNDECIDED = "held", "not held", "undecided"
_MORE_CHAINS = "a bound lies in the interval, more chains may decide"
_NO_CHAINS = "the mean lies within rounding of the bound: no number of chains decides it"


class Cell(Protocol):
    """What a claim's verdict needs of a result cell."""

    @property
    def chain(self) -> Chain: ...
    @property
    def dtype(self) -> str: ...
    @property
    def summary(self) -> Mapping[str, Any]: ...
    def __getitem__(self, quantity: str, /) -> Any: ...


@dataclass(frozen=True)
class Sample:
    """Mean and variance of a quantity at one place over the n chains with a finite value; `lost` counts NaN.

    `rounding` is how far rounding may have moved the mean, where all chains are rounded alike.
    """

    mean: float
    var: float
    n: int
    lost: int
    rounding: float


@dataclass(frozen=True)
class ExpectationVerdict:
    """The verdict about one expectation, and the interval that decides it.

    Of the intervals that come to this verdict it is the one that reaches furthest to the wrong side; of undecided
    ones, first one that more chains would not decide.

    Attributes
    ----------
    quantity, layer, cells, op, value, control
        Those of the expectation.
    verdict : str
        "held" if every interval lies wholly on the right side, "not held" if any lies wholly on the wrong one,
        else "undecided".
    reason : str
        Why it is undecided; "" where it is not.
    intervals : int
        Cells times layers.
    cell : int
        Of the deciding interval: its cell, ...
    at : int or None
        ... its layer (None for a rate), ...
    n, lost : int
        ... its chains with a finite value, those that left the dtype, ...
    estimate, standard_error, low, high : float
        ... the mean over these chains, its standard error, the ends of the interval, ...
    margin : float
        ... and the distance of the mean from the nearest bound, positive on the right side.
    """

    quantity: str
    layer: int | str
    cells: dict[str, Any]
    op: str
    value: float | tuple[float, float]
    control: dict[str, Any]
    verdict: str
    reason: str
    intervals: int
    cell: int
    at: int | None
    n: int
    lost: int
    estimate: float
    standard_error: float
    low: float
    high: float
    margin: float


@dataclass(frozen=True)
class ClaimVerdict:
    """The verdict about a claim.

    Attributes
    ----------
    text : str
        The claim.
    held : bool or None
        None where it is undecided.
    verdict : str
        "held" if every expectation is, "not held" if any is not, else "undecided".
    alpha : float
        One minus the joint confidence of all intervals.
    intervals : int
    expectations : tuple of ExpectationVerdict
    """

    text: str
    held: bool | None
    verdict: str
    alpha: float
    intervals: int
    expectations: tuple[ExpectationVerdict, ...]

    def to_dict(self) -> dict[str, Any]:
        """The key ``claim`` of the document that ``gradsim compare --json`` prints."""
        return asdict(self)


def judge(claim: Claim, cells: Sequence[Cell], alpha: float = 0.01) -> ClaimVerdict:
    """Judge a claim by the cells of the experiment that makes it.

    Parameters
    ----------
    claim : Claim
    cells : sequence of Cell
        All of them, in order.
    alpha : float
        Probability of any wrong verdict, in the limit of many chains.
    """
    places = [_places(expectation, cells) for expectation in claim.expectations]
    intervals = sum(len(found) for found in places)
    level = alpha / intervals
    judged = tuple(
        _judge(expectation, cells, found, level) for expectation, found in zip(claim.expectations, places, strict=True)
    )
    verdict = _together([expectation.verdict for expectation in judged])
    held = None if verdict == UNDECIDED else verdict == HELD
    return ClaimVerdict(claim.text, held, verdict, alpha, intervals, judged)


def _places(expectation: Expectation, cells: Sequence[Cell]) -> list[tuple[int, int | None]]:
    """Cells and layers that an expectation is about; a rate has no layer."""
    places: list[tuple[int, int | None]] = []
    for index, cell in enumerate(cells):
        if not expectation.selects(cell.chain):
            continue
        if expectation.layer == "rate":
            places.append((index, None))
        elif isinstance(expectation.layer, int):
            places.append((index, expectation.layer))
        else:
            places += [(index, layer) for layer in columns_of(expectation.quantity, cell.chain)]
    return places


def _judge(
    expectation: Expectation, cells: Sequence[Cell], places: Sequence[tuple[int, int | None]], level: float
) -> ExpectationVerdict:
    """Judge every interval; of those that come to the verdict, the one that reaches furthest is shown."""
    judged = [_interval(expectation, cells[index], index, layer, level, len(places)) for index, layer in places]
    verdict = _together([interval.verdict for interval in judged])
    return min((interval for interval in judged if interval.verdict == verdict), key=_reach)


def _reach(interval: ExpectationVerdict) -> float:
    """How far the worse end of an interval lies on the right side; what no number of chains decides comes first."""
    if interval.reason not in ("", _MORE_CHAINS):
        return -math.inf
    return interval.margin - (interval.high - interval.low) / 2.0


def _interval(
    expectation: Expectation, cell: Cell, index: int, layer: int | None, level: float, intervals: int
) -> ExpectationVerdict:
    sample = _at_layer(expectation, cell, layer) if layer is not None else _rate(expectation, cell)
    error = math.sqrt(sample.var / sample.n) if sample.n > 1 else math.nan
    drawn = error * float(sp.stdtrit(max(sample.n - 1, 1), 1.0 - level / 2.0))
    half = drawn + sample.rounding
    low, high = sample.mean - half, sample.mean + half
    bottom, top = _bounds(expectation)
    reason = _no_fair_sample(sample)
    if reason:
        verdict = UNDECIDED
    elif bottom < low and high < top:
        verdict = HELD
    elif high <= bottom or low >= top:
        verdict = NOT_HELD
    else:
        # What is left of the interval for any number of chains is its rounding.
        nearest = min(abs(sample.mean - bottom), abs(top - sample.mean))
        verdict, reason = UNDECIDED, _NO_CHAINS if nearest + drawn < sample.rounding else _MORE_CHAINS
    return ExpectationVerdict(
        **expectation.to_dict(),
        verdict=verdict,
        reason=reason,
        intervals=intervals,
        cell=index,
        at=layer,
        n=sample.n,
        lost=sample.lost,
        estimate=sample.mean,
        standard_error=error,
        low=low,
        high=high,
        margin=min(sample.mean - bottom, top - sample.mean),
    )


def _no_fair_sample(sample: Sample) -> str:
    """Why no interval can be made of a sample; "" where one can."""
    if sample.lost:
        return f"{counted(sample.lost, 'chain')} left the dtype"
    if sample.n < 2:
        return "only one chain is alive" if sample.n else "no chain is alive"
    return ""


def _bounds(expectation: Expectation) -> tuple[float, float]:
    """The open range in which the mean must lie."""
    if isinstance(expectation.value, tuple):
        return expectation.value
    return (-math.inf, expectation.value) if expectation.op == "<" else (expectation.value, math.inf)


def _at_layer(expectation: Expectation, cell: Cell, layer: int) -> Sample:
    """The sample at one layer, over all chains."""
    name = expectation.quantity
    column = layer - columns_of(name, cell.chain).start
    mean, var, n = (float(cell.summary[f"{name}_{statistic}"][column]) for statistic in ("mean", "var", "count"))
    # Only of log_grad_norm is it known of chains that are not stored.
    lost = cell.summary["nonfinite"][column] if name == "log_grad_norm" else np.isnan(cell[name][:, column]).sum()
    return Sample(mean, var, int(n), int(lost), _rounding(expectation, cell, layer, mean))


def _rate(expectation: Expectation, cell: Cell) -> Sample:
    """Growth per layer going backward between the last column and the first, over the stored chains."""
    stored = cell[expectation.quantity]
    steps = stored.shape[1] - 1
    ends = np.asarray(stored[:, [0, steps]], dtype=np.float64)
    lost = int(np.isnan(ends).any(axis=1).sum())
    ends = ends[np.isfinite(ends).all(axis=1)]
    n = len(ends)
    if n < 2:
        return Sample(math.nan, math.nan, n, lost, math.nan)
    columns = columns_of(expectation.quantity, cell.chain)
    means = ends.mean(axis=0).tolist()
    ends_at = zip((columns[0], columns[-1]), means, strict=True)
    rounding = sum(_rounding(expectation, cell, at, mean) for at, mean in ends_at)
    rates = (ends[:, 0] - ends[:, 1]) / steps
    return Sample(float(rates.mean()), float(rates.var(ddof=1)), n, lost, rounding / steps)


def _rounding(expectation: Expectation, cell: Cell, layer: int, value: float) -> float:
    return rounding_of_mean(expectation.quantity, cell.chain, cell.dtype, layer, value)


def _together(verdicts: Sequence[str]) -> str:
    """The verdict about all of several."""
    return NOT_HELD if NOT_HELD in verdicts else UNDECIDED if UNDECIDED in verdicts else HELD
