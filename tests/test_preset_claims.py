"""The claims of the presets: each holds, each control fails, and what is expected is what theory says."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from scipy import special, stats

from bench.claims import DOCS, with_table
from gradsim import activations
from gradsim.chain import Chain
from gradsim.claim import Expectation
from gradsim.claim_verdict import ClaimVerdict, judge
from gradsim.criticality import gaussian_squares
from gradsim.experiment import Experiment
from gradsim.presets import list_presets, preset_path
from gradsim.results import Cell
from gradsim.runner import simulate
from gradsim.theory.mean_field import log_growth
from gradsim.theory.registry import find

CLAIMING = [preset.name for preset in list_presets() if preset.claim is not None]
#: Fewer than in the presets, so that all of it takes seconds; intervals are wider by up to 2.9.
CHAINS = 128

TOPICS = {
    "clipping",
    "depth-compounds",
    "dropout",
    "gates",
    "input-scale",
    "normalisation",
    "overflow",
    "relu-compounds",
    "saturation",
    "sequence-length",
    "skip-connections",
    "torch-default",
    "toy",
    "weights-not-activation",
    "xavier-he",
}


def preset(name: str) -> Experiment:
    return Experiment.from_toml(preset_path(name))


@cache
def simulated(chain: Chain, chains: int, seed: int) -> Cell:
    """Controls and claims share many of their cells."""
    return simulate(chain, chains, seed)


def judged(experiment: Experiment) -> ClaimVerdict:
    assert experiment.claim is not None
    chains = min(CHAINS, experiment.chains)
    return judge(experiment.claim, [simulated(chain, chains, experiment.seed) for chain in experiment.cells])


def test_every_topic_has_a_preset() -> None:
    assert set(CLAIMING) >= TOPICS


@pytest.mark.parametrize("name", CLAIMING)
def test_the_claim_holds(name: str) -> None:
    found = judged(preset(name))
    assert found.held, [expectation for expectation in found.expectations if expectation.verdict != "held"]


@pytest.mark.parametrize("name", CLAIMING)
def test_every_expectation_fails_under_its_control(name: str) -> None:
    experiment = preset(name)
    assert experiment.claim is not None
    for number in range(1, len(experiment.claim.expectations) + 1):
        found = judged(experiment.control(number))
        assert found.verdict == "not held", (number, found.expectations)


def test_the_page_lists_every_claim() -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert with_table(text) == text, "python -m bench.claims --table writes it anew"


def expectations(name: str) -> list[tuple[int, Expectation, Chain]]:
    experiment = preset(name)
    assert experiment.claim is not None
    numbered = enumerate(experiment.claim.expectations, start=1)
    return [
        (number, expected, chain)
        for number, expected in numbered
        for chain in experiment.cells
        if expected.selects(chain)
    ]


def meets(expected: Expectation, value: float) -> bool:
    if isinstance(expected.value, tuple):
        return expected.value[0] < value < expected.value[1]
    return value < expected.value if expected.op == "<" else value > expected.value


def law_says(expected: Expectation, chain: Chain) -> float | None:
    """The mean of ln||g|| at the layer, or its rate, where a law gives it to this accuracy."""
    law = find(chain)
    if law is None or expected.quantity != "log_grad_norm" or expected.layer == "all" or math.isnan(law.mean[0]):
        return None
    if expected.layer == "rate":
        return float(law.mean[0] - law.mean[-1]) / chain.depth
    assert isinstance(expected.layer, int)
    return float(law.mean[expected.layer])


def dropout_rate(chain: Chain) -> float:
    """Per layer (s2/(n p^2)) chi2_K, K ~ Bin(n, p), half of that for ReLU, given K >= 1."""
    assert chain.width is not None
    p = 1.0 - chain.dropout
    k = np.arange(1, chain.width + 1)
    weights = stats.binom.pmf(k, chain.width, p if chain.activation == "linear" else p / 2)
    log_chi = float(weights @ special.digamma(k / 2) / weights.sum()) + math.log(2.0)
    return (log_chi + math.log(float(chain.gains[0]) ** 2 / (chain.width * p * p))) / 2.0


def linear_skip_rate(chain: Chain) -> float:
    """(a2/n) noncentral chi2_n with noncentrality n/a2 a layer; its mean logarithm from the Poisson mixture."""
    assert chain.width is not None
    a2 = (chain.skip_factor * float(chain.gains[0])) ** 2
    n = chain.width
    j = np.arange(0, int(40 * n / a2))
    weights = stats.poisson.pmf(j, n / a2 / 2)
    return (float(weights @ special.digamma(n / 2 + j)) + math.log(2.0 * a2 / n)) / 2.0


def batch_norm_rate(chain: Chain) -> float:
    """Yang et al. (2019) for batch norm before ReLU, with the top and the bottom layer, over all layers."""
    b, depth = chain.batch, chain.depth
    r = -1.0 / (b - 1)
    k1 = (math.sqrt(1 - r * r) + r * (math.pi - math.acos(r))) / math.pi
    p = 0.25 + math.asin(r) / (2 * math.pi)
    middle = b / ((b - 1) * (b - 3) * (1 - k1) / 2) * ((b - 2) / 2 - (b / 2 - 1 - (b - 1) * p - (b - 1) * k1 / 2) / b)
    top, bottom = (b - 2) / ((b - 3) * (1 - k1)), middle * (1 - k1) / 2
    return ((depth - 2) * math.log(middle) + math.log(top * bottom)) / (2 * depth)


def tied_sum(steps: int, a: float, b: float) -> float:
    """(1/2) ln sum_j C(k, j)^2 a^(2(k-j)) b^(2j): the length of (aI + bU)^k v for k << sqrt n."""
    terms = (math.comb(steps, j) ** 2 * a ** (2 * (steps - j)) * b ** (2 * j) for j in range(steps + 1))
    return 0.5 * math.log(sum(terms))


def gru_rate(chain: Chain) -> float:
    return tied_sum(chain.depth, 0.5, float(chain.gains[0]) / 4) / chain.depth


def lstm_rate(chain: Chain) -> float:
    b = float(chain.gains[0]) / 4
    forget = 1.0 / (1.0 + math.exp(-chain.forget_bias))
    return (tied_sum(chain.depth - 1, forget, b) + math.log(b)) / chain.depth


def mean_field_rate(chain: Chain) -> float:
    return float(log_growth(chain)[0].sum()) / (2 * chain.depth)


def forward_rate(chain: Chain) -> float:
    """How fast the forward pass of h + alpha relu(W h) grows: no less than the backward pass."""
    alpha, s2 = chain.skip_factor, float(chain.gains[0]) ** 2
    k = math.sqrt(s2 / (2 * math.pi))
    c = total = 0.0
    for _ in range(chain.depth):
        growth = 1 + alpha**2 * s2 / 2 + 2 * alpha * c * k
        c, total = (c + alpha * k) / math.sqrt(growth), total + math.log(growth)
    return total / (2 * chain.depth)


def slowest_skip_rate(chain: Chain) -> float:
    """(1/2) ln(1 + a2/2), less what the width takes at most: the variance 5 a2/n of a plain ReLU layer, over four."""
    assert chain.width is not None
    a2 = (chain.skip_factor * float(chain.gains[0])) ** 2
    return 0.5 * math.log(1 + a2 / 2) - 5 * min(a2, 1.0) / (4 * chain.width)


def saturated_norm(chain: Chain) -> float:
    """(1/2) ln(n E phi^2) at the last layer, in mean field."""
    assert chain.width is not None
    phi, q = activations.get("tanh"), float(chain.gains[0]) ** 2
    for _ in range(chain.depth - 1):
        q = float(chain.gains[0]) ** 2 * gaussian_squares(phi, q)[0]
    return 0.5 * math.log(chain.width * gaussian_squares(phi, q)[0])


def first_weight_gradient(chain: Chain) -> float:
    """E ln||phi' g_1|| + E ln||h_0||: the mean at layer 0 without the last chi-squared, and that of the input."""
    law = find(chain)
    assert law is not None and chain.width is not None
    return float(law.mean[0]) - 0.5 * math.log(float(chain.gains[0]) ** 2 / chain.width) + math.log(chain.input_scale)


def unclipped_rate(chain: Chain) -> float:
    law = find(chain.replace(clip=0))
    assert law is not None
    return float(law.mean[0]) / chain.depth


def log_spectral_radius(chain: Chain) -> float:
    """E ln of the largest |eigenvalue| of W, the rate of many steps, from the eigenvalues of 100 matrices."""
    assert chain.width is not None
    matrices = np.random.default_rng(0).normal(size=(100, chain.width, chain.width)) / math.sqrt(chain.width)
    radii = np.abs(np.linalg.eigvals(matrices)).max(axis=1)
    return float(np.log(radii).mean()) + math.log(float(chain.gains[0]))


def powers(layer: int) -> Callable[[Chain], float]:
    return lambda chain: (chain.depth - layer) * math.log(float(chain.gains[0]))


#: Where no law of the registry gives the number: (preset, expectation) -> what does, as in the preset's comments.
COMPUTED: dict[tuple[str, int], Callable[[Chain], float]] = {
    **{("dropout", number): dropout_rate for number in (1, 2, 3)},
    **{("skip-connections", number): linear_skip_rate for number in (2, 3)},
    **{("skip-connections", number): slowest_skip_rate for number in (1, 4)},
    ("skip-connections", 5): lambda chain: forward_rate(chain) - 1e-4,
    ("normalisation", 1): batch_norm_rate,
    ("normalisation", 2): lambda chain: 0.0,
    ("normalisation", 3): lambda chain: 0.0,
    ("normalisation", 4): lambda chain: 0.5 * math.log(math.pi / (math.pi - 1)),
    ("gates", 1): lambda chain: math.log(float(chain.gains[0])),
    ("gates", 2): gru_rate,
    ("gates", 3): lstm_rate,
    ("gates", 4): lstm_rate,
    **{("saturation", number): mean_field_rate for number in (1, 2, 3)},
    ("saturation", 6): saturated_norm,
    ("input-scale", 2): first_weight_gradient,
    ("input-scale", 3): first_weight_gradient,
    ("clipping", 1): lambda chain: math.log(chain.clip),
    ("clipping", 2): lambda chain: math.log(chain.clip),
    ("clipping", 3): unclipped_rate,
    ("clipping", 4): lambda chain: math.log(chain.clip_value),
    **{("overflow", number): powers(layer) for number, layer in enumerate((1724, 1723, 1533, 1532, 1, 0), start=1)},
    ("sequence-length", 3): log_spectral_radius,
}


@cache
def said(name: str) -> list[tuple[int, Expectation, float]]:
    """What theory says about every expectation and every cell of a preset."""
    result = []
    for number, expected, chain in expectations(name):
        computed = COMPUTED.get((name, number))
        value = law_says(expected, chain) if computed is None else computed(chain)
        assert value is not None, (name, number, chain)
        result.append((number, expected, value))
    return result


@pytest.mark.parametrize("name", CLAIMING)
def test_what_is_expected_is_what_theory_says(name: str) -> None:
    for number, expected, value in said(name):
        assert meets(expected, value), (number, value)
