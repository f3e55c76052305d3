"""The moments of powers of one Gaussian matrix."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from gradsim.chain import Chain
from gradsim.theory import recurrent
from gradsim.theory.registry import find
from tests.theory import wick

LINES = [
    [int(value) for value in line.split()]
    for line in Path(recurrent.__file__).with_name("recurrent_moments.txt").read_text().splitlines()
    if not line.startswith("#")
]
TABLE = {(i, j): row for i, j, *row in LINES}


def test_quoted_polynomials():
    assert TABLE[2, 2] == [2, 0, 1]
    assert TABLE[3, 3] == [4, 10, 0, 1]
    assert TABLE[4, 4] == [48, 28, 28, 0, 1]
    assert TABLE[0, 2] == [1]


def test_table_is_what_integration_by_parts_gives():
    assert wick.polynomials(14).items() <= TABLE.items()
    assert list(TABLE) == [(i, j) for j in range(1, 25) for i in range(j % 2, j + 1, 2)]


@pytest.mark.parametrize("j", [1, 2, 3, 4, 5, 6])
def test_table_is_what_enumerating_pairings_gives(j):
    for i in range(j % 2, j + 1, 2):
        assert wick.enumerated(i, j) == TABLE[i, j]


def test_all_pairings_are_counted():
    double_factorials = np.cumprod([2 * k - 1 for k in range(1, 25)], dtype=object)
    assert {pair: sum(row) for pair, row in TABLE.items()} == {
        (i, j): double_factorials[(i + j) // 2 - 1] for i, j in TABLE
    }


@pytest.mark.parametrize(("steps", "excess"), [(8, 1.09), (12, 1.45), (16, 2.8), (24, 51.0)])
def test_quoted_excess_at_width_64(steps, excess):
    assert math.exp(recurrent.log_moment_ratios(64, steps)[-1]) == pytest.approx(excess, rel=0.02)


def test_unknown_beyond_the_table():
    law = find(Chain(kind="recurrent", activation="linear", width=64, depth=30, gain=1.1, output_gradient="ones"))
    known = np.isfinite(law.log_second_moment)
    assert known.tolist() == [False] * 6 + [True] * 25
    assert law.log_second_moment[-1] == pytest.approx(math.log(64))
    assert law.log_second_moment[-2] == pytest.approx(math.log(64 * 1.21))
    assert np.isnan(law.mean[:-1]).all()
    assert law.mean[-1] == pytest.approx(math.log(64) / 2)


def test_skip_counts_paths_of_different_lengths_too():
    """By hand, n = 5: (a + b V)^2 u = a^2 u + 2 a b V u + b^2 V^2 u has E V = 0, E (u, V^2 u) = 1/n."""
    a, b, n = 0.7, 0.4, 5
    expected = a**4 + 4 * a**2 * b**2 + 2 * a**2 * b**2 / n + b**4 * (1 + 2 / n**2)
    law = find(Chain(kind="recurrent", activation="linear", width=n, depth=2, skip=1.0, carry=a, gain=b))
    assert math.exp(law.log_second_moment[0]) == pytest.approx(expected, rel=1e-12)


def test_skip_without_carry_is_a_gain():
    fields = {"kind": "recurrent", "activation": "linear", "width": 9, "depth": 6}
    plain, skip = find(Chain(gain=0.6, **fields)), find(Chain(gain=1.2, skip=0.5, carry=0.0, **fields))
    np.testing.assert_allclose(plain.log_second_moment, skip.log_second_moment, atol=1e-12)


def test_one_step_is_a_fresh_matrix():
    fields = {"activation": "linear", "width": 9, "depth": 1, "gain": 1.2}
    once, fresh = find(Chain(kind="recurrent", **fields)), find(Chain(**fields))
    assert once.name == "gaussian-linear"
    np.testing.assert_array_equal(once.mean, fresh.mean)


def test_relu_has_its_limit_alone():
    assert find(Chain(kind="recurrent", activation="relu", width=16, depth=4)).validity == "mean field"
