"""Theory against empirical: which tests a cell undergoes, their adjustment over the file, and the verdict."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from numbers import Real
from os import PathLike
from typing import TYPE_CHECKING, Any, cast

from gradsim.cell_tests import AGREE, DISAGREE, StatisticalTest, alive, detectable_gain_error, examine
from gradsim.chain import Chain
from gradsim.claim_verdict import ClaimVerdict, judge
from gradsim.documents import json_ready
from gradsim.errors import ExperimentError, GradsimError
from gradsim.growth import growth_rate
from gradsim.overflow import Crossing, crossings
from gradsim.significance import holm
from gradsim.theory.law import Law
from gradsim.theory.registry import find

if TYPE_CHECKING:
    import pandas

NO_EXACT_LAW = "no exact law"

#: Cells that a repr lists.
_SHOWN = 5
_NO_PANDAS = "to_dataframe needs pandas: install it with `pip install pandas`"

LawOf = Callable[[Chain], Law | None]


@dataclass(frozen=True, repr=False)
class CellComparison:
    """The tests of one cell.

    Attributes
    ----------
    cell : int
        Its place in the results.
    chain : dict
        Resolved fields.
    chains, alive : int
        Chains simulated, and those whose g_0 is finite and not zero.
    p_dead : float
        P(g_0 = 0) in the law; NaN where unknown.
    detectable_gain_error : float
        Relative gain error that the mean finds with power 0.9 at the adjusted level; NaN without an exact law
        of the mean.
    rate : float
        Growth of the mean of ln||g|| per layer going backward, as simulated: see `gradsim.growth`.
    tests : tuple of StatisticalTest
    overflow : tuple of Crossing
        Where its gradients would leave number formats: see `gradsim.overflow`.
    """

    cell: int
    chain: dict[str, Any]
    chains: int
    alive: int
    p_dead: float
    detectable_gain_error: float
    rate: float
    tests: tuple[StatisticalTest, ...]
    overflow: tuple[Crossing, ...] = ()

    def __repr__(self) -> str:
        verdicts = Counter(test.verdict for test in self.tests if test.verdict is not None)
        judged = ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items())) or "no law"
        rejected = ", ".join(test.statistic for test in self.tests if test.verdict == DISAGREE)
        fields = {name: self.chain[name] for name in ("kind", "activation", "width", "depth") if name in self.chain}
        named = ", ".join(f"{name}={value}" for name, value in fields.items())
        outcome = judged + (f" ({rejected})" if rejected else "")
        return f"cell {self.cell}: {named}: {outcome}; {self.alive} of {self.chains} chains alive"


@dataclass(frozen=True, repr=False)
class Comparison:
    """Theory against empirical for all cells of some results.

    Attributes
    ----------
    verdict : str
        "disagree" if any exact law is rejected, else "agree" if any was tested, else "no exact law".
    alpha : float
        Family-wise level over all tests of exact laws.
    cells : tuple of CellComparison
    file : str or None
        The result file.
    claim : ClaimVerdict or None
        Whether the experiment's claim holds; None where it makes none, or cells were given without their experiment.
    """

    verdict: str
    alpha: float
    cells: tuple[CellComparison, ...]
    file: str | None = None
    claim: ClaimVerdict | None = None

    def __repr__(self) -> str:
        where = "" if self.file is None else f", file={self.file!r}"
        lines = [f"Comparison({self.verdict!r}, alpha={self.alpha:g}, cells={len(self.cells)}{where})"]
        lines += [f"  {cell!r}" for cell in self.cells[:_SHOWN]]
        if len(self.cells) > _SHOWN:
            lines.append(f"  ... and {len(self.cells) - _SHOWN} more cells")
        if self.claim is not None:
            lines.append(f"  claim {self.claim.verdict}: {self.claim.text}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The document that ``gradsim compare --json`` prints: unknown is None, infinities are "inf" and
        "-inf".
        """
        document = {
            "file": self.file,
            "alpha": self.alpha,
            "verdict": self.verdict,
            "claim": None if self.claim is None else self.claim.to_dict(),
            "cells": [asdict(cell) for cell in self.cells],
        }
        ready: dict[str, Any] = json_ready(document)
        return ready

    def to_dataframe(self) -> pandas.DataFrame:
        """One row per test; the chain's single-valued fields as columns ``chain_<field>``.

        Raises
        ------
        GradsimError
            If pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise GradsimError(_NO_PANDAS) from error
        rows = []
        for cell in self.cells:
            fields = {f"chain_{k}": v for k, v in cell.chain.items() if not isinstance(v, list | dict)}
            head = {"cell": cell.cell, "chains": cell.chains, "alive": cell.alive}
            rows += [{**head, **asdict(test), **fields} for test in cell.tests]
        return pandas.DataFrame(rows)


def _check_alpha(alpha: object) -> None:
    number = isinstance(alpha, Real) and not isinstance(alpha, bool)
    if not (number and 0.0 < float(cast(float, alpha)) < 1.0):
        raise ExperimentError(f"alpha = {alpha!r} is not allowed: alpha is a probability between 0 and 1")


def compare(results: Any, alpha: float = 0.01, laws: LawOf | None = None) -> Comparison:
    """Hold simulated gradient norms against theory.

    Every cell with an exact law is tested at layer 0, among chains whose gradient is not zero: the mean and
    the variance of ln||g_0|| (all chains), its distribution by Kolmogorov-Smirnov (kept trajectories), the
    number of dead chains, and one pooled test of the increments of ln||g|| through single layers. The
    p-values are adjusted by Holm's method over all cells. A law without spread is held to
    `rounding_tolerance` instead. Approximate laws are reported and never rejected. A claim that the experiment of the
    results makes is judged at the same level, apart from these tests.

    Parameters
    ----------
    results : Results, Cell, or iterable of Cell
    alpha : float
        Probability of rejecting any true law, and of a wrong verdict about the claim.
    laws : callable, optional
        Gives the law for a chain; by default the registry does. Meant for checking that a wrong law is
        rejected.

    Returns
    -------
    Comparison

    Raises
    ------
    ExperimentError
        For an `alpha` that is no probability, or a path in place of results.
    """
    _check_alpha(alpha)
    if isinstance(results, (str, bytes, PathLike)):
        raise ExperimentError(f"compare takes results, not a path: compare(gradsim.open({results!r}))")
    cells: list[Any] = [results] if hasattr(results, "chain") else list(results)
    law_of = find if laws is None else laws
    found = [law_of(cell.chain) for cell in cells]
    rows = [examine(cell, law) for cell, law in zip(cells, found, strict=True)]
    judged = _adjust(rows, alpha)
    tested = sum(not math.isnan(test.p) for tests in judged for test in tests)
    compared = tuple(
        CellComparison(
            cell=index,
            chain=cell.chain.fields(),
            chains=cell.chains,
            alive=alive(cell),
            p_dead=math.nan if law is None else float(law.p_dead[0]),
            detectable_gain_error=detectable_gain_error(cell, law, alpha / max(tested, 1)),
            rate=growth_rate(cell),
            tests=tests,
            overflow=crossings(cell, law),
        )
        for index, (cell, law, tests) in enumerate(zip(cells, found, judged, strict=True))
    )
    path = getattr(results, "path", None)
    claim = getattr(getattr(results, "experiment", None), "claim", None)
    return Comparison(
        _verdict(judged),
        alpha,
        compared,
        None if path is None else str(path),
        None if claim is None else judge(claim, cells, alpha),
    )


def _adjust(rows: list[list[StatisticalTest]], alpha: float) -> list[tuple[StatisticalTest, ...]]:
    """Holm's adjustment over all rows with a p-value, and the verdict of each."""
    adjusted = iter(holm([test.p for tests in rows for test in tests if not math.isnan(test.p)]))

    def judged(test: StatisticalTest) -> StatisticalTest:
        if math.isnan(test.p):
            return test
        p = next(adjusted)
        return replace(test, p_adjusted=p, verdict=DISAGREE if p <= alpha else AGREE)

    return [tuple(judged(test) for test in tests) for tests in rows]


def _verdict(rows: Iterable[tuple[StatisticalTest, ...]]) -> str:
    verdicts = {test.verdict for tests in rows for test in tests}
    return DISAGREE if DISAGREE in verdicts else AGREE if AGREE in verdicts else NO_EXACT_LAW
