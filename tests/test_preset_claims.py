"""The claims of the presets: each holds, each control fails, and what is expected is what theory says."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import pytest
from scipy import integrate, special

from bench.claims import DOCS, with_table
from gradsim import activations
from gradsim.chain import Chain
from gradsim.claim import Expectation
from gradsim.claim_verdict import ClaimVerdict, judge
from gradsim.criticality import gaussian_squares
from gradsim.experiment import Experiment
from gradsim.presets import list_presets, preset_path
from gradsim.results import Cell
from gradsim.rounding import rounding_tolerance
from gradsim.runner import simulate
from gradsim.theory.registry import find, predict

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
def simulated(chain: Chain, chains: int, seed: int, streams: str) -> Cell:
    """Controls and claims share many of their cells."""
    return simulate(chain, chains, seed, streams=streams)


def judged(experiment: Experiment) -> ClaimVerdict:
    assert experiment.claim is not None
    chains = min(CHAINS, experiment.chains)
    cells = [simulated(chain, chains, experiment.seed, experiment.streams) for chain in experiment.cells]
    return judge(experiment.claim, cells)


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


def at_layers(expected: Expectation, layers: Sequence[int], means: Sequence[float]) -> list[float]:
    """What an expectation is about, of means by layer: one of them, all of them, or their rate."""
    if expected.layer == "rate":
        return [(means[0] - means[-1]) / (len(means) - 1)]
    return [mean for layer, mean in zip(layers, means, strict=True) if expected.layer in ("all", layer)]


def law_says(expected: Expectation, chain: Chain) -> list[float]:
    """The means that `predict` gives for this quantity."""
    rows = predict(chain).to_dict()["predictions"]
    (row,) = [row for row in rows if row["quantity"] == expected.quantity]
    return at_layers(expected, row["layer"], row["mean"])


def grows_by_a_factor(expected: Expectation, chain: Chain) -> list[float]:
    """One unit: its magnitude is gain^(L - l)."""
    layers = range(chain.depth + 1)
    return at_layers(expected, layers, [(chain.depth - layer) * math.log(float(chain.gains[0])) for layer in layers])


def clipped_by_value(expected: Expectation, chain: Chain) -> list[float]:
    """E ln max_i min(|g_i|, c) of n Gaussian entries, layer by layer, in mean field for ReLU: half the units pass.

    v is the variance of an entry before it is clipped, and P(max_i |g_i| <= t) = erf(t / sqrt(2 v))^n.
    """
    assert chain.width is not None
    n, c, s2 = chain.width, chain.clip_value, float(chain.gains[0]) ** 2
    v = 1.0 / n
    means = []
    for _ in range(chain.depth + 1):
        below, _ = integrate.quad(lambda u, v=v: special.erf(c * math.exp(-u) / math.sqrt(2 * v)) ** n, 0.0, 10.0)
        means.append(math.log(c) - below)
        x = c / math.sqrt(v)
        inside = special.erf(x / math.sqrt(2)) - x * math.sqrt(2 / math.pi) * math.exp(-x * x / 2)
        v = s2 / 2 * (v * inside + c * c * special.erfc(x / math.sqrt(2)))
    return at_layers(expected, range(chain.depth + 1), means[::-1])


def tied_sum(steps: int, a: float, b: float) -> float:
    """(1/2) ln sum_j C(k, j)^2 a^(2(k-j)) b^(2j): the length of (aI + bU)^k v for k << sqrt n."""
    terms = (math.comb(steps, j) ** 2 * a ** (2 * (steps - j)) * b ** (2 * j) for j in range(steps + 1))
    return 0.5 * math.log(sum(terms))


def gru_rate(expected: Expectation, chain: Chain) -> list[float]:
    return [tied_sum(chain.depth, 0.5, float(chain.gains[0]) / 4) / chain.depth]


def lstm_rate(expected: Expectation, chain: Chain) -> list[float]:
    b = float(chain.gains[0]) / 4
    forget = 1.0 / (1.0 + math.exp(-chain.forget_bias))
    return [(tied_sum(chain.depth - 1, forget, b) + math.log(b)) / chain.depth]


def saturated_norm(expected: Expectation, chain: Chain) -> list[float]:
    """(1/2) ln(n E phi^2) at the last layer, in mean field."""
    assert chain.width is not None
    phi, q = activations.get("tanh"), float(chain.gains[0]) ** 2
    for _ in range(chain.depth - 1):
        q = float(chain.gains[0]) ** 2 * gaussian_squares(phi, q)[0]
    return [0.5 * math.log(chain.width * gaussian_squares(phi, q)[0])]


def log_spectral_radius(expected: Expectation, chain: Chain) -> list[float]:
    """E ln of the largest |eigenvalue| of W, the rate of many steps, from the eigenvalues of 100 matrices."""
    assert chain.width is not None
    matrices = np.random.default_rng(0).normal(size=(100, chain.width, chain.width)) / math.sqrt(chain.width)
    radii = np.abs(np.linalg.eigvals(matrices)).max(axis=1)
    return [float(np.log(radii).mean()) + math.log(float(chain.gains[0]))]


#: Where no law of the registry gives the number: (preset, expectation) -> what does, as in the preset's comments.
COMPUTED: dict[tuple[str, int], Callable[[Expectation, Chain], list[float]]] = {
    ("gates", 2): gru_rate,
    ("gates", 3): lstm_rate,
    ("gates", 4): lstm_rate,
    ("saturation", 6): saturated_norm,
    ("clipping", 4): clipped_by_value,
    ("clipping", 5): clipped_by_value,
    **{("overflow", number): grows_by_a_factor for number in range(1, 7)},
    ("sequence-length", 3): log_spectral_radius,
}


def said(number: int, expected: Expectation, name: str, chain: Chain) -> list[float]:
    """What theory says of an expectation in a cell."""
    return COMPUTED.get((name, number), law_says)(expected, chain)


@pytest.mark.parametrize("name", CLAIMING)
def test_what_is_expected_is_what_theory_says(name: str) -> None:
    for number, expected, chain in expectations(name):
        values = said(number, expected, name, chain)
        assert values, (number, chain)
        assert all(meets(expected, value) for value in values), (number, chain, values)


def test_theory_of_another_chain_meets_no_expectation() -> None:
    """Beside each expectation that a law decides: what the law says of its control does not meet it."""
    seen = 0
    for name in CLAIMING:
        for number, expected, _ in expectations(name):
            control = preset(name).control(number).cells[0]
            law = find(control)
            if (name, number) not in COMPUTED and law is not None and not np.isnan(law.mean).any():
                values = law_says(expected, control)
                assert not all(meets(expected, value) for value in values), (name, number, control, values)
                seen += 1
    assert seen > 30


@pytest.mark.parametrize("streams", ["common", "independent"])
def test_the_scale_of_the_input_changes_no_chain_of_relu_and_every_one_of_tanh(streams: str) -> None:
    """In float64, so that no unit is switched by rounding; with weights of their own the chains differ anyway."""
    experiment = preset("input-scale")
    assert experiment.streams == "common"
    logs: dict[str, list[np.ndarray]] = {"relu": [], "tanh": []}
    for chain in experiment.cells:
        logs[chain.activation].append(simulate(chain, 64, dtype="float64", streams=streams).log_grad_norm)
    relu, tanh = (np.abs(np.ptp(np.stack(found), axis=0))[:, 0] for found in logs.values())
    rounding = 2 * rounding_tolerance(experiment.cells[0], "float64", logs["relu"][0].max(axis=0))[0]
    assert (relu <= rounding).all() == (streams == "common")
    assert (tanh > rounding).all()


def test_no_number_of_a_claim_is_beyond_what_is_expected() -> None:
    """Factors that sentences name meet what is tested: (preset, expectation) -> over how many layers, which factor."""
    named = {
        ("toy", 1): (1, 57.665),
        ("toy", 2): (1, 1 / 1024),
        ("depth-compounds", 1): (1, 1.5),
        ("depth-compounds", 2): (1, 7.0),
        ("depth-compounds", 3): (1, 49.0),
        ("dropout", 1): (1, 1.40),
        ("dropout", 2): (1, 1.38),
        ("dropout", 3): (1, 0.98),
        ("gates", 1): (1, 0.58),
        ("gates", 2): (1, 0.63),
        ("gates", 3): (1, 0.60),
        ("normalisation", 1): (1, 1.21),
        ("relu-compounds", 2): (1, 1.40),
        ("relu-compounds", 3): (1, 2.10),
        ("skip-connections", 2): (1, 1.41),
        ("skip-connections", 3): (50, 1.6),
        ("skip-connections", 4): (1, 1.6),
        ("skip-connections", 5): (50, 3.2),
        ("torch-default", 1): (1, 3**-0.5),
        ("torch-default", 2): (1, 6**-0.5),
        ("xavier-he", 4): (1, 2**-0.5),
    }
    for (name, number), (layers, factor) in named.items():
        experiment = preset(name)
        assert experiment.claim is not None
        expected = experiment.claim.expectations[number - 1]
        assert meets(expected, math.log(factor) / layers), (name, number)
