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

TABLE = [
    [int(value) for value in line.split()]
    for line in Path(recurrent.__file__).with_name("recurrent_moments.txt").read_text().splitlines()
    if not line.startswith("#")
]


def test_quoted_polynomials():
    assert TABLE[1] == [2, 0, 1]
    assert TABLE[2] == [4, 10, 0, 1]
    assert TABLE[3] == [48, 28, 28, 0, 1]


def test_table_is_what_integration_by_parts_gives():
    assert wick.polynomials(14) == TABLE[:14]


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 6])
def test_table_is_what_enumerating_pairings_gives(k):
    assert wick.enumerated(k) == TABLE[k - 1]


def test_all_pairings_are_counted():
    double_factorials = np.cumprod([2 * k - 1 for k in range(1, 25)], dtype=object)
    assert [sum(row) for row in TABLE] == list(double_factorials)


@pytest.mark.parametrize(("steps", "excess"), [(8, 1.09), (12, 1.45), (16, 2.8), (24, 51.0)])
def test_quoted_excess_at_width_64(steps, excess):
    assert math.exp(recurrent.log_moment_ratio(64, steps)) == pytest.approx(excess, rel=0.02)


def test_unknown_beyond_the_table():
    law = find(Chain(kind="recurrent", activation="linear", width=64, depth=30, gain=1.1, output_gradient="ones"))
    known = np.isfinite(law.log_second_moment)
    assert known.tolist() == [False] * 6 + [True] * 25
    assert law.log_second_moment[-1] == pytest.approx(math.log(64))
    assert law.log_second_moment[-2] == pytest.approx(math.log(64 * 1.21))
    assert np.isnan(law.mean[:-1]).all()
    assert law.mean[-1] == pytest.approx(math.log(64) / 2)


def test_one_step_is_a_fresh_matrix():
    fields = {"activation": "linear", "width": 9, "depth": 1, "gain": 1.2}
    once, fresh = find(Chain(kind="recurrent", **fields)), find(Chain(**fields))
    assert once.name == "gaussian-linear"
    np.testing.assert_array_equal(once.mean, fresh.mean)


def test_relu_has_its_limit_alone():
    assert find(Chain(kind="recurrent", activation="relu", width=16, depth=4)).validity == "mean field"
