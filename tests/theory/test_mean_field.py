"""The mean field of tanh chains."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gradsim.activations import get
from gradsim.chain import Chain
from gradsim.criticality import chi, gaussian_squares
from gradsim.theory.registry import find

TANH = get("tanh")


def test_first_layer_has_no_activation_before_it():
    law = find(Chain(activation="tanh", width=64, depth=2, gain=1.3, bias=0.4, input_scale=2.0))
    first = 1.69 * 4.0 + 0.16
    second = 1.69 * gaussian_squares(TANH, first)[0] + 0.16
    growth = [math.log(chi(TANH, q, 1.3)) for q in (first, second)]
    np.testing.assert_allclose(law.log_second_moment, [sum(growth), growth[1], 0.0], rtol=1e-12)
    np.testing.assert_allclose(law.mean, law.log_second_moment / 2)
    assert law.var is None


def test_input_noise_adds_to_the_bias():
    one = find(Chain(kind="recurrent", activation="tanh", width=64, depth=9, gain=1.3, bias=0.5, input_noise=1.2))
    other = find(Chain(kind="recurrent", activation="tanh", width=64, depth=9, gain=1.3, bias=1.3))
    np.testing.assert_allclose(one.mean, other.mean)


def test_critical_tanh_decays_as_a_power():
    law = find(Chain(activation="tanh", width=64, depth=2000, gain=1.0))
    halves = law.log_second_moment[1000] - law.log_second_moment[2000]
    # ln R over layers 1001..2000 with q_l ~ 1/(2 l) and chi_l ~ 1 - 1/l: a factor of one half.
    assert halves == pytest.approx(math.log(0.5), abs=0.01)
    assert law.rate == 0.0


def test_rate_is_that_of_the_fixed_point():
    law = find(Chain(activation="tanh", width=64, depth=300, gain=2.0))
    assert law.rate == pytest.approx(0.1547, abs=5e-5)
    assert law.mean[0] - law.mean[1] == pytest.approx(math.log(chi(TANH, 4.0, 2.0)) / 2, rel=1e-9)
    assert law.mean[200] - law.mean[201] == pytest.approx(law.rate, rel=1e-9)


def test_tall_orthogonal_matrices_spread_the_norm():
    narrow = find(Chain(activation="tanh", profile=[32, 64], init="orthogonal", gain=1.5))
    assert narrow.mean[0] == pytest.approx(math.log(chi(TANH, 1.125, math.sqrt(1.125))) / 2)
    wide = find(Chain(activation="tanh", profile=[64, 32], init="orthogonal", gain=1.5))
    assert wide.mean[0] == pytest.approx(math.log(chi(TANH, 2.25, 1.5)) / 2)


def test_identity_weights_do_not_mix():
    assert find(Chain(activation="tanh", width=16, depth=3, init="identity")) is None
