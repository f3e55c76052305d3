"""Every law of infinite width against real matrices, and a wrong law that the same sample rejects.

Such a law is off by its stated order, L/n (L^2/n with tied weights): ln E||g_0||^2 is held to one of it, the mean of
ln||g_0||^2 to lie at most three below, both beside 5 standard errors (one failure in 10^6 a check). A control lies
outside.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import pytest

import gradsim
from gradsim.chain import Chain
from gradsim.theory.law import MEAN_FIELD
from gradsim.theory.layer_map import log_growth
from gradsim.theory.registry import LAWS, LIMITS, find
from tests import brute, gated_brute, limit_brute
from tests.theory.limit_cases import CASES, PLAIN, SKIP


@lru_cache(maxsize=1)
def sample(index):
    case = CASES[index]
    chain = Chain(**case.chain)
    if (chain.init != "gaussian" and not chain.skip) or chain.input_noise:
        return brute.simulate(chain, case.chains, case.seed)
    return limit_brute.simulate(chain, case.chains, case.seed)


def distances(logs, law, order):
    """How far ln E||g_0||^2 and the mean of ln||g_0||^2 lie outside of what the law allows; 0 inside."""
    squared = np.exp(2.0 * logs[:, 0] - law.log_second_moment[0])
    error = 5.0 * squared.std() / math.sqrt(len(squared)) / squared.mean()
    noise = 10.0 * logs[:, 0].std() / math.sqrt(len(logs))
    below = 2.0 * (law.mean[0] - logs[:, 0].mean())
    return max(abs(math.log(squared.mean())) - error - order, 0.0), max(
        -noise - below, below - noise - 3.0 * order, 0.0
    )


@pytest.mark.parametrize("index", range(len(CASES)), ids=lambda i: str(CASES[i]))
def test_law_passes_and_a_wrong_one_is_rejected(index):
    case = CASES[index]
    law = find(Chain(**case.chain))
    assert (law.name, law.validity) == (case.law, MEAN_FIELD)
    assert distances(sample(index), law, case.order) == (0.0, 0.0)
    other = find(Chain(**case.chain).replace(**case.wrong))
    assert max(distances(sample(index), other, case.order)) > 0.0


def test_limits_exclude_each_other():
    for case in CASES:
        chain = Chain(**case.chain)
        assert [name for name, of in (LAWS | LIMITS).items() if of(chain) is not None] == [case.law]


@pytest.mark.parametrize("layer", [5, 15, 25])
def test_overlaps_take_over_in_a_residual_relu_chain(layer):
    """Without them ln E||g||^2 would grow by ln 2 per layer: rejected by the sample, which passes with them at L/n."""
    chain = Chain(**{**SKIP, "width": 128})
    logs = residual_sample()
    law = find(chain)
    squared = np.exp(2.0 * logs[:, layer] - law.log_second_moment[layer])
    error = 5.0 * squared.std() / math.sqrt(len(squared)) / squared.mean()
    assert abs(math.log(squared.mean())) < error + (chain.depth - layer) / 128
    without = (chain.depth - layer) * math.log(2.0)
    if layer < 10:
        assert math.log(np.exp(2.0 * logs[:, layer]).mean()) - without > 2.0 * (error + chain.depth / 128)


@lru_cache(maxsize=1)
def residual_sample():
    return limit_brute.simulate(Chain(**{**SKIP, "width": 128}), 80, 5)


@pytest.mark.parametrize("fields", [{}, {"activation": "gelu"}, {"bias": 1.0}], ids=str)
def test_residual_chains_to_first_order_in_the_width(fields):
    """ln E||g_0||^2 at n = 32, L = 8 to second order, (L/n)^2 = 0.06, beside 5 standard errors of 0.01.

    The limit without overlaps is off by far more, and so is the law of a width twice as large.
    """
    chain = Chain(**{"width": 32, "depth": 8, "skip": 1.0, **fields})
    squared = np.exp(2.0 * limit_brute.simulate(chain, 6000, 11)[:, 0])
    error = 5.0 * squared.std() / math.sqrt(len(squared)) / squared.mean()
    found = math.log(squared.mean())
    assert abs(found - find(chain).log_second_moment[0]) < error + (8 / 32) ** 2
    assert abs(found - find(chain.replace(width=64)).log_second_moment[0]) > error + (8 / 32) ** 2
    assert abs(found - log_growth(chain)[0].sum()) > 2.0 * (error + (8 / 32) ** 2)


@pytest.mark.parametrize("fields", [{}, {"activation": "leaky_relu"}, {"init": "orthogonal"}, {"bias": 1.0}], ids=str)
def test_a_branch_alone_is_a_plain_chain(fields):
    """carry 0: E||g_0||^2 is known exactly, and what differs from it is of second order in 1/n."""
    gaps = []
    for width in (64, 256):
        plain = Chain(width=width, depth=20, **fields)
        gaps.append(find(plain.replace(skip=1.0, carry=0.0)).log_second_moment[0] - find(plain).log_second_moment[0])
    assert abs(gaps[0]) < (20 / 64) ** 2
    assert gaps[0] / gaps[1] == pytest.approx(16.0, rel=0.25)


@pytest.mark.parametrize(
    "fields", [{}, {"activation": "gelu"}, {"skip": 0.5, "carry": 0.7, "bias": 1.0}, {"bias": 1.0}], ids=str
)
def test_deep_residual_chains_grow_at_their_rate(fields):
    """Over 3000 layers, where h leaves float64: the same per layer as the rate says, and as ten layers do."""
    law = find(Chain(**{"width": 64, "depth": 3000, "skip": 1.0, **fields}))
    growth = (law.log_second_moment[:-1] - law.log_second_moment[1:])[500:1500]
    np.testing.assert_allclose(growth, 2.0 * law.rate, atol=1e-9)
    short = find(Chain(**{"width": 64, "depth": 400, "skip": 1.0, **fields}))
    np.testing.assert_allclose(short.log_second_moment[0] - short.log_second_moment[100],
                               law.log_second_moment[0] - law.log_second_moment[100], rtol=1e-9)  # fmt: skip


def test_rates_of_residual_relu_chains():
    """g_l has the overlap <g_l, h_l>, conserved: ||g||^2 grows like ||h||^2, by G = 1 + a2/2 + 2 alpha c k."""
    for alpha, s2 in ((1.0, 2.0), (0.3, 1.0), (2.0, 0.5)):
        k = math.sqrt(s2 / (2.0 * math.pi))
        c = 0.0
        for _ in range(2000):
            growth = 1.0 + alpha**2 * s2 / 2.0 + 2.0 * alpha * c * k
            c = (c + alpha * k) / math.sqrt(growth)
        chain = Chain(width=64, depth=4, skip=alpha, gain=math.sqrt(s2))
        assert find(chain).rate == pytest.approx(math.log(growth) / 2.0, rel=1e-9)
        assert growth > 1.01 * (1.0 + alpha**2 * s2 / 2.0)


@pytest.mark.parametrize(
    ("fields", "rate"),
    [
        # A contraction of h leaves a fixed point; without one h grows without bound, and bounded phi saturate.
        ({"activation": "tanh", "skip": 1.0}, 0.0),
        ({"activation": "sigmoid", "skip": 1.0, "carry": 1.2}, math.log(1.2)),
        ({"norm": "layer", "norm_position": "pre", "skip": 1.0}, 0.0),
        ({"activation": "linear", "skip": 1.0, "gain": 1.0, "dropout": 0.5}, math.log(3.0) / 2.0),
        ({"norm": "rms", "norm_position": "after"}, 0.0),
        ({"norm": "layer"}, 0.0),
        ({"norm": "layer", "norm_position": "after"}, math.log(math.pi / (math.pi - 1.0)) / 2.0),
        ({"activation": "sigmoid", "norm": "layer"}, math.log(0.15282701171559387) / 2.0),
        ({"kind": "recurrent"}, 0.0),
        ({"activation": "gelu"}, math.log(0.5) / 2.0),
        ({"activation": "gelu", "gain": 1.5, "input_scale": 0.5}, math.log(2.25 / 4.0) / 2.0),
        ({"activation": "gelu", "gain": 1.5}, math.log(1.125) / 2.0),
        ({"norm": "batch", "batch": 8}, math.log(1.788190) / 2.0),
        ({"activation": "linear", "norm": "batch", "batch": 8}, math.log(6.0 / 5.0) / 2.0),
    ],
    ids=str,
)
def test_rates(fields, rate):
    assert find(Chain(**{"width": 64, "depth": 7, **fields})).rate == pytest.approx(rate, abs=2e-7)


def test_batch_norm_of_many_inputs_depends_on_the_activation_alone():
    """B to infinity: E phi'^2/Var phi at unit variance; from there finite B is off by O(1/B)."""
    from gradsim import activations
    from gradsim.gaussian import moments

    for name in ("tanh", "gelu", "relu"):
        expected = moments(activations.get(name), 1.0)
        limit = math.log(expected.slope / expected.variance) / 2.0
        gaps = [
            find(Chain(activation=name, gain=1.0, width=64, depth=5, norm="batch", batch=b)).rate - limit
            for b in (1000, 10_000)
        ]
        assert gaps[0] / gaps[1] == pytest.approx(10.0, rel=0.02)


@pytest.mark.parametrize(
    "fields",
    [
        {"norm": "batch", "batch": 3},
        {"norm": "batch", "norm_position": "after"},
        {"norm": "batch", "norm_eps": 1e-3},
        {"norm": "batch", "kind": "recurrent"},
        {"norm": "batch", "skip": 1.0},
        {"output_gradient": "ones", "activation": "gelu"},
        {"output_gradient": "loss", "activation": "tanh"},
        {"output_gradient": "ones", "norm": "rms", "activation": "tanh", "norm_position": "before"},
        {"activation": "tanh", "init": "identity"},
        {"skip": 1.0, "kind": "recurrent"},
        {"skip": 1.0, "batch": 2},
        {"kind": "lstm", "gain": 2.1},
        {"kind": "lstm", "gain": 1.0, "forget_bias": 2.0},
        {"kind": "gru", "gain": 1.0, "bias": 0.1},
        {"kind": "gru", "gain": 1.0, "init": "identity"},
        {"kind": "gru"},
    ],
    ids=str,
)
def test_chains_without_a_law(fields):
    assert find(Chain(**{"width": 32, "depth": 3, **fields})) is None


@pytest.mark.parametrize(("kind", "forget_bias", "gain"), [("gru", 0.0, 1.0), ("lstm", 0.0, 1.2), ("lstm", 1.0, 0.6)])
def test_gated_chains_near_zero(kind, forget_bias, gain):
    """ln||g|| falls as k ln(f + gain/4) - (1/4) ln k over k steps, k well below sqrt(n), errors of order 1/n.

    Between 12 and 30 steps from the top the slope is held to 0.02; a gain off by 0.2 moves it by 0.06.
    """
    logs = gated_brute.simulate(kind, 200, 45, gain, forget_bias, 16, seed=3).mean(axis=0)
    slope = (logs[15] - logs[33]) / 18.0 + math.log(30.0 / 12.0) / 4.0 / 18.0

    def rate(gain):
        fields = {"forget_bias": forget_bias} if kind == "lstm" else {}
        law = find(Chain(kind=kind, width=200, depth=45, gain=gain, **fields))
        assert law.name == "gated-near-zero"
        assert np.isnan(law.mean[:-1]).all()
        return law.rate

    assert abs(slope - rate(gain)) < 0.02
    assert abs(slope - rate(gain + 0.2)) > 0.02


def test_profiles_have_a_mean_field_and_no_rate():
    law = find(Chain(activation="gelu", profile=[32, 64, 16]))
    assert math.isnan(law.rate)
    assert np.isfinite(law.mean).all()


@pytest.mark.parametrize("norm", ["layer", "rms"])
def test_an_input_of_one_unit_whose_size_is_normalised_away_has_no_gradient(norm):
    chain = Chain(activation="linear", profile=[1, 8, 8], norm=norm, gain=1.0)
    law = find(chain)
    assert math.isnan(law.mean[0]) and law.log_second_moment[0] == -math.inf and law.p_dead[0] == 1.0
    assert np.isneginf(gradsim.simulate(chain, 64).log_grad_norm[:, 0]).all()
    assert law.mean[1:].tolist() == [0.0, 0.0]
    (cell,) = gradsim.compare(gradsim.simulate(chain, 64)).to_dict()["cells"]
    assert (cell["p_dead"], cell["alive"]) == (1.0, 0)
    # A bias lets the size be seen.
    assert math.isfinite(find(chain.replace(bias=0.2)).mean[0])


def test_first_layer_of_batch_norm_sees_the_input():
    small, large = (find(Chain(**PLAIN, norm="batch", input_scale=x)) for x in (1.0, 10.0))
    assert small.mean[0] - large.mean[0] == pytest.approx(math.log(10.0))
    assert small.mean[1] == large.mean[1]
