"""The measurement of false alarms and power: what it counts, and that it fails where it should."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from bench.false_alarms import (
    BAND,
    CHAINS,
    LINEAR,
    RELU,
    band,
    death_size,
    drawn_from_laws,
    expected_alarms,
    report,
    smallest_p,
)
from gradsim.comparison import compare
from tests.cells import StandIn, draw


def cell(chain, of=None, seed=0, chains=256):
    return StandIn(chain, draw(of or chain, chains, np.random.default_rng(seed)))


def test_a_band_is_left_no_more_often_than_stated():
    for n, p in ((1000, 0.01), (1000, 0.9), (50, 0.1)):
        low, high = band(n, p)
        outside = binom.cdf(low - 1, n, p) + binom.sf(high, n, p)
        assert outside <= BAND
        assert binom.cdf(low, n, p) > BAND / 2 and binom.sf(high - 1, n, p) > BAND / 2


def test_the_smallest_adjusted_p_value_sees_a_wrong_gain_and_a_lost_chain():
    assert smallest_p([cell(LINEAR), cell(RELU, seed=1)]) > 0.01
    assert smallest_p([cell(LINEAR, of=LINEAR.replace(gain=1.05)), cell(RELU, seed=1)]) < 0.01
    logs = draw(LINEAR, 256, np.random.default_rng(0))
    logs[0] = np.nan
    assert smallest_p([StandIn(LINEAR, logs)]) == 0.0, "linear chains do not die"


@pytest.mark.parametrize(
    ("alarms", "found", "right"),
    [(10, 900, True), (0, 900, True), (40, 900, False), (10, 1000, False), (10, 700, False)],
)
def test_the_report_says_which_frequency_is_outside(alarms, found, right):
    hits = [1] * found + [0] * (1000 - found)
    record = {"chains": 256, "smallest_p": [0.001] * alarms + [1.0] * (1000 - alarms), "from_laws": [0.02, 1.0]}
    text, verdict = report(record | {"found": {"linear": hits, "relu": [1] * 900 + [0] * 100}})
    assert verdict is right
    assert ("TOO MANY" in text) is (alarms > 20)
    assert ("OUTSIDE" in text) is (found != 900)
    assert text.count("0.5000 +- 0.3536") == 2, "0.02 is an alarm at 0.05 and 0.1"


def test_the_expected_frequency_is_that_of_so_many_independent_tests():
    tests = [test for cell in compare(drawn_from_laws(0)).cells for test in cell.tests if test.p == test.p]
    continuous = [test for test in tests if test.statistic != "deaths"]
    for alpha in (0.01, 0.1):
        level = alpha / len(tests)
        size = death_size(level, CHAINS, 1 - (1 - 2.0**-16) ** 20)
        assert expected_alarms(alpha) == pytest.approx(1 - (1 - level) ** len(continuous) * (1 - size))
        assert expected_alarms(alpha) < 1 - (1 - level) ** len(tests) < alpha


def test_a_discrete_test_is_smaller_than_its_level():
    """Ten tosses of a coin: 0 and 10 heads have p = 2/1024, 1 and 9 have 22/1024."""
    assert death_size(0.01, 10, 0.5) == pytest.approx(2 / 1024)
    assert death_size(0.03, 10, 0.5) == pytest.approx(22 / 1024)


def test_runs_drawn_from_the_laws_alarm_no_more_often_than_expected():
    """60 runs at alpha = 0.5, 0.37 expected: above 40 with probability 1e-6; a gain 5 % off alarms always."""
    alarms = sum(smallest_p(drawn_from_laws(seed)) <= 0.5 for seed in range(60))
    assert alarms <= 40
    wrong = [StandIn(LINEAR, draw(LINEAR.replace(gain=1.05), CHAINS, np.random.default_rng(seed))) for seed in range(9)]
    assert all(smallest_p([one]) <= 0.5 for one in wrong)
