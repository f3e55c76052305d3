"""Laws of activations, weight gradients and Lyapunov exponents against real matrices.

The p-values of this file, fewer than 400, are together held to 1e-4, Bonferroni; seeds are fixed.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import pytest
from scipy import stats

import gradsim
from gradsim.chain import Chain
from gradsim.theory import lyapunov
from gradsim.theory.registry import predict
from tests import brute
from tests.theory.checks import normal

LEVEL = 1e-4 / 400
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


def exponents(chain, chains, seed):
    """By QR by hand, in the order of the columns; shape (chains, probes)."""
    rng = np.random.default_rng(seed)
    frame = np.linalg.qr(rng.standard_normal((chains, chain.widths[-1], chain.probes)))[0]
    logs = np.zeros((chains, chain.probes))
    for m, n in zip(chain.widths[-2::-1], chain.widths[:0:-1], strict=True):
        w = float(chain.gains[0]) * rng.standard_normal((chains, n, m)) / math.sqrt(m)
        frame, r = np.linalg.qr(np.einsum("cij,cik->cjk", w, frame))
        logs += np.log(np.abs(np.einsum("ckk->ck", r)))
    return logs / chain.depth


def smallest_p(sample, mean, var):
    """Of the means and the variances of the exponents."""
    z = (sample.mean(axis=0) - mean) / np.sqrt(np.array(var) / len(sample))
    centred = (sample - mean) ** 2
    spread = (centred.mean(axis=0) - var) / (centred.std(axis=0) / math.sqrt(len(sample)))
    return min(map(normal, [*z, *spread]))


@pytest.mark.parametrize(
    "fields",
    [{"profile": [6, 6, 6, 6]}, {"profile": [7, 4, 5, 9]}, {"width": 2, "depth": 1}, {"width": 5, "depth": 20}],
    ids=str,
)
def test_lyapunov_exponents_are_those_sorted_in_each_chain(fields):
    chain = Chain(activation="linear", gain=1.2, probes=2 if "width" in fields else 3, **fields)
    unsorted = exponents(chain, 20_000, seed=0)
    recorded = -np.sort(-unsorted, axis=1)
    row = rows(chain)["lyapunov"]
    assert row["layer"] is None and row["log_second_moment"] is None and row["validity"] == "exact"
    assert smallest_p(recorded, row["mean"], row["var"]) > LEVEL
    assert smallest_p(unsorted, *lyapunov.in_order(chain)) > LEVEL
    # Neither is the law of the other, nor of another gain.
    assert smallest_p(recorded, *lyapunov.in_order(chain)) < REJECTED
    wrong = rows(chain.replace(gain=1.26))["lyapunov"]
    assert smallest_p(recorded, wrong["mean"], wrong["var"]) < REJECTED


def test_lyapunov_exponents_as_the_kernels_record_them():
    chain = Chain(activation="linear", gain=1.0, width=8, depth=10, probes=8)
    recorded = np.asarray(gradsim.simulate(chain, 20_000, 1).lyapunov, dtype=np.float64)
    row = rows(chain)["lyapunov"]
    assert smallest_p(recorded, row["mean"], row["var"]) > LEVEL
    assert smallest_p(recorded, *lyapunov.in_order(chain)) < REJECTED


def test_sorting_moves_exponents_apart_and_keeps_their_sum():
    chain = Chain(activation="linear", gain=1.0, width=30, depth=40, probes=30)
    (before, _), (after, _) = lyapunov.in_order(chain), lyapunov.descending(chain)
    assert after.sum() == pytest.approx(before.sum(), abs=1e-10)
    assert (np.cumsum(after)[:-1] > np.cumsum(before)[:-1]).all()
    # Where the depth keeps them apart nothing is left to sort.
    deep = chain.replace(depth=10_000, probes=3)
    np.testing.assert_allclose(lyapunov.descending(deep)[0], lyapunov.in_order(deep)[0], atol=1e-6)


def test_two_exponents_of_one_layer_by_quadrature():
    """E max of ln chi_2 and ln chi_1, int x d(F G), from SciPy on a fine grid."""
    chain = Chain(activation="linear", gain=1.0, width=2, depth=1, probes=2)
    x = np.linspace(-60.0, 12.0, 400_001)
    square = np.exp(2.0 * x)
    both = stats.chi2(2).cdf(2.0 * square) * stats.chi2(1).cdf(2.0 * square)
    expected = x[-1] - np.trapezoid(both, x)
    assert lyapunov.descending(chain)[0][0] == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize(
    "fields", [{"width": 2, "depth": 1}, {"width": 3, "depth": 16}, {"width": 8, "depth": 40}], ids=str
)
def test_finer_grids_leave_sorted_exponents_as_they_are(fields, monkeypatch):
    chain = Chain(activation="linear", gain=1.0, probes=fields["width"], **fields)
    spread = np.sqrt(lyapunov.in_order(chain)[1])
    mean, var = lyapunov.descending(chain)
    monkeypatch.setattr(lyapunov, "_POINTS", 32)
    monkeypatch.setattr(lyapunov, "_FEWER_POINTS", 32)
    fine_mean, fine_var = lyapunov.descending(chain)
    np.testing.assert_allclose((mean - fine_mean) / spread, 0.0, atol=1e-9)
    np.testing.assert_allclose(var, fine_var, rtol=1e-9)


@pytest.mark.parametrize(
    ("fields", "unsorted", "allowed"),
    [
        ({"width": 1024, "depth": 5, "probes": 64}, 3.0, (0.1, 0.15)),
        ({"width": 4096, "depth": 10, "probes": 256}, 10.0, (0.1, 0.15)),
        ({"width": 64, "depth": 1, "probes": 64}, 2.0, (0.2, 0.25)),
        ({"profile": [*range(60, 20, -1)], "probes": 20}, 1.2, (0.1, 0.15)),
    ],
    ids=str,
)
def test_many_lyapunov_exponents_are_normal_sums_sorted(fields, unsorted, allowed):
    """Means in standard deviations, and variances: 0.02 and 0.03 are the error of the sample."""
    chain = Chain(activation="linear", gain=1.0, **fields)
    row = rows(chain)["lyapunov"]
    assert row["validity"] == "leading order" and "sorted in each chain; all but" in row["source"]
    rng = np.random.default_rng(2)
    logs = np.zeros((2500, chain.probes))
    for m in chain.widths[:-1]:
        logs += np.log(rng.chisquare(m - np.arange(chain.probes), logs.shape) / m)
    recorded = -np.sort(-logs / (2 * chain.depth), axis=1)
    mean, var = np.array(row["mean"]), np.array(row["var"])
    np.testing.assert_allclose((recorded.mean(axis=0) - mean) / np.sqrt(var), 0.0, atol=allowed[0])
    np.testing.assert_allclose(recorded.var(axis=0) / var, 1.0, atol=allowed[1])
    # The exponents in the order of the columns are another matter.
    assert (lyapunov.in_order(chain)[1] / recorded.var(axis=0)).max() > unsorted


def test_lyapunov_exponents_that_take_too_long_to_sort_have_no_variance():
    chain = Chain(activation="linear", gain=1.0, width=1024, depth=5, probes=1024)
    row = rows(chain)["lyapunov"]
    assert row["validity"] == "leading order" and "unsorted" in row["source"] and row["var"] is None
    np.testing.assert_allclose(row["mean"], lyapunov.in_order(chain)[0])


def test_dropout_has_no_law_of_lyapunov_exponents():
    """What it masks of the frame is no longer orthonormal."""
    assert "lyapunov" not in rows(Chain(activation="linear", width=8, probes=2, dropout=0.2))


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
