"""The measurement of false alarms and power: what it counts, and that it fails where it should."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from bench.false_alarms import BAND, LINEAR, RELU, band, report, smallest_p
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
    record = {"chains": 256, "smallest_p": [0.001] * alarms + [1.0] * (1000 - alarms)}
    text, verdict = report(record | {"found": {"linear": hits, "relu": [1] * 900 + [0] * 100}})
    assert verdict is right
    assert ("TOO MANY" in text) is (alarms > 20)
    assert ("OUTSIDE" in text) is (found != 900)
