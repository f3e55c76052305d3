"""The fields of a chain and the settings of an experiment: names, supported values, bounds and defaults."""

from __future__ import annotations

import math
from typing import Final

from gradsim.fields import Field, Unsuitable, Value, choice, integer, number, pick, plain, real, whole

__all__ = [
    "ALIASES",
    "CHAIN_FIELDS",
    "DEFAULTS",
    "GAIN_NAMES",
    "HEAD_FIELDS",
    "MAX_CHAINS",
    "MAX_COLUMNS",
    "MAX_DEPTH",
    "MAX_PROFILE",
    "MAX_WIDTH",
    "OTHER_DEFAULTS",
    "QUANTITIES",
    "RUN_FIELDS",
    "SETTING_DEFAULTS",
    "SKIP_NAMES",
]

#: A layer has 24 bits of the counter that draws its weights.
MAX_DEPTH: Final = 2**24 - 1
MAX_WIDTH: Final = 2**31 - 1
#: A profile is kept as one attribute of a result file, which holds at most 64 KiB.
MAX_PROFILE: Final = 4097
#: Inputs or backpropagated vectors that share one chain's weights.
MAX_COLUMNS: Final = 2**20

GAIN_NAMES: Final = ("he", "kaiming", "lecun", "glorot", "xavier", "torch", "critical")
SKIP_NAMES: Final = ("rsqrt-depth", "inv-depth")
ALIASES: Final = {"kaiming": "he", "xavier": "glorot"}

DEFAULTS: Final[dict[str, Value]] = {
    "kind": "feedforward",
    "activation": "relu",
    "negative_slope": 0.01,
    "depth": 50,
    "width": 256,
    "init": "gaussian",
    "gain": "he",
    "bias": 0.0,
    "skip": 0.0,
    "carry": 1.0,
    "norm": "none",
    "norm_position": "before",
    "norm_eps": 0.0,
    "batch": 1,
    "dropout": 0.0,
    "clip": 0.0,
    "clip_value": 0.0,
    "input_scale": 1.0,
    "input_noise": 0.0,
    "forget_bias": 0.0,
    "output_gradient": "random",
    "probes": 1,
}

#: Where a default depends on other fields, in words; `gradsim.chain` applies it.
OTHER_DEFAULTS: Final = {
    "init": "uniform with gain torch",
    "gain": "torch for lstm, gru",
    "bias": "torch's or the critical one with these gains",
    "batch": "64 with batch norm",
}


def _check_gain(value: object) -> Value:
    return pick(value, GAIN_NAMES) if isinstance(value, str) else real(value)


def _check_skip(value: object) -> Value:
    return pick(value, SKIP_NAMES) if isinstance(value, str) else real(value)


def _check_probability(value: object) -> float:
    probability = real(value)
    if probability >= 1.0:
        raise Unsuitable
    return probability


def _check_profile(value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or not 2 <= len(value) <= MAX_PROFILE:
        raise Unsuitable
    return tuple(whole(plain(width), 1, MAX_WIDTH) for width in value)


#: Every chain field, in the order files and messages list them.
CHAIN_FIELDS: Final[dict[str, Field]] = {
    spec.name: spec
    for spec in (
        choice(
            "kind",
            "Layers with weights of their own, or one set of weights at every step",
            ("feedforward", "recurrent", "lstm", "gru"),
        ),
        choice(
            "activation",
            "What acts on W h + b; not for lstm and gru",
            ("linear", "relu", "leaky_relu", "tanh", "erf", "sigmoid", "gelu", "silu"),
        ),
        number("negative_slope", "Slope of leaky_relu below zero", -math.inf),
        integer("depth", "Layers, or time steps of a chain with tied weights", 1, MAX_DEPTH),
        integer("width", "Units in every layer", 1, MAX_WIDTH),
        Field(
            "profile",
            "Units layer by layer, input first, instead of depth and width",
            f"a list of 2 to {MAX_PROFILE} widths, each an integer from 1 to {MAX_WIDTH}",
            _check_profile,
            "profile",
        ),
        choice("init", "Law of the weights", ("gaussian", "uniform", "rademacher", "orthogonal", "identity")),
        Field(
            "gain",
            "Scale of the weights, whose variance is gain^2 / fan_in",
            f"0, a number from 1e-30 to 1e+30, or one of {', '.join(GAIN_NAMES)}",
            _check_gain,
            "number",
        ),
        number("bias", "Standard deviation of the biases"),
        Field(
            "skip",
            "Factor alpha of a skip connection, h_l = carry h_{l-1} + alpha y; 0 for none",
            f"0, a number from 1e-30 to 1e+30, or one of {', '.join(SKIP_NAMES)}",
            _check_skip,
            "number",
        ),
        number("carry", "Factor on h_{l-1} beside a skip connection"),
        choice("norm", "Normalisation, without a learned scale", ("none", "batch", "layer", "rms")),
        choice(
            "norm_position",
            "What is normalised: W h + b, the activation's values, or with skip the branch's input or the sum",
            ("before", "after", "pre", "post"),
        ),
        number("norm_eps", "Added to the variance that a norm divides by"),
        integer("batch", "Inputs pushed through the same weights together", 1, MAX_COLUMNS),
        Field(
            "dropout",
            "Probability of dropping a unit; the others are scaled up by 1 / (1 - dropout)",
            "0 or a number from 1e-30 to less than 1",
            _check_probability,
            "number",
        ),
        number("clip", "Largest norm of g_l as it is propagated; 0 for none"),
        number("clip_value", "Largest magnitude of an entry of g_l as it is propagated; 0 for none"),
        number("input_scale", "Standard deviation of the input", above=True),
        number("input_noise", "Standard deviation of the noise at each step of recurrent, lstm and gru"),
        number("forget_bias", "Added to the pre-activation of an lstm's forget gate", -math.inf),
        choice(
            "output_gradient",
            "Gradient at the output: of length 1 at random, all ones, or equal to the output",
            ("random", "ones", "loss"),
        ),
        integer("probes", "Backpropagated vectors, kept orthogonal for Lyapunov exponents", 1, MAX_COLUMNS),
    )
}

#: Chain indices are counted in 32 bits of the counter that draws the weights.
MAX_CHAINS: Final = 2**32
MAX_SEED: Final = 2**64 - 1
MAX_TITLE: Final = 500

#: What can be recorded of a chain, in the order a result file lists it; not every chain has all of it.
QUANTITIES: Final = (
    "log_grad_norm",
    "log_activation_norm",
    "log_weight_grad_norm",
    "log_grad_max",
    "log_cell_grad_norm",
    "lyapunov",
)

SETTING_DEFAULTS: Final[dict[str, Value]] = {
    "title": "",
    "seed": 0,
    "chains": 4096,
    "method": "dense",
    "device": "cpu",
    "dtype": "float32",
    "record": "trajectories",
    "quantities": QUANTITIES,
    "streams": "independent",
    "block": "auto",
    "keep": 4096,
}


def _check_title(value: object) -> str:
    if not isinstance(value, str) or not value.isprintable() or len(value) > MAX_TITLE:
        raise Unsuitable
    return value


def _check_quantities(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise Unsuitable
    names = [pick(name, QUANTITIES) for name in value]
    if "log_grad_norm" not in names or len(set(names)) != len(names):
        raise Unsuitable
    return tuple(name for name in QUANTITIES if name in names)


def _check_block(value: object) -> Value:
    return pick(value, ("auto",)) if isinstance(value, str) else whole(value, 1, MAX_CHAINS)


#: What stands at the head of an experiment file, beside its tables.
HEAD_FIELDS: Final[dict[str, Field]] = {
    spec.name: spec
    for spec in (
        Field(
            "title",
            "What the experiment is about",
            f"one line of at most {MAX_TITLE} printable characters",
            _check_title,
            "line",
        ),
        integer("seed", "Seed of all that is drawn", 0, MAX_SEED),
        integer("chains", "Chains in each cell of the grid", 1, MAX_CHAINS),
    )
}

#: What the ``[run]`` table of an experiment file may hold.
RUN_FIELDS: Final[dict[str, Field]] = {
    spec.name: spec
    for spec in (
        choice("method", "How a chain is simulated", ("dense", "deferred")),
        choice("device", "Where it is simulated", ("cpu", "cuda")),
        choice("dtype", "Arithmetic of the chain", ("float32", "float64")),
        choice("record", "Every chain, or moments of all and the first few", ("trajectories", "summary")),
        Field(
            "quantities",
            "What is recorded of a chain, where it has it",
            f"a list of names from {', '.join(QUANTITIES)}, each once and log_grad_norm among them",
            _check_quantities,
            "list",
            QUANTITIES,
        ),
        choice(
            "streams", "Weights of cells of the same shape: their own, or the same in all", ("independent", "common")
        ),
        Field(
            "block",
            "Chains simulated and written at a time",
            f'"auto" or an integer from 1 to {MAX_CHAINS}',
            _check_block,
            "number",
        ),
        integer("keep", "How many chains a summary keeps whole", 1, MAX_CHAINS),
    )
}
