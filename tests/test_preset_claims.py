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
from gradsim.overflow import FORMATS
from gradsim.presets import list_presets, preset_path
from gradsim.results import Cell
from gradsim.rounding import rounding_tolerance
from gradsim.runner import simulate
from gradsim.theory.registry import find, predict

CLAIMING = [preset.name for preset in list_presets() if preset.claim is not None]
#: Fewer than in the presets, so that all of it takes seconds; intervals are wider by up to 2.9.
CHAINS = 128
#: Claims about a few per cent, which take all of their chains.
FULL_SIZE = ("input-scale",)

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


def judged(experiment: Experiment, chains: int) -> ClaimVerdict:
    assert experiment.claim is not None
    cells = [simulated(chain, chains, experiment.seed, experiment.streams) for chain in experiment.cells]
    return judge(experiment.claim, cells)


def test_every_topic_has_a_preset() -> None:
    assert set(CLAIMING) >= TOPICS


@pytest.mark.parametrize("name", CLAIMING)
def test_the_claim_holds(name: str) -> None:
    experiment = preset(name)
    found = judged(experiment, experiment.chains if name in FULL_SIZE else min(CHAINS, experiment.chains))
    assert found.held, [expectation for expectation in found.expectations if expectation.verdict != "held"]


@pytest.mark.parametrize("name", CLAIMING)
def test_every_expectation_fails_under_its_control(name: str) -> None:
    experiment = preset(name)
    assert experiment.claim is not None
    for number in range(1, len(experiment.claim.expectations) + 1):
        found = judged(experiment.control(number), min(CHAINS, experiment.chains))
        assert found.verdict == "not held", (number, found.expectations)


def test_the_page_lists_every_claim() -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert text.endswith("\n")
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


#: What sentences say in numbers: (preset, expectation) -> over how many layers, and the factor or the range of factors.
SAID: dict[tuple[str, int], tuple[int, float | tuple[float, float]]] = {
    ("toy", 1): (1, 57.665),
    ("toy", 2): (1, 1 / 1024),
    ("depth-compounds", 1): (1, (1.3, 1.7)),
    ("depth-compounds", 2): (1, (5.0, 9.0)),
    ("depth-compounds", 3): (1, (30.0, 75.0)),
    ("dropout", 1): (1, 1.40),
    ("dropout", 2): (1, 1.38),
    ("dropout", 3): (1, 0.98),
    ("gates", 1): (1, 0.58),
    ("gates", 2): (1, 0.63),
    ("gates", 3): (1, 0.60),
    ("gates", 4): (1, (0.9, 1.0)),
    ("input-scale", 5): (1, (0.5, math.inf)),
    ("input-scale", 6): (1, (0.0, 1 / 20)),
    ("normalisation", 1): (1, 1.21),
    ("normalisation", 2): (1, (0.95, 1.05)),
    ("normalisation", 3): (1, (0.95, 1.05)),
    ("relu-compounds", 2): (1, 1.40),
    ("relu-compounds", 3): (1, 2.10),
    ("skip-connections", 2): (1, 1.41),
    ("skip-connections", 3): (50, 1.6),
    ("skip-connections", 4): (1, 1.6),
    ("skip-connections", 5): (50, (2.6, 4.0)),
    ("torch-default", 1): (1, 3**-0.5),
    ("torch-default", 2): (1, 6**-0.5),
    ("xavier-he", 2): (1, (0.9, math.inf)),
    ("xavier-he", 4): (1, 2**-0.5),
}
#: How far what is tested may reach beyond a factor that a sentence names, as a share of it.
NEAR = 0.1


def allowed_factors(expected: Expectation, layers: int) -> tuple[float, float]:
    """The factors over so many layers that an expectation allows."""
    if isinstance(expected.value, tuple):
        low, high = expected.value
    else:
        low, high = (-math.inf, expected.value) if expected.op == "<" else (expected.value, math.inf)
    return math.exp(low * layers), math.exp(high * layers)


@pytest.mark.parametrize(("name", "number"), SAID)
def test_what_is_tested_of_a_number_is_no_wider_than_the_sentence(name: str, number: int) -> None:
    """A number that a sentence names lies in the tested range, which reaches no further than a tenth of it."""
    layers, factor = SAID[name, number]
    experiment = preset(name)
    assert experiment.claim is not None
    low, high = allowed_factors(experiment.claim.expectations[number - 1], layers)
    if isinstance(factor, tuple):
        assert factor[0] <= low < high <= factor[1]
    else:
        assert (1 - NEAR) * factor < low < factor < high < (1 + NEAR) * factor


def test_a_kind_of_the_gates_does_not_pass_for_another() -> None:
    """The sentence tells three kinds apart, and so do the ranges: the factor of one meets no other's."""
    experiment = preset("gates")
    assert experiment.claim is not None
    kinds = experiment.claim.expectations[:3]
    for number, expected in enumerate(kinds, start=1):
        factor = SAID["gates", number][1]
        assert isinstance(factor, float)
        assert [meets(other, math.log(factor)) for other in kinds] == [other is expected for other in kinds]


def test_the_bounds_of_overflow_are_where_the_formats_end() -> None:
    experiment = preset("overflow")
    assert experiment.claim is not None
    ends = {form.name: form.log_bounds[0] for form in FORMATS}
    # float32 and bfloat16 share their expectations: within both, and beyond both.
    formats = ["float16", "float16", "bfloat16", "float32", "float64", "float64"]
    assert [expected.value for expected in experiment.claim.expectations] == [round(ends[name], 5) for name in formats]


def test_the_scales_of_the_input_are_told_apart_to_5_per_cent() -> None:
    """Each mean is held to within 5 per cent of the exact law, and the weights' gradients lie a factor 100 apart."""
    for number, expected, chain in expectations("input-scale")[:6]:
        assert chain.activation == "relu"
        (law,) = said(number, expected, "input-scale", chain)
        low, high = allowed_factors(expected, 1)
        assert 0.95 < low / math.exp(law) < 1 < high / math.exp(law) < 1.05
