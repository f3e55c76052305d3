"""From words to numbers: rounding, tails, and the laws of normals, uniforms and signs.

Statistical tests here have fixed seeds. Each would reject a perfect generator with probability at most ERROR over the
choice of seeds, all its p-values taken together (Bonferroni); each has a control that it must reject.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from gradsim.kernels import rng
from gradsim.kernels.compiling import kernel
from gradsim.kernels.reference import box_muller
from tests.kernels import compiled

ERROR = 1e-6
EPS32, EPS64 = 2.0**-24, 2.0**-53
EDGES = np.array([0, 1, 2, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 256, 2**32 - 129, 2**32 - 2, 2**32 - 1], np.uint32)
SAMPLES = 2**19
KEY = np.array([1, 2, 3, 4], np.uint32)


def many_words():
    """A million pairs of words, every pair of edges, and each edge with many partners; radii near zero in plenty."""
    draw = np.random.default_rng(0)
    plain = draw.integers(0, 2**32, (2, 10**6), dtype=np.uint32)
    edges = np.stack([np.repeat(EDGES, len(EDGES)), np.tile(EDGES, len(EDGES))])
    partners = np.stack([np.repeat(EDGES, 1000), draw.integers(0, 2**32, 1000 * len(EDGES), dtype=np.uint32)])
    small = np.stack([(2**32 - 1 - draw.integers(0, 2**16, 10**5)).astype(np.uint32), partners[1, :1].repeat(10**5)])
    return np.concatenate([plain, edges, partners, partners[::-1], small], axis=1)


WORDS = many_words()


def errors(dtype, words):
    """Deviation of both normals from the float64 reference, and the radius."""
    expected = np.stack(box_muller(*words))
    return np.abs(np.stack(compiled.normal_pairs(*words, dtype)) - expected), np.hypot(*expected)


def test_float32_normals_are_accurate():
    # u has 24 bits: the radius R moves by that over R, and all else by a few units in its last place.
    deviation, radius = errors("float32", WORDS)
    assert np.max(deviation / (EPS32 * (radius + 1 / radius))) < 4


def test_float64_normals_are_accurate():
    deviation, radius = errors("float64", WORDS)
    assert np.max(deviation / (EPS64 * radius)) < 6


def test_float32_is_not_held_to_float64():
    """The bound of one dtype tells it from the other."""
    deviation, radius = errors("float32", WORDS)
    assert np.max(deviation / (EPS64 * radius)) > 1e6


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_edges_of_the_radius(dtype):
    zero = np.zeros(3, np.uint32)
    largest, _, smallest = compiled.normal_pairs(np.array([0, 1, 2**32 - 1], np.uint32), zero, dtype)[0]
    assert largest == pytest.approx(np.sqrt(66 * np.log(2)), rel=1e-7)  # 6.7637
    assert 0 <= smallest < 4e-4


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_edges_of_the_angle(dtype):
    turned = np.array([0, 2**31, 2**30, 2**31 - 2**30, 2**31 - 1], np.uint32)
    radius = np.full(5, 2**31, np.uint32)
    x, y = compiled.normal_pairs(radius, turned, dtype)
    r = np.sqrt(-2 * np.log((2**31 + 0.5) / 2**32))
    np.testing.assert_allclose(x / r, [1, -1, 0, 0, np.cos(np.pi / 2**32)], atol=2e-7)
    np.testing.assert_allclose(y / r, [0, 0, -1, -1, 0], atol=2e-7)


def beyond(radii, t):
    """P(|X| > t) for the radii of the smallest radius words, each met once in 2^32, and an angle that is uniform."""
    return np.sum(2 / np.pi * np.arccos(np.minimum(1, t / radii))) / 2**32


def smallest_radius_words(t):
    """Every radius word that reaches t, and a few more."""
    return np.arange(int(2**32 * np.exp(-t * t / 2) * 1.01) + 2, dtype=np.uint32)


def relative_tail(t, dtype, words):
    """P(|X| > t) over the normal law's."""
    radii, _ = compiled.normal_pairs(words, np.zeros_like(words), dtype)
    return beyond(radii.astype(float), t) / (2 * stats.norm.sf(t))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("t", "tolerance"), [(4, 1e-5), (5, 1e-5), (5.5, 1e-4), (6, 2e-3), (6.5, 2e-2)])
def test_tail_is_normal(t, tolerance, dtype):
    # No sampling: all radius words beyond t are gone through, 68 of them at 6 sigma.
    assert relative_tail(t, dtype, smallest_radius_words(t)) == pytest.approx(1, abs=tolerance)


def test_a_radius_of_24_bits_has_no_tail():
    """The control: a uniform of 24 bits ends at 5.9 sigma."""
    cut = (smallest_radius_words(6) >> np.uint32(8) << np.uint32(8)) + np.uint32(128)
    assert relative_tail(6, "float32", cut) != pytest.approx(1, abs=2e-3)


@kernel
def count_beyond(words, thresholds, counts):
    """How many of the normals of these words exceed each threshold in size."""
    for m in range(words.shape[1]):
        for c in range(words.shape[0] // 2):
            x, y = rng.normal_pair32(words[2 * c, m], words[2 * c + 1, m])
            for k in range(len(thresholds)):
                counts[k] += (abs(x) > thresholds[k]) + (abs(y) > thresholds[k])


def outside_poisson(count, expected):
    """Whether a count is in the outer ERROR of its Poisson law."""
    return min(stats.poisson.cdf(count, expected), stats.poisson.sf(count - 1, expected)) < ERROR / 2


def test_streams_reach_their_tails():
    """3 * 10^7 normals of the real streams: 1900 beyond 4 sigma expected, 17 beyond 5."""
    thresholds, counts, total = np.array([4.0, 5.0]), np.zeros(2, np.int64), 0
    for j in range(32):
        block = compiled.threefry13(KEY, np.full(2**18, j), np.arange(2**18))
        count_beyond(block, thresholds, counts)
        total += block.size
    expected = 2 * stats.norm.sf(thresholds) * total
    assert not any(map(outside_poisson, counts, expected))
    assert outside_poisson(counts[0], 1.2 * expected[0])  # a tail 20 % too light is seen


LAWS = {"gaussian": stats.norm(), "uniform": stats.uniform(-np.sqrt(3), 2 * np.sqrt(3))}


def moment(law, k):
    """E x^k of a law of variance 1, symmetric about 0."""
    return 1.0 if law == "rademacher" and k % 2 == 0 else (0.0 if k % 2 else LAWS[law].moment(k))


def p_values(x, law):
    """Of the first six moments, and of the whole distribution by Kolmogorov and Smirnov."""
    x = x.astype(np.float64)
    found = {}
    for k in range(1, 7):
        variance = moment(law, 2 * k) - moment(law, k) ** 2
        deviation = np.mean(x**k) - moment(law, k)
        if variance == 0:
            found[f"moment {k}"] = float(deviation == 0)
        else:
            found[f"moment {k}"] = 2 * stats.norm.sf(abs(deviation) * np.sqrt(len(x) / variance))
    if law in LAWS:
        found["distribution"] = stats.kstest(x, LAWS[law].cdf).pvalue
    return found


def check_law(x, law):
    """Fail if x is not of that law."""
    found = p_values(x, law)
    assert min(found.values()) > ERROR / len(found), found


def sample(law, dtype):
    """Numbers as the kernels draw them, from many columns."""
    return np.concatenate([compiled.column(KEY, j, 4096, dtype, law) for j in range(SAMPLES // 4096)])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("law", ["gaussian", "uniform", "rademacher"])
def test_law(law, dtype):
    check_law(sample(law, dtype), law)


@pytest.mark.parametrize(
    ("law", "spoil"),
    [
        ("gaussian", lambda x: 1.01 * x),
        ("gaussian", lambda x: x + 0.01),
        ("gaussian", lambda x: np.clip(x, -3, 3)),
        ("gaussian", lambda x: np.sum(x.reshape(-1, 4) ** 3, axis=1) / np.sqrt(60)),
        ("uniform", lambda x: 1.005 * x),
        ("uniform", lambda x: np.floor(x * 64) / 64),
        ("uniform", lambda x: np.where(x > 1.7, -x, x)),
        ("rademacher", lambda x: np.where(np.arange(len(x)) % 128 == 0, 1, x)),
        ("rademacher", lambda x: 1.0001 * x),
    ],
)
def test_another_law_is_seen(law, spoil):
    with pytest.raises(AssertionError):
        check_law(spoil(sample(law, "float64")), law)


def test_uniforms_and_signs_of_edges():
    ends = np.array([2**31, 2**31 - 1, 0, 2**32 - 1], np.uint32)  # as two's complement: least, greatest, 0, -1
    half = np.sqrt(3) * 2.0**-32
    expected = [half - np.sqrt(3), np.sqrt(3) - half, half, -half]
    np.testing.assert_allclose(compiled.uniforms(ends, "float64"), expected, rtol=4e-16)
    np.testing.assert_allclose(compiled.uniforms(ends, "float32"), expected, rtol=2 * EPS32)
    for dtype in ("float32", "float64"):
        np.testing.assert_array_equal(compiled.signs(ends, dtype), [-1, 1, 1, -1])


def test_float32_uniforms_are_float64_ones_rounded():
    wide, narrow = (compiled.uniforms(WORDS[0], dtype) for dtype in ("float64", "float32"))
    # Three roundings, of the word, of the sum and of the product, and that of the factor.
    assert np.max(np.abs(narrow - wide) / (EPS32 * np.maximum(np.abs(wide), 2.0**-31))) < 4
