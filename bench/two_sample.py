"""Whether two samples of chains are of one law: rank tests of every recorded quantity, and of pairs of them.

Under the hypothesis all chains of both samples are exchangeable, so that every statistic here has mean 0 and variance
1 by its permutations, whatever the law, ties and chains that died among them. Values are rounded to `GRAIN` first: a
quantity without spread would otherwise be compared by its rounding.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

Array = NDArray[np.float64]

GRAIN = 4  # decimals
POWER = 0.9


class Outcome(NamedTuple):
    """One test: z with its sign, NaN of a test that has none, and p."""

    name: str
    z: float
    p: float


def columns(found: dict[str, NDArray[np.float32]]) -> dict[str, Array]:
    """What is compared of chains: each quantity at the first layer, in the middle and at the last, each (chains,)."""
    taken = {}
    for name, values in found.items():
        last = values.shape[1] - 1
        for layer in sorted({0, (last + 1) // 2, last}):
            taken[f"{name}[{layer}]"] = np.nan_to_num(np.round(values[:, layer].astype(float), GRAIN), nan=1e9)
    return taken


def linear(scores: Array, first: int) -> Array:
    """z of linear rank statistics: sums over the first sample of scores (chains, statistics) of the pooled one."""
    n, centred = len(scores), scores - scores.mean(axis=0)
    variance = first * (n - first) / (n * (n - 1)) * np.square(centred).sum(axis=0)
    sums = centred[:first].sum(axis=0)
    return np.divide(sums, np.sqrt(variance), out=np.zeros_like(sums), where=variance > 0)


def two_sided(z: float) -> float:
    """p of a normal deviate."""
    return math.erfc(abs(z) / math.sqrt(2))


def kolmogorov_smirnov(pooled: Array, first: int) -> float:
    """p of the largest distance of two distribution functions, by its limit law: ties make it too large, not small."""
    order, n = np.argsort(pooled), len(pooled)
    steps = np.where(order < first, 1 / first, -1 / (n - first))
    ends = np.append(np.diff(pooled[order]) > 0, True)
    distance = np.abs(np.cumsum(steps)[ends]).max()
    return float(special.kolmogorov(distance * math.sqrt(first * (n - first) / n)))


def compare(one: dict[str, NDArray[np.float32]], other: dict[str, NDArray[np.float32]]) -> list[Outcome]:
    """All tests of two samples, by quantity (chains, layers).

    Of each column: Wilcoxon's (shift), Ansari and Bradley's (spread), Kolmogorov and Smirnov's. Of each two columns:
    the product of their normal scores, which is their dependence.
    """
    a, b = columns(one), columns(other)
    pooled = {name: np.concatenate([x, b[name]]) for name, x in a.items()}
    names = [name for name, values in pooled.items() if (values != values[0]).any()]
    if not names:
        return []
    first = len(a[names[0]])
    ranks = stats.rankdata(np.column_stack([pooled[name] for name in names]), axis=0)
    ranks /= len(ranks) + 1
    normal = special.ndtri(ranks)
    left, right = np.triu_indices(len(names), 1)
    tests = {
        "shift": (names, ranks),
        "spread": (names, np.abs(ranks - 0.5)),
        "product": (
            [f"{names[i]} with {names[j]}" for i, j in zip(left, right, strict=True)],
            normal[:, left] * normal[:, right],
        ),
    }
    outcomes = [
        Outcome(f"{of} {test}", float(z), two_sided(z))
        for test, (named, scores) in tests.items()
        for of, z in zip(named, linear(scores, first), strict=True)
    ]
    for name in names:
        outcomes.append(Outcome(f"{name} distribution", math.nan, kolmogorov_smirnov(pooled[name], first)))
    return outcomes


def smallest_shift(chains: int, tests: int, alpha: float, power: float = POWER) -> float:
    """The shift, in standard deviations of a normal quantity, that Wilcoxon's test finds with this probability.

    At Bonferroni's level, which is Holm's of the smallest p-value; two samples of so many chains.
    """
    wanted = stats.norm.isf(alpha / tests / 2) + stats.norm.ppf(power)
    return float(wanted * math.sqrt(2 / chains * math.pi / 3))


def holm(p: Array) -> Array:
    """Holm's adjusted p-values, in the order given."""
    order = np.argsort(p)
    adjusted = np.maximum.accumulate(np.minimum(1.0, p[order] * np.arange(len(p), 0, -1)))
    result = np.empty_like(adjusted)
    result[order] = adjusted
    return result
