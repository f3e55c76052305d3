"""Sums of neighbouring standardised increments: moments, odd numbers, layers without spread, rounding."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gradsim.chain import Chain
from gradsim.paired_increments import PairedIncrements
from gradsim.theory.registry import find
from tests.cells import draw


@pytest.mark.parametrize("profile", [[3, 4], [3, 4, 2], [3, 4, 2, 5, 3, 4]], ids=str)
def test_moments_are_those_of_draws(profile):
    chain = Chain(activation="linear", profile=profile)
    paired = PairedIncrements(find(chain).increments)
    assert paired.count == math.ceil(chain.depth / 2)
    rng = np.random.default_rng(0)
    squares = []
    for _ in range(4000):
        total, chains = paired.squares([draw(chain, 60, rng), draw(chain, 40, rng)])
        assert chains == 100
        squares.append(total / (100 * paired.count))
    expected, variance, third = paired.mean_square(np.zeros(chain.depth + 1))
    n = 100 * paired.count
    assert expected == 1.0
    assert np.mean(squares) == pytest.approx(1.0, abs=4 * math.sqrt(variance / n / 4000))
    assert np.var(squares) == pytest.approx(variance / n, rel=0.15)
    assert np.mean((np.array(squares) - 1) ** 3) == pytest.approx(third / n**2, rel=0.6)


def test_layers_without_spread_are_left_out():
    chain = Chain(activation="linear", init="orthogonal", profile=[3, 5, 5, 2, 6, 4], gain=1.0)
    assert PairedIncrements(find(chain).increments).count == 1
    constant = find(Chain(activation="linear", init="identity", width=3, depth=4)).increments
    assert PairedIncrements(constant).count == 0


@pytest.mark.parametrize("depth", [4, 5])
def test_rounding_adds_what_is_stated(depth):
    chain = Chain(activation="linear", profile=[400, 300, 500, 400, 600, 300][: depth + 1])
    law = find(chain)
    paired = PairedIncrements(law.increments)
    rng = np.random.default_rng(1)
    logs = draw(chain, 40_000, rng) + rng.uniform(0.0, 10.0, (40_000, 1))
    grid = 2.0**-4 * np.arange(1, depth + 2) / (depth + 1)
    coarse = np.round(logs / grid) * grid
    exact, chains = paired.squares([logs])
    rounded, _ = paired.squares([coarse])
    n = chains * paired.count
    added = paired.mean_square(grid**2 / 12)[0] - 1.0
    assert added > 0.05
    assert (rounded - exact) / n == pytest.approx(added, rel=0.05)
