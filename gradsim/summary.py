"""Moments and quantiles over chains, whatever the blocks the chains arrive in.

The moments of 64 consecutive chains make a leaf, and leaves are joined in a binary tree whose shape depends
on their position alone: node (level, i) joins nodes (level - 1, 2 i) and (level - 1, 2 i + 1). Every order
and every partition of the chains into blocks of whole leaves therefore gives the same bits, and no more than
about log2(chains / 64) nodes are ever held where blocks arrive in order.

Within a leaf, central sums are taken in two passes in float64; joining follows T. Chan, G. Golub and R.
LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances" (1979), in P. Pebay's
extension to third and fourth order, Sandia report SAND2008-6212 (2008), eqs. 2.1 and 2.2. Both stay accurate
where the mean is large beside the spread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gradsim.interruption import Check, unchecked
from gradsim.plan import LEAF
from gradsim.quantities import PER_MILLE, STATISTICS

__all__ = ["SummaryBuilder", "quantiles", "summarise"]

#: Fewer chains than this beyond a quantile, and it is not reported.
BEYOND: Final = 10

_CHUNK: Final = 1 << 16  # values whose moments are taken at once: the temporaries stay in the cache
_RUN: Final = 1 << 10  # leaves joined at once, at most, ...
_RUN_VALUES: Final = 1 << 22  # ... and the values in them, so that they do not take long
_SLAB: Final = 1 << 23  # values read at once for quantiles
_PART: Final = 1 << 18  # values sorted at once
#: Columns that share a tree: a node stays in the cache, and what a very long chain takes comes in short steps.
_COLUMNS: Final = 1 << 14

Array = NDArray[Any]
Float = NDArray[np.float64]


class SummaryBuilder:
    """Accumulates the summary of one cell, block by block.

    Parameters
    ----------
    quantities : iterable of str
        Names of the recorded quantities.
    check : callable
        Called several times a second while there is work; what it raises ends the work.
    """

    def __init__(self, quantities: Iterable[str], check: Check = unchecked) -> None:
        #: One tree for every `_COLUMNS` columns, made when the first block is there.
        self._trees: dict[str, list[_MomentTree]] = {name: [] for name in quantities}
        self._check = check
        self._dead: NDArray[np.int64] | None = None
        self._nonfinite: NDArray[np.int64] | None = None

    def add(self, start: int, arrays: Mapping[str, Array]) -> None:
        """Add a block of chains.

        Parameters
        ----------
        start : int
            Index of the block's first chain, a multiple of 64.
        arrays : mapping of str to ndarray of float32, shape (count, columns)
            One row per chain; `count` is a multiple of 64 unless the block ends the cell.
        """
        if start % LEAF:
            raise ValueError(f"a block starts on a multiple of {LEAF} chains, not at {start}")
        for name, trees in self._trees.items():
            for at, columns in enumerate(_column_slices(arrays[name].shape[1])):
                if at == len(trees):
                    trees.append(_MomentTree(self._check))
                trees[at].add(start // LEAF, arrays[name][:, columns])
        if "log_grad_norm" in self._trees:
            self._count(arrays["log_grad_norm"])

    def result(self, kept: Mapping[str, Any]) -> dict[str, Array]:
        """Return the summary of all chains added.

        Parameters
        ----------
        kept : mapping of str to array-like, shape (rows, columns)
            The stored trajectories, from which the quantiles come: arrays, or anything sliced like one.

        Returns
        -------
        dict of str to ndarray
            ``<quantity>_<statistic>`` (columns,) float64 for count, mean, var (divisor n - 1), skew, kurtosis
            (excess), min and max over finite values, NaN where too few are finite; ``<quantity>_quantiles``
            (9, columns) float64; ``dead`` and ``nonfinite`` (layers,) int64 of log_grad_norm.
        """
        summary: dict[str, Array] = {}
        for name, trees in self._trees.items():
            totals = np.concatenate([tree.total() for tree in trees], axis=1)
            for statistic in STATISTICS:
                summary[f"{name}_{statistic}"] = np.empty(totals.shape[1])
            for columns in _column_slices(totals.shape[1]):
                for statistic, values in _statistics(totals[:, columns]).items():
                    summary[f"{name}_{statistic}"][columns] = values
                self._check()
            summary[f"{name}_quantiles"] = quantiles(kept[name], self._check)
        if self._dead is not None and self._nonfinite is not None:
            summary["dead"] = self._dead.astype(np.int64)
            summary["nonfinite"] = self._nonfinite.astype(np.int64)
        return summary

    def _count(self, values: Array) -> None:
        """Count the dead chains and those beyond the range."""
        if self._dead is None or self._nonfinite is None:
            self._dead, self._nonfinite = np.zeros((2, values.shape[1]), np.int64)
        for columns in _column_slices(values.shape[1]):
            for start in range(0, len(values), _RUN):
                part = values[start : start + _RUN, columns]
                dead = np.count_nonzero(part == -np.inf, axis=0)
                self._dead[columns] += dead
                # A norm beyond the range is NaN by definition; should a +inf ever arrive, it is counted with them.
                self._nonfinite[columns] += np.count_nonzero(~np.isfinite(part), axis=0) - dead
            self._check()


def _column_slices(columns: int) -> Iterator[slice]:
    """Yield slices that share the columns out among the trees."""
    for left in range(0, columns, _COLUMNS):
        yield slice(left, left + _COLUMNS)


def summarise(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return the summary of trajectories that are all in memory; see `SummaryBuilder.result`."""
    builder = SummaryBuilder(arrays)
    builder.add(0, arrays)
    return builder.result(arrays)


class _MomentTree:
    """The nodes of one quantity's tree that still wait for their sibling.

    A node is an array (7, columns): count, mean, second to fourth central sum, minimum, maximum.
    """

    def __init__(self, check: Check) -> None:
        self._check = check
        self._waiting: dict[tuple[int, int], Float] = {}

    def add(self, first: int, values: Array) -> None:
        """Add the leaves from number `first` on."""
        rows = max(1, min(_RUN, _RUN_VALUES // (LEAF * max(1, values.shape[1])))) * LEAF
        for start in range(0, len(values), rows):
            self._insert_run(0, first + start // LEAF, _leaf_run(values[start : start + rows]))
            self._check()

    def total(self) -> Float:
        """Return the root; a node without a sibling moves up as it is."""
        nodes = [self._waiting[at] for at in sorted(self._waiting, key=lambda at: at[1] << at[0])]
        total = nodes.pop()
        while nodes:
            total = _join(nodes.pop(), total)
        return total

    def _insert_run(self, level: int, first: int, nodes: Float) -> None:
        """Insert neighbouring nodes (7, count, columns), joining whole pairs at once."""
        while nodes.shape[1]:
            if first % 2:
                self._insert(level, first, nodes[:, 0])
                first, nodes = first + 1, nodes[:, 1:]
            if nodes.shape[1] % 2:
                self._insert(level, first + nodes.shape[1] - 1, nodes[:, -1])
                nodes = nodes[:, :-1]
            level, first, nodes = level + 1, first // 2, _join(nodes[:, 0::2], nodes[:, 1::2])

    def _insert(self, level: int, at: int, node: Float) -> None:
        while (level, at ^ 1) in self._waiting:
            sibling = self._waiting.pop((level, at ^ 1))
            node = _join(sibling, node) if at % 2 else _join(node, sibling)
            level, at = level + 1, at // 2
        self._waiting[level, at] = node.copy()


def _leaf_run(values: Array) -> Float:
    """Return the moments (7, leaves, columns) of values (rows, columns), the last leaf possibly short."""
    rows, columns = values.shape
    leaves = np.empty((7, -(-rows // LEAF), columns))
    whole = rows // LEAF
    step = max(1, _CHUNK // (LEAF * max(1, columns)))
    for start in range(0, whole, step):
        part = values[start * LEAF : min(start + step, whole) * LEAF]
        _fill_leaves(part.reshape(-1, LEAF, columns), leaves[:, start : start + step][:, : len(part) // LEAF])
    if rows % LEAF:
        _fill_leaves(_padded(values[whole * LEAF :])[None], leaves[:, whole:])
    return leaves


def _padded(short: Array) -> Array:
    """Return a short leaf with rows of NaN up to a power of two: what lies beyond would only add zeros to sums."""
    rows, columns = short.shape
    missing = (1 << (rows - 1).bit_length()) - rows
    return np.concatenate((short, np.full((missing, columns), np.nan, short.dtype))) if missing else short


def _fill_leaves(values: Array, leaves: Float) -> None:
    """Write the moments of values (count, rows, columns), rows a power of two, into leaves (7, count, columns)."""
    width = max(1, _CHUNK // (values.shape[0] * values.shape[1]))
    for left in range(0, values.shape[2], width):
        _fill_part(values[:, :, left : left + width], leaves[:, :, left : left + width])


def _fill_part(values: Array, leaves: Float) -> None:
    """Do the work of `_fill_leaves` for as many values as stay in the cache."""
    rows = values.shape[1]
    finite = np.isfinite(values)
    # Where every value is finite, which is nearly always, there is nothing to mask; the bits are the same.
    missing = None if finite.all() else ~finite
    leaves[0] = rows if missing is None else np.count_nonzero(finite, axis=1)
    leaves[5] = (values if missing is None else np.where(finite, values, np.inf)).min(axis=1)
    leaves[6] = (values if missing is None else np.where(finite, values, -np.inf)).max(axis=1)
    x = values.astype(np.float64)
    if missing is not None:
        x[missing] = 0.0
    leaves[1] = _halving_sum(x) / np.maximum(leaves[0], 1.0)
    x -= leaves[1][:, None]
    if missing is not None:
        x[missing] = 0.0
    square = x * x
    x *= square
    leaves[2] = _halving_sum(square)
    leaves[3] = _halving_sum(x)
    square *= square
    leaves[4] = _halving_sum(square)


def _halving_sum(x: Float) -> Float:
    """Sum over the rows, a power of two, in one fixed order; that of ``numpy.sum`` depends on the array's shape."""
    half = x.shape[1] // 2
    total: Float = x[:, :half] + x[:, half:] if half else x
    while half > 1:
        half //= 2
        total[:, :half] += total[:, half : 2 * half]
    return total[:, 0]


def _join(left: Float, right: Float) -> Float:
    """Return the moments of two groups together; an empty group changes nothing."""
    joined = np.empty_like(left)
    count = left[0] + right[0]
    of_left = left[0] / np.maximum(count, 1.0)
    of_right = right[0] / np.maximum(count, 1.0)
    shift = right[1] - left[1]
    shift2 = shift * shift
    weight = left[0] * of_right
    joined[0] = count
    joined[1] = left[1] + shift * of_right
    joined[2] = left[2] + right[2] + shift2 * weight
    joined[3] = (
        left[3]
        + right[3]
        + shift2 * shift * weight * (of_left - of_right)
        + 3.0 * shift * (of_left * right[2] - of_right * left[2])
    )
    joined[4] = (
        left[4]
        + right[4]
        + shift2 * shift2 * weight * (of_left * of_left - of_left * of_right + of_right * of_right)
        + 6.0 * shift2 * (of_left * of_left * right[2] + of_right * of_right * left[2])
        + 4.0 * shift * (of_left * right[3] - of_right * left[3])
    )
    np.minimum(left[5], right[5], out=joined[5])
    np.maximum(left[6], right[6], out=joined[6])
    return joined


def _statistics(moments: Float) -> dict[str, Float]:
    """Return the statistics of central sums; NaN where they are undefined."""
    count, mean, sum2, sum3, sum4, low, high = moments
    empty = count == 0
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.where(sum2 > 0, sum2, np.nan)
        return {
            "count": count.copy(),
            "mean": np.where(empty, np.nan, mean),
            "var": np.where(count > 1, sum2 / (count - 1), np.nan),
            "skew": np.sqrt(count) * sum3 / spread**1.5,
            "kurtosis": count * sum4 / (spread * spread) - 3.0,
            "min": np.where(empty, np.nan, low),
            "max": np.where(empty, np.nan, high),
        }


def quantiles(values: Any, check: Check = unchecked) -> Float:
    """Return the quantiles of each column over its finite values, interpolated linearly.

    Parameters
    ----------
    values : array-like of float32, shape (rows, columns)
        An array, or anything that is sliced like one; read in slabs of columns.
    check : callable
        Called between pieces of the work; what it raises ends it.

    Returns
    -------
    ndarray of float64, shape (9, columns)
        At the probabilities of `gradsim.quantities.QUANTILES`; NaN where fewer than 10 values lie beyond.
    """
    rows, columns = values.shape
    result = np.full((len(PER_MILLE), columns), np.nan)
    # So few that not even the median has enough beyond it.
    if rows * 500 < BEYOND * 1000:
        return result
    step = max(1, _SLAB // rows)
    part = max(1, _PART // rows)
    for start in range(0, columns, step):
        slab = np.asarray(values[:, start : start + step], dtype=np.float32)
        for left in range(0, slab.shape[1], part):
            # One contiguous run per column: -inf sorts before the finite values, +inf and NaN after them.
            by_column = slab[:, left : left + part].T.copy()
            by_column.sort(axis=1)
            result[:, start + left : start + left + len(by_column)] = _sorted_quantiles(by_column)
            check()
    return result


def _sorted_quantiles(slab: Array) -> Float:
    """Return the quantiles (9, columns) of sorted rows (columns, values)."""
    before = np.count_nonzero(np.isneginf(slab), axis=1)
    count = np.count_nonzero(np.isfinite(slab), axis=1)
    column = np.arange(len(slab))
    result = np.full((len(PER_MILLE), len(slab)), np.nan)
    for row, thousandths in enumerate(PER_MILLE):
        enough = count * min(thousandths, 1000 - thousandths) >= BEYOND * 1000
        if not enough.any():
            continue
        position = np.maximum(count - 1, 0) * thousandths
        below, part = position // 1000, (position % 1000) / 1000
        lower = slab[column, np.minimum(before + below, slab.shape[1] - 1)].astype(np.float64)
        upper = slab[column, np.minimum(before + below + 1, slab.shape[1] - 1)].astype(np.float64)
        # Where `part` is 0 the upper neighbour may be no number at all.
        with np.errstate(invalid="ignore"):
            between = np.where(part > 0, lower + part * (upper - lower), lower)
        result[row] = np.where(enough, between, np.nan)
    return result
