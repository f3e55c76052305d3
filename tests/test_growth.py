"""Growth rates: of a straight line its slope, of anything less than finite means nothing."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from gradsim.growth import growth_rate


def cell(means):
    return SimpleNamespace(quantities=("log_grad_norm",), summary={"log_grad_norm_mean": np.asarray(means)})


@pytest.mark.parametrize("layers", [2, 3, 51])
def test_growth_going_backward_is_minus_the_slope(layers):
    assert growth_rate(cell(3.0 - 0.25 * np.arange(layers))) == pytest.approx(0.25)
    assert growth_rate(cell(np.zeros(layers))) == 0.0


def test_a_layer_without_a_finite_mean_has_no_rate():
    assert math.isnan(growth_rate(cell([np.nan, -1.0, 0.0])))


def test_without_the_quantity_there_is_none():
    assert math.isnan(growth_rate(SimpleNamespace(quantities=("log_grad_max",), summary={})))
