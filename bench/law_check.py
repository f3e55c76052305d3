"""Whether what was timed draws the right law: mean and variance of ln||g_0||.

Against the exact law where there is one, by exact p-values; else our sample against a peer's. The level is shared out
over all tests of a run (Bonferroni), so that a run in which every side is right fails with at most that probability.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gradsim.significance import mean_p, spread_p, variance_law

if TYPE_CHECKING:
    from gradsim.theory.law import Law

#: Probability that a run with every side right fails.
ALPHA = 1e-3

Sample = npt.NDArray[np.floating]


@dataclass(frozen=True)
class LawTest:
    """One test.

    Attributes
    ----------
    who : str
        Whose sample.
    what : str
    n : int
        Chains in it.
    p : float
        Two-sided.
    """

    who: str
    what: str
    n: int
    p: float


def against_law(who: str, sample: Sample, law: Law) -> list[LawTest]:
    """Mean and variance of a sample of ln||g_0|| against an exact law.

    Parameters
    ----------
    who : str
    sample : array, shape (n,)
        n >= 2; a value that is not finite fails the test, dead chains being out of the question here.
    law : Law
        With cumulants.
    """
    n = sample.size
    cumulants = law.cumulants
    assert law.var is not None and cumulants is not None
    if not np.all(np.isfinite(sample)):
        return [LawTest(who, "finite", n, 0.0)]
    x = np.asarray(sample, dtype=np.float64)
    mean, var = float(x.mean()), float(x.var(ddof=1))
    z = (mean - float(law.mean[0])) / math.sqrt(float(law.var[0]) / n)
    cdf = law.mean_cdf(mean, n)
    spread, third = variance_law(n, cumulants[:, 0])

    def outliers(excess: float) -> float:
        return n * law.outliers(math.sqrt(n * excess))

    return [
        LawTest(who, "mean", n, mean_p(z, None if cdf is None else float(cdf))),
        LawTest(who, "variance", n, spread_p(var, float(law.var[0]), spread, third, outliers)),
    ]


def against_each_other(who: str, sample: Sample, ours: Sample) -> list[LawTest]:
    """Mean (Welch) and spread (Brown and Forsythe) of a sample against ours."""
    from scipy import stats

    if not (np.all(np.isfinite(sample)) and np.all(np.isfinite(ours))):
        return [LawTest(who, "finite", sample.size, 0.0)]
    x, y = np.asarray(sample, dtype=np.float64), np.asarray(ours, dtype=np.float64)
    mean = float(stats.ttest_ind(x, y, equal_var=False).pvalue)
    spread = float(stats.levene(x, y, center="median").pvalue)
    return [LawTest(who, "mean", x.size, mean), LawTest(who, "variance", x.size, spread)]


def failures(tests: list[LawTest], alpha: float = ALPHA) -> list[LawTest]:
    """The tests that fail at level `alpha` shared out over all of them."""
    return [test for test in tests if not test.p > alpha / len(tests)]


def at_input(results: Sequence[Any]) -> Any:
    """ln||g_0|| of all chains of all repetitions."""
    return np.concatenate([np.asarray(logs)[:, 0] for logs in results])


def of_all(law: Law | None, ours: Sample, samples: Mapping[str, Sample]) -> list[LawTest]:
    """Mean and variance of ln||g_0|| of each side: against the exact law, or a peer against ours.

    Parameters
    ----------
    law : Law or None
        What is known of the chains.
    ours : array, shape (n,)
    samples : dict of arrays
        Those of the peers, by name.
    """
    tests: list[LawTest] = []
    if law is not None and law.validity == "exact":
        for name, sample in {"gradsim": ours, **samples}.items():
            tests += against_law(name, sample, law)
    else:
        for name, sample in samples.items():
            tests += against_each_other(name, sample, ours)
    return tests
