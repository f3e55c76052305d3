"""The deferred engine against what is known exactly: the conserved <g_l, h_l>, and the laws of ln||g|| at any width.

All p-values of this file together, fewer than 100, would reject a perfect engine with probability at most 1e-4 over the
choice of seeds (Bonferroni). A gain off by a stated amount is rejected.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from scipy import stats

from gradsim import Chain
from gradsim.kernels.cpu import Engine
from gradsim.theory.registry import find
from tests.kernels import stepping
from tests.kernels.test_conservation import spread_of_products
from tests.theory.checks import normal

LEVEL = 1e-4 / 100
HOMOGENEOUS = [
    {"activation": "linear", "gain": 1.2},
    {"activation": "relu"},
    {"activation": "leaky_relu", "negative_slope": -0.4},
]
SHAPES = [{"width": 40}, {"kind": "recurrent", "width": 40}, {"profile": [9, 50, 8, 33]}]


@pytest.mark.parametrize("init", ["gaussian", "orthogonal"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("fields", HOMOGENEOUS, ids=str)
def test_g_dot_h_is_conserved(fields, shape, init):
    """To rounding, at random and at g_L = h_L; float32 to its own."""
    for output_gradient in ("random", "loss"):
        chain = Chain(**fields, **shape, **({} if "profile" in shape else {"depth": 12}), init=init)
        chain = chain.replace(output_gradient=output_gradient)
        for dtype, most in (("float64", 1e-13), ("float32", 2e-5)):
            assert spread_of_products(*stepping.vectors(chain, 5, 2, dtype)) < most


@pytest.mark.parametrize("init", ["gaussian", "orthogonal"])
@pytest.mark.parametrize("batch", [3, 64])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_batch_conserves_every_product_of_two_columns(shape, batch, init):
    """Of a linear chain, <g_l of one input, h_l of another>; with more inputs than units too."""
    chain = Chain(activation="linear", **shape, **({} if "profile" in shape else {"depth": 6}), batch=batch, init=init)
    for dtype, most in (("float64", 1e-13), ("float32", 2e-5)):
        h, g = stepping.vectors(chain, 5, 2, dtype)
        products = np.array([a.T @ b for a, b in zip(g, h, strict=True)])
        sizes = max(np.linalg.norm(a) * np.linalg.norm(b) for a, b in zip(g, h, strict=True))
        assert np.abs(products - products[-1]).max() < most * sizes


@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[2]], ids=str)
@pytest.mark.parametrize("fields", HOMOGENEOUS, ids=str)
def test_directions_conserve_it_too(fields, shape):
    chain = Chain(**fields, **shape, **({} if "profile" in shape else {"depth": 12}))
    for dtype, most in (("float64", 1e-13), ("float32", 2e-5)):
        assert spread_of_products(*stepping.direction_vectors(chain, 5, 2, dtype)) < most
    general, own = (of(chain, 5, 2) for of in (stepping.vectors, stepping.direction_vectors))
    for mine, theirs in zip(own, general, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-12 * np.linalg.norm(b))


@pytest.mark.parametrize("fields", [{"bias": 0.3}, {"activation": "tanh"}], ids=str)
def test_a_bias_and_tanh_break_it(fields):
    assert spread_of_products(*stepping.vectors(Chain(width=40, depth=12, **fields), 5, 2)) > 1e-3


# Law, fields, chains; and by how much the gain must be off to be rejected with certainty.
LINEAR, LEAKY = {"activation": "linear"}, {"activation": "leaky_relu", "negative_slope": 0.3}
CASES = [
    ("gaussian-relu", {"width": 16, "depth": 20}, 20_000, 1.02),
    ("gaussian-relu", {"width": 256, "depth": 50}, 3000, 1.01),
    ("gaussian-relu", {"width": 4096, "depth": 20}, 400, 1.01),
    ("gaussian-relu", {"width": 65_536, "depth": 4}, 300, 1.005),
    ("gaussian-relu", {"width": 256, "depth": 50, "bias": 0.5}, 1500, 1.01),
    ("gaussian-relu", {"width": 65_536, "depth": 3, "bias": 0.5}, 100, 1.005),
    ("gaussian-linear", {**LINEAR, "width": 16, "depth": 25, "gain": 1.0}, 20_000, 1.01),
    ("gaussian-linear", {**LINEAR, "width": 4096, "depth": 20, "gain": 1.0, "bias": 0.1}, 200, 1.01),
    ("gaussian-linear", {**LINEAR, "width": 65_536, "depth": 4, "gain": 1.0}, 300, 1.005),
    ("gaussian-leaky", {**LEAKY, "width": 256, "depth": 30}, 2000, 1.01),
    ("orthogonal-relu", {"width": 16, "depth": 20, "init": "orthogonal"}, 10_000, 1.02),
    ("orthogonal-relu", {"width": 4096, "depth": 20, "init": "orthogonal"}, 200, 1.01),
    ("orthogonal-relu", {"width": 65_536, "depth": 3, "init": "orthogonal"}, 100, 1.005),
    ("orthogonal-linear", {**LINEAR, "profile": [6, 13, 8, 17, 5], "gain": 1.0, "init": "orthogonal"}, 20_000, 1.02),
    ("dropout-relu", {"width": 4096, "depth": 10, "dropout": 0.2}, 200, 1.01),
]
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]} {case[1]}")


@lru_cache
def _logs(index):
    _, fields, chains, _ = CASES[index]
    engine = Engine(Chain(**fields), 20, "float32", ("log_grad_norm",), method="deferred")
    return engine.run(0, chains)["log_grad_norm"].astype(float)


def p_values(logs, law):
    """Of the mean, the variance and the deaths at layer 0."""
    alive = logs[np.isfinite(logs[:, 0]), 0]
    mean, var = law.mean[0], law.var[0]
    return {
        "deaths": stats.binomtest(len(logs) - len(alive), len(logs), float(law.p_dead[0])).pvalue,
        "mean": normal((alive.mean() - mean) / np.sqrt(var / len(alive))),
        "variance": normal((alive.var(ddof=1) - var) / np.sqrt((law.fourth[0] - var**2) / len(alive))),
    }


@every_case
def test_chains_follow_their_law(case):
    name, fields, _, factor = case
    chain = Chain(**fields)
    law = find(chain)
    assert law.name == name
    logs = _logs(CASES.index(case))
    assert not np.isnan(logs).any()
    found = p_values(logs, law)
    assert min(found.values()) > LEVEL, found
    wrong = find(chain.replace(gain=float(chain.gains[0]) * factor))
    assert p_values(logs, wrong)["mean"] < 1e-8
