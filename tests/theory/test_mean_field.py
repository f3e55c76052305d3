"""The mean field of tanh chains."""

from __future__ import annotations

import math

import numpy as np
import pytest

import gradsim
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


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "recurrent", "gain": 1.4},
        {"batch": 4},
        {"norm": "layer", "norm_position": "after"},
        {"norm": "batch", "batch": 8},
        {"activation": "tanh", "norm": "layer"},
        {"activation": "linear", "norm": "batch", "batch": 8},
        {"activation": "tanh", "dropout": 0.3},
        {"activation": "tanh", "init": "rademacher"},
        {"skip": 0.5, "carry": 0.0},
        {"kind": "gru", "gain": 1.0},
    ],
    ids=str,
)
def test_infinite_width_does_not_say_how_many_chains_die(fields):
    chain = Chain(**{"width": 4, "depth": 6} | fields)
    prediction = gradsim.predict(chain)
    assert prediction.validity == "mean field"
    assert np.isnan(prediction.p_dead[:-1]).all() and prediction.p_dead[-1] == 0.0
    document = prediction.to_dict()["predictions"][0]
    assert document["p_dead"] is None
    assert "p_dead" not in repr(prediction)
    (cell,) = gradsim.compare(gradsim.simulate(chain, 64)).to_dict()["cells"]
    assert cell["p_dead"] is None
    (deaths,) = (test for test in cell["tests"] if test["statistic"] == "deaths")
    assert deaths["theory"] is deaths["verdict"] is None
    assert deaths["empirical"] == 1 - cell["alive"] / 64


@pytest.mark.parametrize(
    "fields",
    [
        {"activation": "tanh"},
        {"activation": "gelu", "batch": 4},
        {"skip": 0.5},
        {"activation": "tanh", "init": "orthogonal"},
        {"skip": 0.5, "init": "orthogonal"},
    ],
    ids=str,
)
def test_chains_that_no_layer_can_kill_do_not_die(fields):
    chain = Chain(**{"width": 2, "depth": 6} | fields)
    law = find(chain)
    assert law.validity == "mean field" and not law.p_dead.any()
    assert np.isfinite(gradsim.simulate(chain, 4000).log_grad_norm[:, 0]).all()


def test_orthogonal_weights_of_one_unit_are_signs():
    """With carry they can cancel, so that nothing is said of width 1; and nothing of a profile that passes it."""
    assert not find(Chain(activation="tanh", init="orthogonal", profile=[4, 2, 4])).p_dead.any()
    assert np.isnan(find(Chain(activation="tanh", init="orthogonal", profile=[4, 1, 4])).p_dead[:-1]).all()
    assert np.isnan(find(Chain(width=1, depth=3, skip=1.0, gain=1.0, init="orthogonal")).p_dead[:-1]).all()


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
