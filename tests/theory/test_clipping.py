"""The reflected walk: what it is without reflection, where it settles, and what its grid costs."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import stats

from gradsim.chain import Chain
from gradsim.theory import walk
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


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize(
    "fields",
    [
        {"width": 16, "depth": 40, "gain": 1.0},
        {"width": 64, "depth": 100},
        {"width": 3, "depth": 5, "gain": 0.3},
        {"profile": [20, 50, 30, 80, 5, 40, 33]},
        {**LINEAR, "width": 16, "depth": 40, "gain": 1.0},
        {**LINEAR, "width": 16, "depth": 8, "gain": 1.0},
        # Two humps, and layers few enough that the slope for all is too large for them.
        {"activation": "leaky_relu", "gain": 1.4, "profile": [83, 68, 43, 106]},
        {**LINEAR, "width": 98, "depth": 5, "gain": 1.4},
    ],
    ids=str,
)
def test_tails_below_a_threshold_out_of_reach(fields, layer):
    """To the relative 1e-4 down to 1e-12 that the law without clipping has."""
    chain = Chain(**fields)
    plain, far = find(chain), find(chain.replace(clip=1e6))
    x = plain.mean[layer] - np.linspace(2.5, 40.0, 300) * np.sqrt(plain.var[layer])
    expected = plain.cdf(x, layer)
    known = expected > 1e-12
    assert expected[known].min() < 1e-10
    np.testing.assert_allclose(far.cdf(x, layer)[known], expected[known], rtol=1e-4)


def test_a_tail_is_lost_in_the_rounding_of_the_body():
    """What the tilted walk is for: at 2e-12 the other one is wrong by more than a twentieth."""
    chain = Chain(width=16, depth=40, gain=1.0)
    x = np.array([-43.0])
    expected, far = find(chain).cdf(x), find(chain.replace(clip=1e6))
    assert 1e-12 < expected[0] < 3e-12
    assert abs(far.summary.bottom.beyond(2.0 * (far.log_clip - x)) / expected - 1.0)[0] > 0.05


def summed_directly(n, gain, depth, step):
    """Points, P(D >= them) and P(D = 0): sums of positive terms, which keep a small relative error everywhere."""
    d = step * np.arange(int(110.0 / step))
    ratio = n / gain**2 * np.exp(-step * np.arange(-d.size + 1, d.size))
    density, beyond = stats.chi2(n).pdf(ratio) * ratio, stats.chi2(n).sf(n / gain**2 * np.exp(d))
    weights = np.full(d.size, step)
    weights[0] /= 2.0
    atom, now = 1.0, np.zeros_like(d)
    for _ in range(depth):
        moved = np.convolve(weights * now, density)[d.size - 1 : 2 * d.size - 1] + atom * density[d.size - 1 :]
        atom, now = atom * beyond[0] + float(weights * now @ beyond), moved
    mass = weights * now
    return d, np.cumsum(mass[::-1])[::-1] - mass / 2.0, atom


@pytest.mark.parametrize("gain", [1.0, 0.8])
def test_tails_of_a_walk_that_is_clipped(gain):
    """The direct sum's own error, of the order of the step squared, is taken out with half the step."""
    law = find(Chain(**LINEAR, width=6, depth=8, gain=gain, clip=1.0))
    d, coarse, coarse_atom = summed_directly(6, gain, 8, 0.04)
    _, fine, fine_atom = summed_directly(6, gain, 8, 0.02)
    tail = fine[::2][: d.size] + (fine[::2][: d.size] - coarse) / 3.0
    at = np.flatnonzero((tail > 1e-12) & (tail < 0.1))[::20]
    assert tail[at].min() < 1e-11
    np.testing.assert_allclose(law.cdf(-d[at] / 2.0), tail[at], rtol=1e-6)
    assert law.atom() == pytest.approx(fine_atom + (fine_atom - coarse_atom) / 3.0, abs=1e-8)


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
    monkeypatch.setattr(walk, "_RESOLUTION", 10.0)
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


def test_chains_that_all_die_leave_a_law_of_the_survivors():
    with np.errstate(all="raise"):
        law = find(Chain(width=3, depth=500, gain=2.0, clip=1.0))
    assert law.p_dead[0] == 1.0 and law.log_second_moment[0] == -np.inf and np.isfinite(law.mean[0])


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
