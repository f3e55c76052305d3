"""The streaming summary against NumPy and SciPy, and against itself in other blocks."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from gradsim.quantities import QUANTILES, STATISTICS, summary_variables
from gradsim.summary import SummaryBuilder, quantiles, summarise

NAME = "log_grad_norm"


def with_holes(rng: np.random.Generator, chains: int, columns: int, offset: float = 0.0) -> np.ndarray:
    """Skewed values, some of them -inf and some NaN, more so towards the first columns."""
    values = (rng.gamma(2.0, 1.0, (chains, columns)) + offset).astype(np.float32)
    where = rng.random((chains, columns))
    share = np.linspace(0.4, 0.0, columns)
    values[where < share] = -np.inf
    values[where > 1 - share / 4] = np.nan
    return values


def built(values: np.ndarray, cuts: list[int], order: list[int] | None = None) -> dict[str, np.ndarray]:
    """The summary of values that arrive in blocks cut at these leaves."""
    edges = [0, *(64 * cut for cut in cuts), len(values)]
    pieces = list(pairwise(edges))
    builder = SummaryBuilder([NAME])
    for at in order or range(len(pieces)):
        start, stop = pieces[at]
        builder.add(start, {NAME: values[start:stop]})
    return builder.result({NAME: values})


def oracle(column: np.ndarray) -> dict[str, float]:
    """The statistics of one column, by NumPy and SciPy."""
    finite = column[np.isfinite(column)].astype(np.float64)
    return {
        "count": len(finite),
        "mean": finite.mean(),
        "var": finite.var(ddof=1),
        "skew": stats.skew(finite),
        "kurtosis": stats.kurtosis(finite),
        "min": finite.min(),
        "max": finite.max(),
    }


@pytest.mark.parametrize("chains", [65, 128, 1000, 7777])
@pytest.mark.parametrize("offset", [0.0, -3000.0])
def test_statistics_are_those_of_numpy_and_scipy(chains: int, offset: float) -> None:
    values = with_holes(np.random.default_rng(chains), chains, 7, offset)
    summary = summarise({NAME: values})
    for layer in range(values.shape[1]):
        for statistic, expected in oracle(values[:, layer]).items():
            found = summary[f"{NAME}_{statistic}"][layer]
            assert found == pytest.approx(expected, rel=1e-9, abs=1e-12), (statistic, layer)
    assert summary["dead"].tolist() == np.isneginf(values).sum(axis=0).tolist()
    assert summary["nonfinite"].tolist() == np.isnan(values).sum(axis=0).tolist()


def test_a_spread_far_below_the_mean_is_not_lost() -> None:
    # One unit in the last place of float32 at 1e6 is 0.0625; naive sums of squares lose all of it.
    rng = np.random.default_rng(0)
    exact = 1e6 + rng.integers(0, 2, (5000, 3)) * 0.0625
    summary = summarise({NAME: exact.astype(np.float32)})
    np.testing.assert_allclose(summary[f"{NAME}_var"], (exact - 1e6).var(axis=0, ddof=1), rtol=1e-9)
    np.testing.assert_allclose(summary[f"{NAME}_kurtosis"], stats.kurtosis(exact - 1e6), rtol=1e-9)


@pytest.mark.parametrize("columns", [1, 2, 101])
def test_every_block_split_and_order_gives_the_same_bits(columns: int) -> None:
    rng = np.random.default_rng(columns)
    values = with_holes(rng, 64 * 37 + 5, columns)
    values[:640] = np.float32(1.5)  # leaves without a hole take another path, and must not differ
    whole = built(values, [])
    for _ in range(12):
        cuts = sorted(rng.choice(np.arange(1, 38), size=rng.integers(1, 37), replace=False).tolist())
        order = rng.permutation(len(cuts) + 1).tolist()
        for summary in (built(values, cuts), built(values, cuts, order)):
            assert summary.keys() == whole.keys()
            for name in whole:
                assert summary[name].tobytes() == whole[name].tobytes(), (name, cuts)


def test_columns_do_not_depend_on_each_other() -> None:
    values = with_holes(np.random.default_rng(3), 1000, 5)
    whole = summarise({NAME: values})
    for layer in range(5):
        alone = summarise({NAME: values[:, layer : layer + 1].copy()})
        for name in whole:
            assert whole[name][..., layer].tobytes() == alone[name][..., 0].tobytes(), name


def test_values_that_are_too_few_give_nan() -> None:
    values = np.full((3, 4), -np.inf, dtype=np.float32)
    values[0, 1] = 2.0
    values[:, 2] = [1.0, 2.0, 4.0]
    values[:, 3] = 7.0
    summary = summarise({NAME: values})
    assert summary[f"{NAME}_count"].tolist() == [0, 1, 3, 3]
    np.testing.assert_array_equal(summary[f"{NAME}_mean"], [np.nan, 2.0, 7 / 3, 7.0])
    np.testing.assert_allclose(summary[f"{NAME}_var"], [np.nan, np.nan, 7 / 3, 0.0])
    assert np.isnan(summary[f"{NAME}_skew"]).tolist() == [True, True, False, True]
    assert np.isnan(summary[f"{NAME}_kurtosis"]).tolist() == [True, True, False, True]
    np.testing.assert_array_equal(summary[f"{NAME}_min"], [np.nan, 2.0, 1.0, 7.0])
    assert np.isnan(summary[f"{NAME}_quantiles"]).all()
    assert summary["dead"].tolist() == [3, 2, 0, 0]


def test_an_infinite_norm_is_counted_and_not_averaged() -> None:
    values = np.zeros((100, 1), dtype=np.float32)
    values[3] = np.inf
    values[4] = np.nan
    summary = summarise({NAME: values})
    assert summary["nonfinite"].tolist() == [2]
    assert summary["dead"].tolist() == [0]
    assert summary[f"{NAME}_max"].tolist() == [0.0]


def test_quantiles_are_those_of_numpy_over_finite_values() -> None:
    values = with_holes(np.random.default_rng(5), 30_000, 4)
    found = quantiles(values)
    for layer in range(4):
        finite = values[:, layer][np.isfinite(values[:, layer])].astype(np.float64)
        np.testing.assert_allclose(found[:, layer], np.quantile(finite, QUANTILES), rtol=1e-12)


@pytest.mark.parametrize(
    ("chains", "reported"),
    [(19, 0), (20, 1), (39, 1), (40, 3), (199, 3), (200, 5), (999, 5), (1000, 7), (9999, 7), (10_000, 9)],
)
def test_a_quantile_needs_ten_chains_beyond_it(chains: int, reported: int) -> None:
    values = np.arange(chains, dtype=np.float32)[:, None]
    found = np.isfinite(quantiles(values)[:, 0])
    assert found.sum() == reported
    assert found.tolist() == found[::-1].tolist()


def test_taking_quantiles_leaves_the_trajectories_alone() -> None:
    values = np.random.default_rng(0).normal(size=(100, 1)).astype(np.float32)
    before = values.copy()
    quantiles(values)
    assert values.tobytes() == before.tobytes()


def test_memory_does_not_grow_with_the_chains() -> None:
    block = np.random.default_rng(0).normal(size=(1024, 11)).astype(np.float32)

    def peak(count: int) -> int:
        builder = SummaryBuilder([NAME])
        tracemalloc.start()
        for at in range(count):
            builder.add(at * len(block), {NAME: block})
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(1)
    assert peak(128) < peak(8) + 16 * 7 * 8 * 11 + 20_000


def test_a_block_that_is_no_run_of_leaves_is_refused() -> None:
    builder = SummaryBuilder([NAME])
    with pytest.raises(ValueError, match="multiple of 64"):
        builder.add(32, {NAME: np.zeros((64, 2), np.float32)})


def test_the_summary_has_the_variables_it_is_described_by() -> None:
    names = [NAME, "log_grad_max"]
    summary = summarise({name: np.zeros((70, 3), np.float32) for name in names})
    described = {variable.name: variable for variable in summary_variables(names)}
    assert summary.keys() == described.keys()
    assert all(summary[name].dtype == described[name].dtype for name in described)
    assert len(described) == 2 * (len(STATISTICS) + 1) + 2
