"""Streams that must have nothing in common: of neighbouring chains, layers, columns, rows and purposes.

Fixed seeds; of perfect streams each sample would be rejected with probability at most ERROR over their choice, all its
p-values taken together (Bonferroni). The controls reuse an index, as a wrong key would: the same check must catch them.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from gradsim.chain import Chain
from gradsim.kernels import keys
from gradsim.kernels.cpu import Engine
from tests.kernels import compiled
from tests.kernels.golden import PURPOSES

ERROR = 1e-6
CELL = keys.cell_key(0, "{}")
COUNT, WIDTH = 2000, 40
LAGS = (1, 2, 3, 4)


def correlations(x):
    """p-values of correlations of each row with the next few; x is (rows, entries), of variance 1.

    Under independence the mean over all pairs of products of entries, or of their squares less 1 over sqrt 2, is normal
    with the variance of one product over their number; entries are compared in place, and with the row reversed.
    """
    found = {}
    for lag in LAGS:
        a, b = x[:-lag], x[lag:]
        for name, left, right in (
            ("product", a, b),
            ("product of squares", (a**2 - 1) / np.sqrt(2), (b**2 - 1) / np.sqrt(2)),
            ("product, one reversed", a, b[:, ::-1]),
        ):
            found[f"{name}, lag {lag}"] = 2 * stats.norm.sf(abs(np.sum(left * right)) / np.sqrt(a.size))
    return found


def check_independent(rows):
    """Fail if rows of standard normals are not independent of the rows near them."""
    found = correlations(np.asarray(rows, float))
    assert min(found.values()) > ERROR / len(found), {name: p for name, p in found.items() if p < 1e-3}


def vectors(chains, layers, purposes):
    """The first vector of each of these streams: h_0, g_L before it is normalised, a bias, a column of W."""
    return np.stack([compiled.column(key, 0, WIDTH) for key in compiled.layer_keys(CELL, chains, layers, purposes)])


def check_neighbouring_chains(index):
    """What chains 0, 1, 2 ... draw, the stream of chain c being that of index(c)."""
    chains = index(np.arange(COUNT))
    for name, layer in (("INPUT", 0), ("OUTPUT", 100), ("WEIGHT", 1), ("BIAS", 1), ("NOISE", 1), ("DROPOUT", 1)):
        check_independent(vectors(chains, layer, PURPOSES[name]))


def check_neighbouring_layers(index):
    """What layers 1, 2 ... of one chain draw."""
    layers = index(np.arange(1, COUNT + 1))
    for name in ("WEIGHT", "BIAS", "NOISE", "DROPOUT"):
        check_independent(vectors(7, layers, PURPOSES[name]))


def check_purposes(index):
    """What one layer draws for its purposes, one after the other, chain after chain."""
    purposes = index(np.tile(np.arange(len(PURPOSES)), COUNT // len(PURPOSES)))
    check_independent(vectors(np.arange(len(purposes)) // len(PURPOSES), 1, purposes))


def check_weight_matrix(index):
    """Columns and rows of one large matrix."""
    key = compiled.layer_keys(CELL, 3, 5, keys.WEIGHT)
    weights = np.stack([compiled.column(key, int(j), 4 * WIDTH) for j in index(np.arange(COUNT))], axis=1)
    check_independent(weights.T)
    check_independent(weights)


CHECKS = [check_neighbouring_chains, check_neighbouring_layers, check_purposes, check_weight_matrix]


@pytest.mark.parametrize("check", CHECKS)
def test_streams_are_independent(check):
    check(lambda index: index)


@pytest.mark.parametrize("check", CHECKS)
def test_neighbours_sharing_a_stream_are_caught(check):
    with pytest.raises(AssertionError):
        check(lambda index: index // 2)


@pytest.mark.parametrize("check", CHECKS)
def test_one_shared_stream_in_fifty_is_caught(check):
    with pytest.raises(AssertionError):
        check(lambda index: index - (index % 50 == 1))


def ranked(x):
    """Normal scores: what a recorded quantity is compared by, whatever its law."""
    return stats.norm.ppf((stats.rankdata(x, axis=0) - 0.5) / len(x))


def check_recorded_chains(arrays):
    """What a run writes down of neighbouring chains: ||h_0||, the largest entry of g_L, ||g_0||, ||dLoss/dW_1||."""
    recorded = (
        arrays["log_activation_norm"][:, 0],
        arrays["log_grad_max"][:, -1],
        arrays["log_grad_norm"][:, 0],
        arrays["log_weight_grad_norm"][:, 0],
    )
    for x in recorded:
        check_independent(ranked(x)[:, np.newaxis])


@pytest.fixture(scope="module")
def recorded():
    """A run of real chains."""
    chain = Chain(activation="linear", width=12, depth=3, gain=1.0)
    names = ("log_grad_norm", "log_activation_norm", "log_weight_grad_norm", "log_grad_max")
    return Engine(chain, 0, "float64", names).run(0, 8000)


def test_recorded_chains_are_independent(recorded):
    check_recorded_chains(recorded)


def test_recorded_chains_sharing_a_stream_are_caught(recorded):
    with pytest.raises(AssertionError):
        check_recorded_chains({name: np.repeat(x[::2], 2, axis=0) for name, x in recorded.items()})
