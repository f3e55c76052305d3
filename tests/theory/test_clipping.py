"""The reflected walk: what it is without reflection, where it settles, and what its grid costs."""

from __future__ import annotations

import time

import numpy as np
import pytest

from gradsim.chain import Chain
from gradsim.theory import clipping
from gradsim.theory.registry import find

LINEAR = {"activation": "linear"}


@pytest.mark.parametrize("fields", [{**LINEAR, "gain": 0.9}, {"bias": 0.2}], ids=["linear", "relu"])
def test_a_threshold_out_of_reach_changes_nothing(fields):
    chain = Chain(width=16, depth=8, **fields)
    plain, far = find(chain), find(chain.replace(clip=300.0))
    # The sixth moment magnifies rounding the most.
    np.testing.assert_allclose(far.cumulants, plain.cumulants, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(far.mean, plain.mean, atol=1e-9)
    np.testing.assert_allclose(far.var, plain.var, atol=1e-9)
    np.testing.assert_allclose(far.log_second_moment, plain.log_second_moment, atol=1e-7)
    x = plain.mean[3] + np.linspace(-4, 4, 41) * np.sqrt(plain.var[3])
    np.testing.assert_allclose(far.cdf(x, layer=3), plain.cdf(x, layer=3), atol=1e-8)
    assert far.rate == plain.rate


def test_second_moment_far_below_the_threshold_is_left_open():
    law = find(Chain(**LINEAR, width=64, depth=40, gain=0.6, clip=1.0))
    known = np.isfinite(law.log_second_moment)
    assert known[-5:].all() and not known[:5].any()
    free = find(Chain(**LINEAR, width=64, depth=40, gain=0.6))
    np.testing.assert_allclose(law.log_second_moment[-5:], free.log_second_moment[-5:], atol=1e-6)


def test_one_layer_is_a_cut_off_law():
    chain = Chain(**LINEAR, width=5, depth=1, gain=1.1)
    plain, cut = find(chain), find(chain.replace(clip=1.0))
    x = np.array([-3.0, -1.0, -0.2, -1e-9])
    np.testing.assert_allclose(cut.cdf(x), plain.cdf(x), atol=1e-9)
    assert cut.cdf(0.0) == 1.0
    assert cut.atom() == pytest.approx(1.0 - plain.cdf(0.0), abs=1e-9)


def test_finer_grids_change_nothing(monkeypatch):
    chain = Chain(**LINEAR, width=40, depth=20, gain=1.0, clip=1.0)
    coarse = find(chain)
    monkeypatch.setattr(clipping, "_RESOLUTION", 10.0)
    fine = find(chain)
    np.testing.assert_allclose(coarse.mean, fine.mean, atol=1e-8)
    np.testing.assert_allclose(coarse.var, fine.var, atol=1e-8)
    x = np.linspace(-2.0, -1e-6, 200)
    np.testing.assert_allclose(coarse.cdf(x), fine.cdf(x), atol=1e-8)


def test_a_growing_walk_settles():
    law = find(Chain(**LINEAR, width=64, depth=400, gain=1.1, clip=1.0))
    assert law.rate == 0.0
    assert law.mean[0] == pytest.approx(law.mean[200], abs=1e-12)
    assert law.cdf(law.mean[0] - 5.0) == pytest.approx(0.0, abs=1e-9)


def test_numbers_that_are_none_and_ends():
    law = find(Chain(**LINEAR, width=8, depth=3, gain=1.0, clip=2.0))
    points = np.array([np.nan, -np.inf, np.inf, np.log(2.0)])
    np.testing.assert_array_equal(law.cdf(points), [np.nan, 0.0, 1.0, 1.0])
    assert law.cdf(0.0, layer=3) == 1.0
    assert law.cdf(-1e-9, layer=3) == 0.0


@pytest.mark.parametrize(
    "fields",
    [
        {"gain": 2.0, "width": 256},  # everything at the threshold, but for events that no run sees
        {"gain": 0.5, "width": 256, "depth": 2000},  # too far below it
        {"init": "uniform"},
        {"init": "orthogonal", "norm": "rms"},  # layers without spread beside layers with it
    ],
    ids=str,
)
def test_no_law(fields):
    assert find(Chain(**{**LINEAR, "width": 8, "depth": 5, "gain": 1.0, "clip": 1.0, **fields})) is None


def test_a_deep_wide_law_is_quick():
    chain = Chain(width=256, depth=50, clip=1.0)
    seconds = []
    for _ in range(3):
        start = time.process_time()
        find(chain).cdf(np.linspace(-5, 0, 4096))
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.3


def test_what_a_long_chain_costs(monkeypatch):
    """Transforms no longer than the walk has come and an increment reaches, and none for the law of g_0 again."""
    lengths = []
    transform = np.fft.rfft

    def counted(x, n=None):
        lengths.append(n or len(x))
        return transform(x, n)

    monkeypatch.setattr(np.fft, "rfft", counted)
    law = find(Chain(width=64, depth=1000, clip=1.0))
    assert 1000 < len(lengths) < 1020
    # Twice the grid each would be 2,000 times its size.
    assert sum(lengths) < 800 * law.walk.grid.size
    lengths.clear()
    assert law.cdf(law.mean[0]) == pytest.approx(0.5, abs=0.1) and law.atom() < 1e-6
    assert not lengths
