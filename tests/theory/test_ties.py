"""Exact ties z = 0 of Rademacher chains: how frequent they are, and which derivative is taken there."""

from __future__ import annotations

import numpy as np
import pytest

from gradsim import activations
from gradsim.chain import Chain
from gradsim.kernels import ops
from gradsim.theory.registry import predict


def share_of_ties(width: int, chains: int, layers: int = 6) -> np.ndarray:
    """Share of units with z = 0 in each layer, among ReLU chains that are alive."""
    rng = np.random.default_rng(width)
    h = rng.normal(size=(chains, width))
    shares = []
    for _ in range(layers):
        signs = rng.choice([-1.0, 1.0], size=(chains, width, width))
        z = np.einsum("kij,kj->ki", signs, h) * np.sqrt(2 / width)
        tie = np.abs(z) <= 1e-13 * np.abs(h).sum(axis=1, keepdims=True)
        shares.append(tie[h.any(axis=1)].mean())
        h = np.where(tie, 0.0, np.maximum(z, 0.0))
    return np.array(shares)


@pytest.mark.parametrize(
    ("width", "chains", "low", "high"), [(4, 20_000, 1 / 7, 1 / 5.5), (8, 10_000, 1 / 21, 1 / 14), (24, 2000, 0, 1e-4)]
)
def test_narrow_layers_have_as_many_ties_as_stated(width: int, chains: int, low: float, high: float) -> None:
    shares = share_of_ties(width, chains)
    assert shares[0] == 0.0
    assert low <= shares[-1] <= high


def test_the_derivative_at_a_tie_is_that_of_the_left_side() -> None:
    assert ops.relu(0.0, 1.0) == (0.0, 0.0)
    assert ops.leaky_relu(0.0, 0.25, 1.0) == (0.0, 0.25)
    zero = np.zeros(1)
    assert activations.get("relu").dphi(zero).tolist() == [0.0]
    assert activations.get("leaky_relu", 0.25).dphi(zero).tolist() == [0.25]


def test_the_law_says_what_it_leaves_out() -> None:
    assert "z = 0" in (predict(Chain(init="rademacher")).source or "")
    assert "z = 0" in (predict(Chain(init="rademacher", activation="leaky_relu")).source or "")
    assert "z = 0" not in (predict(Chain(init="rademacher", bias=0.1)).source or "")
    assert "z = 0" not in (predict(Chain(init="uniform")).source or "")
    assert "z = 0" not in (predict(Chain(init="rademacher", activation="linear", gain=1.0)).source or "")
