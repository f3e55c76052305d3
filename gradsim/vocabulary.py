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
    "LATER_FIELDS",
    "MAX_CHAINS",
    "MAX_DEPTH",
    "MAX_PROFILE",
    "MAX_WIDTH",
    "QUANTITIES",
    "RUN_FIELDS",
    "SETTING_DEFAULTS",
]

#: A layer has 24 bits of the counter that draws its weights.
MAX_DEPTH: Final = 2**24 - 1
MAX_WIDTH: Final = 2**31 - 1
#: A profile is kept as one attribute of a result file, which holds at most 64 KiB.
MAX_PROFILE: Final = 4097

GAIN_NAMES: Final = ("he", "kaiming", "lecun", "glorot", "xavier", "torch", "critical")
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
    "input_scale": 1.0,
    "input_noise": 0.0,
    "output_gradient": "random",
}


def _check_gain(value: object) -> Value:
    return pick(value, GAIN_NAMES) if isinstance(value, str) else real(value)


def _check_profile(value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or not 2 <= len(value) <= MAX_PROFILE:
        raise Unsuitable
    return tuple(whole(plain(width), 1, MAX_WIDTH) for width in value)


#: Every chain field that a kernel supports, in the order files and messages list them.
CHAIN_FIELDS: Final[dict[str, Field]] = {
    spec.name: spec
    for spec in (
        choice(
            "kind",
            "Layers with weights of their own, or one W and b at every step",
            ("feedforward", "recurrent"),
            later=("lstm", "gru"),
        ),
        choice(
            "activation",
            "What acts on W h + b",
            ("linear", "relu", "leaky_relu", "tanh"),
            later=("erf", "sigmoid", "gelu", "silu"),
        ),
        number("negative_slope", "Slope of leaky_relu below zero", -math.inf),
        integer("depth", "Layers, or time steps of a recurrent chain", 1, MAX_DEPTH),
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
        number("input_scale", "Standard deviation of the input", above=True),
        number("input_noise", "Standard deviation of the noise at each step of a recurrent chain"),
        choice(
            "output_gradient",
            "Gradient at the output: of length 1 at random, all ones, or equal to the output",
            ("random", "ones", "loss"),
        ),
    )
}

#: Chain fields with a meaning that no kernel computes yet.
LATER_FIELDS: Final = (
    "skip",
    "carry",
    "norm",
    "norm_position",
    "batch",
    "dropout",
    "clip",
    "clip_value",
    "forget_bias",
    "probes",
)

#: Chain indices are counted in 32 bits of the counter that draws the weights.
MAX_CHAINS: Final = 2**32
MAX_SEED: Final = 2**64 - 1
MAX_TITLE: Final = 500

#: What is recorded of each chain, in the order a result file lists it.
QUANTITIES: Final = ("log_grad_norm", "log_activation_norm", "log_weight_grad_norm", "log_grad_max")

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
    names = [pick(name, QUANTITIES, later=("log_cell_grad_norm", "lyapunov")) for name in value]
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
        choice("method", "How a chain is simulated", ("dense",), later=("deferred",)),
        choice("device", "Where it is simulated", ("cpu",), later=("cuda",)),
        choice("dtype", "Arithmetic of the chain", ("float32", "float64")),
        choice("record", "Every chain, or moments of all and the first few", ("trajectories", "summary")),
        Field(
            "quantities",
            "What is recorded of a chain",
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
