"""Zeros that are drawn: their number in the generator, and what `compare` makes of the chains that they kill."""

from __future__ import annotations

import numpy as np
import pytest

from gradsim.chain import Chain
from gradsim.comparison import compare
from gradsim.zero_draws import _ZERO_COSINE, _ZERO_RADIUS, chance_of_zero
from tests.cells import StandIn, draw
from tests.kernels import compiled

ONE = Chain(activation="linear", width=1, depth=1000, gain=1.0)
COLUMNS = Chain(activation="linear", profile=[1, 4] * 501, gain=1.0)
NEAR = np.arange(-4096, 4096)


def words_near(*centres):
    return np.concatenate([(centre + NEAR) % 2**32 for centre in centres]).astype(np.uint32)


def test_normals_are_zero_for_as_many_words_as_stated():
    """Zeros lie at the largest radius words, and at the quarter turns of the angle; the whole range has no others."""
    # 2^20 stands for any other word: its radius is far from 0.
    radius, angle = words_near(0), words_near(0, 2**30, 2**31, 3 * 2**30)
    for dtype, share in (("float32", 1.0), ("float64", 0.0)):
        cosines, sines = compiled.normal_pairs(radius, np.full_like(radius, 2**20), dtype)
        assert np.sum(cosines == 0) == np.sum(sines == 0) == share * _ZERO_RADIUS * 2**32
        cosines, _ = compiled.normal_pairs(np.full_like(angle, 2**20), angle, dtype)
        assert np.sum(cosines == 0) == share * _ZERO_COSINE * 2**32


EACH = _ZERO_RADIUS + _ZERO_COSINE
ROUNDED = float(np.finfo(np.float32).eps) / np.sqrt(2 * np.pi)


def test_only_layers_of_one_entry_count():
    assert chance_of_zero(ONE, "float32") == pytest.approx(1 - (1 - EACH) ** 1000)
    assert chance_of_zero(ONE, "float64") == 0.0
    profile = Chain(profile=[1, 2, 4, 1, 1, 8], activation="linear")
    assert chance_of_zero(profile, "float32") == pytest.approx(EACH + _ZERO_RADIUS + 2 * ROUNDED, rel=1e-6)
    assert chance_of_zero(profile, "float64") < 3e-16
    for other in (ONE.replace(width=2), ONE.replace(init="orthogonal"), ONE.replace(init="identity")):
        assert chance_of_zero(other, "float32") == 0.0


@pytest.mark.parametrize(
    ("fields", "share"), [({}, 0.5), ({"dropout": 0.2}, 0.4), ({"activation": "linear", "dropout": 0.2}, 0.8)], ids=str
)
def test_layers_of_which_one_unit_is_left(fields, share):
    """Of the 2^3 patterns of three units those with one of them, counted; and 3 x 3 patterns beside each other."""
    chain = Chain(width=3, depth=2, **fields)
    patterns = np.array([[i >> k & 1 for k in range(3)] for i in range(1, 8)]).sum(axis=1)
    weights = share**patterns * (1 - share) ** (3 - patterns)
    lone = weights[patterns == 1].sum() / weights.sum()
    expected = lone * (lone * EACH + (1 - lone) * ROUNDED)
    assert chance_of_zero(chain, "float32") == pytest.approx(expected, rel=1e-6)


def sum_over_rows(d, columns, rng):
    """As `draws.backward` adds them, in float16: four rows in pairs, and two such groups at a time."""
    groups = -(-len(d) // 4)
    d = np.append(d, np.zeros(4 * groups - len(d))).astype(np.float16)

    def group(i):
        if i >= groups:
            return np.float16(0)
        a = rng.standard_normal((4, columns), dtype=np.float32).astype(np.float16)
        a, b, c, e = (d[i + k * groups] * a[k] for k in range(4))
        return (a + b) + (c + e)

    total = np.zeros(columns, np.float16)
    for i in range(0, groups, 2):
        total += group(i) + group(i + 1)
    return total


@pytest.mark.parametrize("rows", [2, 3, 4, 8, 24])
def test_how_often_sums_over_rows_cancel(rows):
    """A bound that is met to a factor of 10, in float16, where it is 4e-4 or 390 of a million: z = 5, error 1e-6."""
    rng = np.random.default_rng(rows)
    columns = 1_000_000
    # The largest bound of entries alike; a vector that one entry outweighs cancels less often.
    found = np.count_nonzero(sum_over_rows(np.full(rows, rows**-0.5), columns, rng) == 0)
    uneven = np.count_nonzero(sum_over_rows(np.append(np.full(rows - 1, 0.1), 1.0), columns, rng) == 0)
    chain = Chain(profile=[1, rows], activation="linear", gain=1.0)
    most = chance_of_zero(chain, "float16") * columns
    assert most / 10 < found - 5 * found**0.5 and found + 5 * found**0.5 < most
    assert uneven + 5 * (uneven + 1) ** 0.5 < most


@pytest.mark.parametrize("gain", [1.0, 0.4])
def test_what_a_skip_cancels(gain):
    """A bound that is met to a factor of 2, in float16, whose spacing lets many weights cancel: z = 5, error 1e-6."""
    chain = ONE.replace(depth=1, skip=1.0, gain=gain)
    weights = np.random.default_rng(3).standard_normal(10_000_000, dtype=np.float32) * np.float32(gain)
    found = np.count_nonzero(np.float16(1.0) + weights.astype(np.float16) == 0.0)
    most = chance_of_zero(chain, "float16") * len(weights)
    assert most / 2 < found - 5 * found**0.5 and found + 5 * found**0.5 < most
    assert chance_of_zero(chain, "float32") == pytest.approx(chance_of_zero(chain, "float16") / 2**13, rel=1e-3)
    # A weight of 0 leaves the carry.
    assert chance_of_zero(chain.replace(gain=0.0), "float32") == 0.0


def cell(chain, dead, chains=4096, dtype="float32"):
    logs = draw(chain, chains, np.random.default_rng(5))
    logs[:dead, :500] = -np.inf
    return StandIn(chain, logs, dtype=dtype)


def deaths(stand_in):
    comparison = compare([stand_in])
    (test,) = (test for test in comparison.cells[0].tests if test.statistic == "deaths")
    assert test.verdict == comparison.verdict
    return test


def test_a_chain_killed_by_a_drawn_zero_is_no_disagreement():
    """4,096 chains of 1,000 layers of width 1 have 0.25 of them in expectation."""
    one = deaths(cell(ONE, 1))
    assert one.verdict == "agree" and one.p == pytest.approx(1 - np.exp(-4096 * 1000 * 258 / 2**32), rel=1e-3)
    assert deaths(cell(ONE, 0)).p == 1.0


def test_a_chain_killed_by_a_sum_that_cancels_is_no_disagreement():
    """The bound is 0.1 of 4,096 chains with 501 columns of four rows; measured, 0.02 of them die so."""
    assert deaths(cell(COLUMNS, 1)).verdict == "agree"


@pytest.mark.parametrize(
    ("chain", "dead", "dtype"),
    [(ONE, 6, "float32"), (ONE, 1, "float64"), (ONE.replace(width=2), 1, "float32"), (COLUMNS, 4, "float32")],
    ids=["too many", "float64 draws none", "width 2", "too many sums"],
)
def test_more_deaths_than_the_draws_explain_disagree(chain, dead, dtype):
    assert deaths(cell(chain, dead, dtype=dtype)).verdict == "disagree"
