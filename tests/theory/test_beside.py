"""Laws of activations, weight gradients and Lyapunov exponents against real matrices.

The p-values of this file, fewer than 300, are together held to 1e-4, Bonferroni; seeds are fixed.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import pytest
from scipy import stats

from gradsim.chain import Chain
from gradsim.theory.registry import predict
from tests import brute
from tests.theory.checks import normal

LEVEL = 1e-4 / 300
REJECTED = 1e-12
LEAKY = {"activation": "leaky_relu", "negative_slope": 0.3}

# Fields, and changes that the same sample must reject.
CASES = [
    ({"activation": "linear", "width": 6, "depth": 4, "gain": 1.1, "input_scale": 1.5}, {"gain": 1.14}),
    ({"profile": [5, 9, 3, 7]}, {"gain": 1.48}),
    ({**LEAKY, "profile": [5, 9, 3, 7]}, {"negative_slope": 0.4}),
    ({"profile": [5, 9, 3, 7], "init": "orthogonal"}, {"init": "gaussian"}),
    ({"activation": "linear", "profile": [5, 9, 3, 7], "init": "orthogonal"}, {"init": "gaussian"}),
    ({"width": 6, "depth": 3, "dropout": 0.2}, {"dropout": 0.1}),
    ({"activation": "linear", "width": 5, "depth": 3, "dropout": 0.2, "gain": 1.0}, {"dropout": 0.1}),
]
QUANTITIES = ["log_activation_norm", "log_weight_grad_norm"]


@lru_cache(maxsize=1)
def sample(index):
    return brute.norms(Chain(**CASES[index][0]), 20_000, seed=3)


def rows(chain):
    return {row["quantity"]: row for row in predict(chain).to_dict()["predictions"]}


def p_values(logs, row):
    """Of the mean and, from the sample's own fourth moment, of the variance at every layer; of deaths at one."""
    result = []
    for at, (mean, var) in enumerate(zip(row["mean"], row["var"], strict=True)):
        alive = logs[np.isfinite(logs[:, at]), at]
        result.append(normal((alive.mean() - mean) / math.sqrt(alive.var() / len(alive))) if var else 1.0)
        centred = (alive - mean) ** 2
        result.append(normal((centred.mean() - var) / (centred.std() / math.sqrt(len(alive)))) if var else 1.0)
    dead = int(np.isneginf(logs[:, -1]).sum())
    return [*result, stats.binomtest(dead, len(logs), row["p_dead"]).pvalue]


@pytest.mark.parametrize("quantity", QUANTITIES)
@pytest.mark.parametrize("index", range(len(CASES)), ids=lambda i: str(CASES[i][0]))
def test_law_passes_and_a_wrong_one_is_rejected(index, quantity):
    fields, wrong = CASES[index]
    logs = sample(index)[quantity]
    row = rows(Chain(**fields))[quantity]
    assert row["validity"] == "exact"
    assert len(row["layer"]) == len(row["mean"]) == logs.shape[1]
    assert min(p_values(logs, row)) > LEVEL
    assert min(p_values(logs, rows(Chain(**{**fields, **wrong}))[quantity])) < REJECTED


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_second_moments(quantity):
    chain = Chain(width=12, depth=3)
    logs, row = brute.norms(chain, 100_000, seed=4)[quantity], rows(chain)[quantity]
    squared = np.exp(2 * logs - row["log_second_moment"])
    z = (squared.mean(axis=0) - 1) / (squared.std(axis=0) / math.sqrt(len(squared)))
    assert np.abs(z).max() < 5
    assert np.abs(squared.mean(axis=0) * 1.1 - 1).min() > 5 * (squared.std(axis=0) / math.sqrt(len(squared))).max()


def test_square_weight_gradients_have_one_law_whatever_the_layer():
    row = rows(Chain(width=20, depth=9))["log_weight_grad_norm"]
    np.testing.assert_allclose(row["mean"], row["mean"][0])
    np.testing.assert_allclose(row["var"], row["var"][0])


@pytest.mark.parametrize("profile", [[6, 6, 6, 6], [7, 4, 5, 9]])
def test_lyapunov_exponents(profile):
    """QR by hand, in its own order."""
    chain = Chain(activation="linear", profile=profile, gain=1.2, probes=3)
    rng = np.random.default_rng(0)
    frame = np.linalg.qr(rng.standard_normal((20_000, profile[-1], 3)))[0]
    logs = np.zeros((20_000, 3))
    for m, n in zip(profile[-2::-1], profile[:0:-1], strict=True):
        w = 1.2 * rng.standard_normal((20_000, n, m)) / math.sqrt(m)
        frame, r = np.linalg.qr(np.einsum("cij,cik->cjk", w, frame))
        logs += np.log(np.abs(np.einsum("ckk->ck", r)))
    exponents = logs / chain.depth
    row = rows(chain)["lyapunov"]
    assert row["layer"] is None and row["log_second_moment"] is None

    def smallest(row):
        mean, var = np.array(row["mean"]), np.array(row["var"])
        z = (exponents.mean(axis=0) - mean) / np.sqrt(var / len(exponents))
        centred = (exponents - mean) ** 2
        spread = (centred.mean(axis=0) - var) / (centred.std(axis=0) / math.sqrt(len(exponents)))
        return min(map(normal, [*z, *spread]))

    assert smallest(row) > LEVEL
    assert smallest(rows(chain.replace(gain=1.23))["lyapunov"]) < REJECTED


@pytest.mark.parametrize("n", [1, 2, 5])
def test_spectral_radius_of_complex_matrices(n):
    """Kostlan's law is one of complex matrices; the radius of real ones is smaller, which the row says."""
    rng = np.random.default_rng(1)
    shape = (40_000, n, n)

    def logs(matrices):
        return np.log(np.abs(np.linalg.eigvals(0.8 * matrices / math.sqrt(n))).max(axis=1))

    found = logs((rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / math.sqrt(2))
    real = logs(rng.standard_normal(shape))
    row = rows(Chain(kind="recurrent", activation="linear", width=n, depth=2, gain=0.8))["log_spectral_radius"]
    assert normal((found.mean() - row["rate"]) / (found.std() / 200)) > LEVEL
    assert row["validity"] == "leading order"
    assert normal((real.mean() - row["rate"]) / (real.std() / 200)) < REJECTED
    assert real.mean() < row["rate"]


@pytest.mark.parametrize(
    "fields",
    [
        {"bias": 0.1},
        {"activation": "tanh"},
        {"batch": 2},
        {"skip": 1.0},
        {"norm": "rms"},
        {"init": "uniform"},
        {"kind": "recurrent"},
        {**LEAKY, "dropout": 0.1},
        {"gain": 0.0},
    ],
    ids=str,
)
def test_nothing_is_said_beside_chains_without_such_laws(fields):
    assert rows(Chain(**{"width": 8, "depth": 3, **fields})).keys() <= {"log_grad_norm"}


@pytest.mark.parametrize("fields", [{"clip": 1.0}, {"clip_value": 1.0}, {"output_gradient": "loss"}], ids=str)
def test_the_forward_pass_does_not_see_the_gradient(fields):
    plain, changed = rows(Chain(width=8, depth=3)), rows(Chain(width=8, depth=3, **fields))
    assert changed["log_activation_norm"] == plain["log_activation_norm"]
    assert "log_weight_grad_norm" not in changed
