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


def test_only_layers_of_one_entry_count():
    each = _ZERO_RADIUS + _ZERO_COSINE
    assert chance_of_zero(ONE, "float32") == pytest.approx(1 - (1 - each) ** 1000)
    assert chance_of_zero(ONE, "float64") == 0.0
    assert chance_of_zero(Chain(profile=[1, 2, 4, 1, 1, 8], activation="linear"), "float32") == pytest.approx(
        each + _ZERO_RADIUS, rel=1e-6
    )
    for other in (ONE.replace(width=2), ONE.replace(init="orthogonal"), ONE.replace(init="identity")):
        assert chance_of_zero(other, "float32") == 0.0


@pytest.mark.parametrize("gain", [1.0, 0.4])
def test_what_a_skip_cancels(gain):
    """A bound that is met to a factor of 2, in float16, whose spacing lets many weights cancel: z = 5, error 1e-6."""
    chain = ONE.replace(depth=1, skip=1.0, gain=gain)
    weights = np.random.default_rng(3).standard_normal(10_000_000, dtype=np.float32) * np.float32(gain)
    found = np.count_nonzero(np.float16(1.0) + weights.astype(np.float16) == 0.0)
    most = chance_of_zero(chain, "float16") * len(weights)
    assert most / 2 < found - 5 * found**0.5 and found + 5 * found**0.5 < most
    assert chance_of_zero(chain, "float32") == pytest.approx(chance_of_zero(chain, "float16") / 2**13, rel=1e-3)


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


@pytest.mark.parametrize(
    ("chain", "dead", "dtype"),
    [(ONE, 6, "float32"), (ONE, 1, "float64"), (ONE.replace(width=2), 1, "float32")],
    ids=["too many", "float64 draws none", "width 2"],
)
def test_more_deaths_than_the_draws_explain_disagree(chain, dead, dtype):
    assert deaths(cell(chain, dead, dtype=dtype)).verdict == "disagree"
