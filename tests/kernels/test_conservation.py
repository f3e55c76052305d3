"""<g_l, h_l> does not depend on l where there is no bias and phi is homogeneous: it sees a swapped transpose, to
which every law of the norms is blind."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from gradsim import Chain
from gradsim.kernels import reference
from gradsim.theory.registry import find
from tests.kernels import compare, direct
from tests.kernels.compare import EPS

BIAS_FREE = [
    {"activation": "linear", "gain": 1.2},
    {"activation": "relu"},
    {"activation": "leaky_relu", "negative_slope": -0.4},
    {"activation": "relu", "init": "orthogonal"},
    {"activation": "leaky_relu", "init": "uniform"},
    {"activation": "linear", "init": "rademacher", "gain": 0.8},
    {"activation": "relu", "init": "identity", "gain": 1.1},
]


def spread_of_products(h, g):
    """Largest deviation of <g_l, h_l> from <g_L, h_L>, relative to the largest ||g_l|| ||h_l||."""
    products = np.array([a @ b for a, b in zip(g, h, strict=True)])
    sizes = [np.linalg.norm(a) * np.linalg.norm(b) for a, b in zip(g, h, strict=True)]
    return np.abs(products - products[-1]).max() / max(sizes)


@pytest.mark.parametrize("shape", [{"width": 12}, {"kind": "recurrent", "width": 12}, {"profile": [9, 20, 8, 12]}])
@pytest.mark.parametrize("fields", BIAS_FREE, ids=str)
def test_the_reference_conserves_g_dot_h(fields, shape):
    if "profile" in shape and fields.get("init") == "identity":
        shape = {"profile": [12, 12, 12]}
    chain = Chain(**fields, **shape, **({} if "profile" in shape else {"depth": 7}))
    for output_gradient in ("random", "loss"):
        vectors = reference.simulate_chain(chain.replace(output_gradient=output_gradient), 5, 2)
        assert spread_of_products(vectors["h"], vectors["g"]) < 1e-13


@pytest.mark.parametrize("fields", [{"bias": 0.3}, {"activation": "tanh"}], ids=str)
def test_where_it_is_not_conserved(fields):
    """Control: a bias and tanh are seen to break it."""
    vectors = reference.simulate_chain(Chain(width=12, depth=7, **fields), 5, 2)
    assert spread_of_products(vectors["h"], vectors["g"]) > 1e-3


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("law", [*direct.LAWS, "orthogonal", "stored"])
def test_backward_is_the_transpose_of_forward(law, dtype):
    """<W^T d, h> = <d, W h>, both from one key and no matrix."""
    for rows, columns in [(64, 64), (70, 33), (20, 90), (90, 20), (3, 5)]:
        if law == "stored":
            columns = rows
        rng = np.random.default_rng(rows)
        h, d = (rng.standard_normal(n).astype(dtype) for n in (columns, rows))
        z, g = both_products(law, h, d)
        left, right = g.astype(float) @ h, d.astype(float) @ z
        size = np.linalg.norm(g) * np.linalg.norm(h) + np.linalg.norm(d) * np.linalg.norm(z)
        assert abs(left - right) <= 4 * EPS[dtype] * math.sqrt(max(rows, columns)) * size


def both_products(law, h, d):
    """W h and W^T d."""
    stream, rows, columns = direct.key(4), len(d), len(h)
    if law == "stored":
        w = direct.stored(stream, "gaussian", rows, h.dtype)
        return direct.combine(np.ascontiguousarray(w.T), h), direct.combine(np.ascontiguousarray(w), d)
    if law != "orthogonal":
        kernel = direct.forward_narrow if rows < 64 else direct.forward
        return kernel(stream, law, h, rows), direct.backward(stream, law, d, columns)
    if rows >= columns:
        return direct.times_q(stream, h, rows), direct.times_q_transposed(stream, d, columns)
    return direct.times_q_transposed(stream, h, rows), direct.times_q(stream, d, columns)


SQUARE = Chain(activation="linear", width=12, depth=6, gain=1.0)
CONSERVED_TO = 1e-13


@pytest.mark.parametrize("activation", ["linear", "relu", "leaky_relu"])
def test_chains_of_the_drawing_kernels_conserve_g_dot_h(activation):
    chain = Chain(activation=activation, width=12, depth=6)
    h, g = direct.chain_vectors(chain, 1, 0)
    assert spread_of_products(h, g) < CONSERVED_TO
    exact = compare.run(chain, 1, 0)
    np.testing.assert_allclose([np.log(np.linalg.norm(v)) for v in g], exact["log_grad_norm"][0], atol=2e-7)
    np.testing.assert_allclose([np.log(np.linalg.norm(v)) for v in h], exact["log_activation_norm"][0], atol=2e-7)


@pytest.mark.parametrize("activation", ["linear", "relu", "leaky_relu"])
def test_a_swapped_transpose_is_seen_by_conservation(activation):
    chain = Chain(activation=activation, width=12, depth=6)
    assert spread_of_products(*direct.chain_vectors(chain, 1, 0, swapped=True)) > 1e-2


def test_a_swapped_transpose_is_seen_by_the_reference():
    exact = reference.simulate_chain(SQUARE, 1, 0)["log_grad_norm"]
    bound = compare.bounds(SQUARE, 1, 0, "float64")["log_grad_norm"]
    for swapped in (False, True):
        _, g = direct.chain_vectors(SQUARE, 1, 0, swapped)
        error = np.abs([np.log(np.linalg.norm(v)) for v in g] - exact)
        assert (error[:-1] > 1e-3).any() == swapped
        assert (error <= bound).all() == (not swapped)


def test_a_swapped_transpose_is_not_seen_by_the_law_of_the_norm():
    """Why conservation and the reference are needed: mean and variance agree with theory all the same."""
    law = find(SQUARE)
    for swapped in (False, True):
        chains = [direct.chain_vectors(SQUARE, 2, index, swapped)[1][0] for index in range(400)]
        logs = np.log([np.linalg.norm(g) for g in chains])
        n, mean, var = len(logs), law.mean[0], law.var[0]
        z = (logs.mean() - mean) / math.sqrt(var / n)
        z_of_variance = (logs.var() - var) / math.sqrt((law.fourth[0] - var**2) / n)
        assert 4 * 2 * stats.norm.sf(max(abs(z), abs(z_of_variance))) > 1e-4
