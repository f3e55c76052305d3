"""`Chain`: fields, defaults, resolved gains and biases, what is refused, and the round trips."""

from __future__ import annotations

import dataclasses
import json
import math
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradsim.chain import Chain
from gradsim.errors import ExperimentError
from gradsim.vocabulary import CHAIN_FIELDS, DEFAULTS


@st.composite
def chains(draw: st.DrawFn) -> Chain:
    """Any chain that is allowed."""
    number = st.floats(1e-3, 1e3)
    kind = draw(st.sampled_from(CHAIN_FIELDS["kind"].supported))
    fields: dict[str, Any] = {
        "kind": kind,
        "init": draw(st.sampled_from(CHAIN_FIELDS["init"].supported)),
        "gain": draw(st.one_of(number, st.just(0), st.sampled_from(["he", "kaiming", "lecun", "xavier", "torch"]))),
        "input_scale": draw(number),
    }
    if kind in ("feedforward", "recurrent"):
        fields |= _draw_layer(draw, number)
    narrowest = {"layer": 3, "rms": 2}.get(fields.get("norm", "none"), 1)
    rectangular = kind == "feedforward" and fields["init"] != "identity" and "skip" not in fields
    if rectangular and draw(st.booleans()):
        fields["profile"] = draw(st.lists(st.integers(narrowest, 1000), min_size=2, max_size=6))
        widths = fields["profile"]
    else:
        fields |= {"width": draw(st.integers(narrowest, 1000)), "depth": draw(st.integers(1, 10_000))}
        widths = [fields["width"]]
    if draw(st.booleans()):
        fields["bias"] = draw(st.one_of(st.just(0), number))
    if kind != "feedforward":
        fields["input_noise"] = draw(number)
    if kind == "lstm":
        fields["forget_bias"] = draw(st.one_of(st.just(0), number))
    if fields.get("norm") != "batch" and draw(st.booleans()):
        fields["probes"] = draw(st.integers(1, min(widths)))
    else:
        fields["batch"] = draw(st.integers(3, 100))
        # A norm may hold a loss constant, which is refused.
        losses = ["ones", "loss"] if "norm" not in fields else []
        fields["output_gradient"] = draw(st.sampled_from(["random", *losses]))
        if draw(st.booleans()):
            fields[draw(st.sampled_from(["clip", "clip_value"]))] = draw(number)
    # What others need stays: a negative_slope without its activation would be refused, a narrow default too.
    kept = {"kind", "activation", "profile", "width", "norm", "skip", "batch", "probes", "norm_position"}
    left_out = draw(st.sets(st.sampled_from(sorted(fields.keys() - kept))))
    return Chain(**{name: value for name, value in fields.items() if name not in left_out})


def _draw_layer(draw: st.DrawFn, number: st.SearchStrategy[float]) -> dict[str, Any]:
    """What acts between the matrices of a chain without gates."""
    fields: dict[str, Any] = {"activation": draw(st.sampled_from(CHAIN_FIELDS["activation"].supported))}
    if fields["activation"] == "leaky_relu":
        fields["negative_slope"] = draw(st.floats(-2, 2).filter(lambda slope: slope == 0 or abs(slope) > 1e-3))
    positions = ["before", "after"]
    if draw(st.booleans()):
        fields["skip"] = draw(st.one_of(number, st.sampled_from(["rsqrt-depth", "inv-depth"])))
        fields["carry"] = draw(st.one_of(st.just(0), number))
        positions += ["pre", "post"]
    if draw(st.booleans()):
        fields["norm"] = draw(st.sampled_from(["batch", "layer", "rms"]))
        fields["norm_position"] = draw(st.sampled_from(positions))
        fields["norm_eps"] = draw(st.one_of(st.just(0), number))
    if draw(st.booleans()):
        fields["dropout"] = draw(st.floats(1e-3, 0.999))
    return fields


@settings(derandomize=True, max_examples=150, deadline=None)
@given(chains())
def test_fields_and_canonical_form_give_the_chain_back(chain: Chain) -> None:
    assert Chain.from_fields(chain.fields()) == chain
    assert Chain.from_fields(json.loads(json.dumps(chain.fields()))) == chain
    named = json.loads(chain.canonical())
    again = Chain(**named)
    assert again == chain
    assert hash(again) == hash(chain)
    assert again.canonical() == chain.canonical()
    assert pickle.loads(pickle.dumps(chain)) == chain
    assert chain.replace() == chain
    assert len(chain.widths) == chain.depth + 1
    assert chain.gains.shape == chain.biases.shape == (chain.depth,)


def test_the_default_chain_is_the_documented_one() -> None:
    chain = Chain()
    assert chain.canonical() == "{}"
    assert (chain.kind, chain.activation, chain.depth, chain.width) == ("feedforward", "relu", 50, 256)
    assert (chain.init, chain.gain, chain.gain_name, chain.bias) == ("gaussian", "he", "he", 0.0)
    assert (chain.input_scale, chain.input_noise, chain.output_gradient) == (1.0, 0.0, "random")
    assert not chain.tied
    assert chain.widths == (256,) * 51
    assert {name: getattr(chain, name) for name in DEFAULTS} == DEFAULTS
    assert (chain.skip_factor, chain.gates, chain.columns) == (0.0, 1, 1)


def test_defaults_that_depend_on_other_fields() -> None:
    for kind, gates in (("lstm", 4), ("gru", 3)):
        chain = Chain(kind=kind)
        assert chain.canonical() == f'{{"kind":"{kind}"}}'
        assert (chain.activation, chain.gain, chain.init, chain.bias) == ("", "torch", "uniform", None)
        assert (chain.gates, chain.tied) == (gates, True)
        assert Chain(kind=kind, gain="he").init == "gaussian"
        assert json.loads(Chain(kind=kind, gain="he").canonical()) == {"gain": "he", "kind": kind}
    assert Chain(norm="batch") == Chain(norm="batch", batch=64)
    assert Chain(norm="batch").canonical() == '{"norm":"batch"}'
    assert json.loads(Chain(norm="layer", batch=64).canonical()) == {"batch": 64, "norm": "layer"}
    assert Chain(kind="recurrent").tied


def test_what_is_derived_of_skip_batch_and_probes() -> None:
    assert Chain(skip=0.5).skip_factor == 0.5
    assert Chain(skip="rsqrt-depth", depth=16).skip_factor == 0.25
    assert Chain(skip="inv-depth", depth=16).skip_factor == 0.0625
    assert Chain(skip="inv-depth", depth=16) != Chain(skip=0.0625, depth=16)
    assert (Chain(batch=8).columns, Chain(probes=3).columns) == (8, 3)


def test_quantities_that_a_chain_has() -> None:
    plain = ("log_grad_norm", "log_activation_norm", "log_weight_grad_norm", "log_grad_max")
    assert Chain().quantities == Chain(kind="gru").quantities == plain
    assert Chain(kind="lstm").quantities == (*plain, "log_cell_grad_norm")
    assert Chain(kind="lstm", probes=2).quantities == (*plain, "log_cell_grad_norm", "lyapunov")


#: What gradsim drew before skip, norm, gates and the others existed: the text that keys its random streams.
GOLDEN = [
    ({}, "{}"),
    ({"activation": "tanh", "gain": 1.5, "width": 64}, '{"activation":"tanh","gain":1.5,"width":64}'),
    ({"kind": "recurrent", "input_noise": 0.1}, '{"input_noise":0.1,"kind":"recurrent"}'),
    ({"profile": [3, 4, 5], "bias": 1}, '{"bias":1.0,"profile":[3,4,5]}'),
    ({"gain": "torch"}, '{"gain":"torch"}'),
    (
        {"activation": "leaky_relu", "negative_slope": 0.2, "init": "orthogonal", "output_gradient": "loss"},
        '{"activation":"leaky_relu","init":"orthogonal","negative_slope":0.2,"output_gradient":"loss"}',
    ),
]


@pytest.mark.parametrize(("fields", "text"), GOLDEN, ids=[text for _, text in GOLDEN])
def test_later_fields_leave_the_canonical_form_of_older_chains_alone(fields: dict[str, Any], text: str) -> None:
    assert Chain(**fields).canonical() == text
    later = {"skip": 0, "norm": "none", "dropout": 0, "batch": 1, "probes": 1, "clip": 0, "clip_value": 0}
    assert Chain(**fields, **later).canonical() == text


def test_canonical_form_leaves_defaults_out_and_has_one_form_for_numbers_and_aliases() -> None:
    assert Chain(width=256, depth=50, gain="kaiming", bias=0).canonical() == "{}"
    assert Chain(gain=2, width=64).canonical() == '{"gain":2.0,"width":64}'
    assert Chain(gain="xavier") == Chain(gain="glorot")
    assert Chain(gain="xavier").gain_name == "xavier"
    assert Chain(gain=math.sqrt(2)).canonical() != "{}", "a name and its number draw different streams"
    assert Chain(bias=-0.0) == Chain()
    # Under torch's gain the defaults of init and bias are others.
    assert Chain(gain="torch", init="uniform").canonical() == '{"gain":"torch"}'
    assert Chain(gain="torch", init="gaussian", bias=0).canonical() == '{"bias":0.0,"gain":"torch","init":"gaussian"}'
    assert Chain(profile=[64, 64, 64]) != Chain(width=64, depth=2)


def test_named_gains_per_layer() -> None:
    profile = [784, 256, 10]
    assert Chain(profile=profile, gain="he").gains == pytest.approx([math.sqrt(2)] * 2)
    assert Chain(profile=profile, gain="lecun").gains.tolist() == [1.0, 1.0]
    glorot = Chain(profile=profile, gain="glorot")
    assert glorot.gains == pytest.approx([math.sqrt(2 * 784 / 1040), math.sqrt(2 * 256 / 266)])
    assert glorot.fields()["gain"] is None
    assert glorot.fields()["gain_per_layer"] == glorot.gains.tolist()
    assert Chain(width=8, gain="glorot").fields()["gain"] == 1.0


def test_torch_is_uniform_with_its_own_bias() -> None:
    chain = Chain(profile=[12, 48, 3], gain="torch")
    assert (chain.init, chain.bias, chain.bias_law) == ("uniform", None, "uniform")
    assert chain.gains == pytest.approx([3**-0.5] * 2)
    assert chain.biases == pytest.approx([1 / 6, 1 / 12])  # U(+-1/sqrt(fan_in))
    assert chain.fields()["bias_name"] == "torch"
    given_bias = chain.replace(bias=0.5)
    assert (given_bias.bias_law, given_bias.biases.tolist()) == ("gaussian", [0.5, 0.5])
    assert Chain(gain="torch", width=3, bias=1 / 3) != Chain(gain="torch", width=3)


@pytest.mark.parametrize(
    ("fields", "gain", "bias"),
    [
        ({"activation": "linear"}, 1.0, 0.0),
        ({"activation": "relu"}, math.sqrt(2), 0.0),
        ({"activation": "leaky_relu", "negative_slope": 0.5}, math.sqrt(2 / 1.25), 0.0),
        ({"activation": "tanh"}, 1.0, 0.0),
    ],
)
def test_critical_gain_is_resolved_and_keeps_its_name(fields: dict[str, Any], gain: float, bias: float) -> None:
    chain = Chain(**fields, gain="critical", depth=3)
    assert chain.gains == pytest.approx([gain] * 3)
    assert chain.biases == pytest.approx([bias] * 3)
    assert json.loads(chain.canonical())["gain"] == "critical"
    assert Chain.from_fields(chain.fields()) == chain


def test_critical_gain_at_a_given_bias() -> None:
    chain = Chain(activation="tanh", gain="critical", bias=0.3)
    assert chain.gains[0] > 1.0
    assert chain.biases[0] == 0.3
    assert Chain.from_fields(chain.fields()) == chain
    with pytest.raises(ExperimentError, match="critical"):
        Chain(activation="relu", gain="critical", bias=0.3)


def test_numpy_numbers_are_numbers() -> None:
    chain = Chain(width=np.int64(64), depth=np.uint8(5), gain=np.float32(1.5), bias=np.int32(1))
    assert chain == Chain(width=64, depth=5, gain=1.5, bias=1)
    assert type(chain.width) is int
    assert type(chain.gain) is float
    assert Chain(profile=np.array([3, 4, 5])) == Chain(profile=(3, 4, 5))


def test_fields_leave_out_what_does_not_apply() -> None:
    absent = {"negative_slope", "input_noise", "profile", "carry", "norm_position", "norm_eps", "forget_bias"}
    assert not absent & Chain().fields().keys()
    assert not {"activation", "skip", "norm", "dropout", "forget_bias"} & Chain(kind="gru").fields().keys()
    assert {"carry", "norm_position", "norm_eps"} <= Chain(skip=1, norm="rms").fields().keys()
    skipping = Chain(skip="inv-depth", depth=4).fields()
    assert (skipping["skip"], skipping["skip_name"], Chain(skip=2).fields()["skip_name"]) == (0.25, "inv-depth", "")
    assert not {"width", "depth"} & Chain(profile=[3, 4]).fields().keys()
    fields = Chain(kind="recurrent", activation="leaky_relu").fields()
    assert (fields["negative_slope"], fields["input_noise"]) == (0.01, 0.0)


def test_fields_of_a_file_are_read_with_its_counts_and_nan() -> None:
    chain = Chain(profile=[4, 2, 3], gain="glorot")
    attributes = chain.fields() | {
        "chains": np.int64(10),
        "chains_done": np.int64(10),
        "gain": np.float64("nan"),
        "gain_per_layer": chain.gains,
        "profile": np.array([4, 2, 3]),
        "input_scale": np.float64(1.0),
    }
    assert Chain.from_fields(attributes) == chain


@pytest.mark.parametrize(
    "change",
    [{"gain": 3.0}, {"bias": 1.0, "bias_name": "torch"}, {"skip": 0.5, "skip_name": "inv-depth"}, {"colour": 1}],
)
def test_fields_that_contradict_themselves_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ExperimentError):
        Chain.from_fields(Chain().fields() | change)


def test_replace_drops_what_the_change_replaces() -> None:
    chain = Chain(width=3, depth=4, activation="leaky_relu", negative_slope=0.2)
    assert chain.replace(profile=[3, 4]).profile == (3, 4)
    assert chain.replace(profile=[3, 4]).replace(width=8).profile is None
    assert chain.replace(activation="relu") == Chain(width=3, depth=4)
    assert Chain(kind="recurrent", input_noise=1).replace(kind="feedforward") == Chain()
    assert Chain(skip=1, carry=0.5).replace(skip=0) == Chain()
    assert Chain(norm="batch", norm_position="after", norm_eps=1).replace(norm="none") == Chain()
    assert Chain(norm="batch").replace(norm="layer").batch == 1
    assert Chain(kind="lstm", forget_bias=1).replace(kind="gru") == Chain(kind="gru")
    assert Chain(activation="leaky_relu", negative_slope=0.2).replace(kind="lstm") == Chain(kind="lstm")
    with pytest.raises(ExperimentError, match='norm_position = "pre" without skip'):
        Chain(skip=1, norm="rms", norm_position="pre").replace(skip=0)


@pytest.mark.parametrize(
    ("fields", "changes"),
    [
        ({"activation": "relu", "width": 64}, {"depth": 10}),
        ({"activation": "leaky_relu", "negative_slope": 0.2}, {"activation": "tanh", "gain": "critical"}),
        ({"kind": "recurrent", "input_noise": 0.5}, {"kind": "feedforward"}),
        ({"width": 64, "depth": 5}, {"profile": [3, 4, 5]}),
        ({"profile": [3, 4, 5]}, {"width": 9}),
        ({"profile": [3, 4, 5]}, {"gain": "xavier"}),
        ({"gain": "torch"}, {"width": 8}),
        ({"gain": "kaiming"}, {}),
        ({"skip": "inv-depth", "carry": 0.5}, {"skip": 0}),
        ({"norm": "batch", "norm_eps": 1}, {"norm": "rms"}),
        ({"kind": "lstm", "forget_bias": 1}, {"kind": "gru"}),
        ({"kind": "lstm"}, {"probes": 3}),
    ],
)
def test_dataclasses_replace_is_replace(fields: dict[str, Any], changes: dict[str, Any]) -> None:
    chain = Chain(**fields)
    changed = dataclasses.replace(chain, **changes)
    assert changed == chain.replace(**changes)
    assert changed.gain_name == chain.replace(**changes).gain_name
    for name, value in changes.items():
        assert getattr(changed, name) == (tuple(value) if name == "profile" else {"xavier": "glorot"}.get(value, value))
    assert "_origin" not in dataclasses.asdict(changed)
    assert hash(changed) == hash(chain.replace(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": 0}, "depth = 0 is not allowed"),
        ({"breadth": 3}, "unknown"),
        ({"input_noise": 1.0}, "input_noise = 1.0 with kind"),
    ],
)
def test_dataclasses_replace_validates(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ExperimentError, match=message) as caught:
        dataclasses.replace(Chain(), **changes)
    assert "_origin" not in str(caught.value)
    with pytest.raises(ExperimentError, match="unknown key"):
        Chain(_origin=3)


def test_repr_is_short_and_evaluates() -> None:
    for chain in (
        Chain(),
        Chain(kind="recurrent", width=3, bias=2),
        Chain(profile=[3, 4], gain="torch"),
        Chain(kind="lstm", probes=2),
    ):
        assert eval(repr(chain)) == chain
    assert len(repr(Chain(profile=range(1, 1000)))) < 120


def test_chains_are_frozen() -> None:
    with pytest.raises(AttributeError):
        Chain().width = 3  # type: ignore[misc]


REFUSED: list[tuple[dict[str, Any], list[str]]] = [
    ({"widht": 3}, ["widht", 'did you mean "width"']),
    ({"colour": "red"}, ["colour", "kind, activation"]),
    ({"width": -3}, ["width = -3", "an integer from 1"]),
    ({"width": 0}, ["width = 0"]),
    ({"width": 2**31}, ["width", "2147483647"]),
    ({"width": 64.0}, ["width = 64.0", "integer"]),
    ({"width": True}, ["width = true", "integer"]),
    ({"width": np.bool_(True)}, ["width = true", "integer"]),
    ({"width": [64]}, ["width = [64]"]),
    ({"width": "64"}, ['width = "64"']),
    ({"depth": 0}, ["depth = 0", "an integer from 1"]),
    ({"depth": 2**24}, ["depth", "16777215"]),
    ({"gain": math.nan}, ["gain = nan", "critical"]),
    ({"gain": math.inf}, ["gain = inf"]),
    ({"gain": -1}, ["gain = -1"]),
    ({"gain": True}, ["gain = true"]),
    ({"gain": "nice"}, ['gain = "nice"', "he, kaiming"]),
    ({"gain": 10**400}, ["gain"]),
    ({"gain": 1e-40}, ["gain = 1e-40", "1e-30"]),
    ({"gain": 1j}, ["gain"]),
    ({"bias": -0.1}, ["bias = -0.1"]),
    ({"bias": "torch"}, ['bias = "torch"']),
    ({"input_scale": 0}, ["input_scale = 0"]),
    ({"init": "normal"}, ['init = "normal"', "gaussian, uniform"]),
    ({"output_gradient": "zeros"}, ["output_gradient", "random, ones, loss"]),
    ({"kind": "rnn"}, ['kind = "rnn"', "recurrent, lstm, gru"]),
    ({"activation": "RELU"}, ["RELU", "linear, relu"]),
    ({"activation": 3}, ["activation = 3"]),
    ({"profile": [3]}, ["profile = [3]", "a list of 2"]),
    ({"profile": [3, 0]}, ["profile = [3, 0]"]),
    ({"profile": [3, True]}, ["profile = [3, true]"]),
    ({"profile": [1] * 5000}, ["profile", "4097"]),
    ({"profile": 3}, ["profile = 3"]),
    ({"profile": [3, 4], "width": 3}, ["width = 3", "profile replaces width and depth"]),
    ({"profile": [3, 4], "depth": 1}, ["depth = 1", "profile replaces width and depth"]),
    ({"profile": [3, 3], "kind": "recurrent"}, ["profile", "feedforward"]),
    ({"profile": [3, 4], "init": "identity"}, ["identity", "equal widths"]),
    ({"negative_slope": 0.2}, ["negative_slope", "leaky_relu"]),
    ({"activation": "leaky_relu", "negative_slope": math.inf}, ["negative_slope = inf"]),
    ({"input_noise": 0.1}, ["input_noise", "recurrent"]),
    ({"skip": -1}, ["skip = -1", "rsqrt-depth, inv-depth"]),
    ({"skip": "sqrt"}, ['skip = "sqrt"', "rsqrt-depth, inv-depth"]),
    ({"skip": 1, "carry": -1}, ["carry = -1"]),
    ({"norm": "group"}, ['norm = "group"', "none, batch, layer, rms"]),
    ({"norm": "rms", "norm_position": "middle"}, ['norm_position = "middle"', "before, after, pre, post"]),
    ({"norm": "rms", "norm_eps": -1}, ["norm_eps = -1"]),
    ({"batch": 0}, ["batch = 0", "an integer from 1"]),
    ({"dropout": 1}, ["dropout = 1 ", "less than 1"]),
    ({"dropout": -0.1}, ["dropout = -0.1"]),
    ({"clip": -1}, ["clip = -1"]),
    ({"clip_value": math.inf}, ["clip_value = inf"]),
    ({"kind": "lstm", "forget_bias": math.nan}, ["forget_bias = nan"]),
    ({"probes": 0}, ["probes = 0"]),
]

#: Fields that make no sense together: what is named, and why.
EXCLUDED: list[tuple[dict[str, Any], list[str]]] = [
    ({"probes": 5, "width": 4}, ["probes = 5", "width 4", "independent directions"]),
    ({"probes": 4, "profile": [8, 3, 8]}, ["probes = 4", "profile", "width 3"]),
    ({"probes": 2, "clip": 1}, ["probes = 2", "clip = 1", "span"]),
    ({"probes": 2, "clip_value": 1}, ["probes = 2", "clip_value = 1", "span"]),
    ({"probes": 2, "batch": 3}, ["probes = 2", "batch = 3", "exponents of its own"]),
    ({"probes": 2, "norm": "batch"}, ["probes = 2", "batch = 64", 'norm = "batch"']),
    ({"probes": 2, "output_gradient": "ones"}, ["probes = 2", 'output_gradient = "ones"']),
    ({"probes": 2, "output_gradient": "loss"}, ["probes = 2", 'output_gradient = "loss"']),
    ({"forget_bias": 1}, ["forget_bias = 1", 'kind = "lstm"', 'kind = "feedforward"']),
    ({"kind": "gru", "forget_bias": 1}, ["forget_bias = 1", 'kind = "lstm"', 'kind = "gru"']),
    ({"input_noise": 0.5}, ["input_noise = 0.5", 'kind = "recurrent"', 'kind = "feedforward"']),
    ({"kind": "lstm", "activation": "relu"}, ['activation = "relu"', 'kind = "lstm"', "equations"]),
    ({"kind": "gru", "negative_slope": 0.1}, ["negative_slope = 0.1", 'kind = "gru"']),
    ({"kind": "lstm", "norm": "layer"}, ['norm = "layer"', 'kind = "lstm"', "PyTorch"]),
    ({"kind": "gru", "skip": "inv-depth"}, ['skip = "inv-depth"', 'kind = "gru"']),
    ({"kind": "gru", "dropout": 0.5}, ["dropout = 0.5", 'kind = "gru"']),
    ({"kind": "lstm", "profile": [3, 3]}, ["profile = [3, 3]", 'kind = "feedforward"', 'kind = "lstm"']),
    ({"norm": "rms", "norm_position": "pre"}, ['norm_position = "pre"', "without skip", "branch"]),
    ({"norm": "rms", "norm_position": "post"}, ['norm_position = "post"', "without skip", "sum"]),
    ({"carry": 0.5}, ["carry = 0.5", "without skip"]),
    ({"skip": 1, "profile": [3, 4]}, ["skip = 1", "profile = [3, 4]", "equal widths"]),
    ({"skip": "inv-depth", "profile": [3, 4]}, ['skip = "inv-depth"', "profile = [3, 4]", "equal widths"]),
    ({"init": "identity", "profile": [3, 4]}, ['init = "identity"', "profile = [3, 4]", "equal widths"]),
    ({"norm_position": "after"}, ['norm_position = "after"', "without norm"]),
    ({"norm_eps": 1e-5}, ["norm_eps = 1e-05", "without norm"]),
    ({"norm": "layer", "width": 1}, ['norm = "layer"', "width 1", "over 1 unit its", "exactly 0"]),
    ({"norm": "rms", "width": 1}, ['norm = "rms"', "width 1", "norm_eps = 0", "over 1 unit its", "exactly 0"]),
    ({"norm": "rms", "profile": [9, 1, 9]}, ['norm = "rms"', "profile", "width 1", "norm_eps = 0"]),
    ({"norm": "layer", "width": 2}, ['norm = "layer"', "width 2", "exactly 0"]),
    ({"norm": "layer", "profile": [9, 2, 9]}, ['norm = "layer"', "profile", "width 2"]),
    ({"norm": "batch", "batch": 1}, ['norm = "batch"', "batch = 1", "exactly 0"]),
    ({"norm": "batch", "batch": 2}, ['norm = "batch"', "batch = 2", "exactly 0"]),
    ({"clip": 1, "clip_value": 2}, ["clip = 1", "clip_value = 2", "first"]),
    ({"gain": "critical", "norm": "rms"}, ['gain = "critical"', 'norm = "rms"', "plain"]),
    ({"gain": "critical", "skip": 1}, ['gain = "critical"', "skip = 1", "plain"]),
    ({"gain": "critical", "dropout": 0.5}, ['gain = "critical"', "dropout = 0.5", "plain"]),
    ({"gain": "critical", "kind": "lstm"}, ['gain = "critical"', 'kind = "lstm"', "plain"]),
    *(
        (
            {"norm": "rms", "output_gradient": "loss"} | fields,
            ['output_gradient = "loss"', 'norm = "rms"', "length of the output never changes", *parts],
        )
        for fields, parts in (
            ({"activation": "linear"}, []),
            ({"activation": "leaky_relu", "negative_slope": 1}, ["negative_slope = 1 "]),
            ({"activation": "leaky_relu", "negative_slope": -1}, ["negative_slope = -1 "]),
            ({"norm_position": "after", "skip": 1, "carry": 0}, ["carry = 0 "]),
            ({"norm_position": "after", "dropout": 1e-30}, ["dropout = 1e-30", "drops nothing"]),
        )
    ),
    (
        {"norm": "layer", "output_gradient": "ones", "activation": "leaky_relu", "negative_slope": 1},
        ['output_gradient = "ones"', "negative_slope = 1 ", "sum of all outputs is always 0"],
    ),
    ({"gain": "critical", "activation": "gelu", "bias": 0.1}, ["gelu", "critical", "unstable"]),
]


@pytest.mark.parametrize(
    ("fields", "parts"), REFUSED + EXCLUDED, ids=[repr(fields)[:50] for fields, _ in REFUSED + EXCLUDED]
)
def test_a_bad_field_is_one_line_naming_key_value_and_what_is_allowed(fields: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(ExperimentError) as caught:
        Chain(**fields)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 300
    for part in parts:
        assert part in message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"norm": "layer", "profile": [2, 9, 9]},  # h_0 is not normalised
        {"norm": "batch", "batch": 3},
        {"norm": "rms", "width": 1, "norm_eps": 0.1},
        {"norm": "rms", "profile": [1, 2]},
        {"norm": "layer", "output_gradient": "ones", "activation": "leaky_relu", "negative_slope": -1},
        {"norm": "rms", "output_gradient": "loss", "norm_position": "after", "skip": 1, "carry": 1e-30},
        {"norm": "rms", "output_gradient": "loss", "norm_position": "after", "norm_eps": 1e-30},
        {"norm": "rms", "output_gradient": "loss", "norm_position": "after", "dropout": 1e-9},
        {"probes": 4, "width": 4},
        {"kind": "lstm", "norm": "none", "skip": 0, "dropout": 0},
        {"kind": "gru", "input_noise": 0.5},
        {"skip": 1, "profile": [3, 3]},
        {"gain": "critical", "activation": "erf", "bias": 0.1, "batch": 4, "clip": 1},
    ],
    ids=repr,
)
def test_combinations_at_the_edge_of_what_is_allowed(fields: dict[str, Any]) -> None:
    chain = Chain(**fields)
    assert Chain.from_fields(chain.fields()) == chain


def test_building_a_chain_imports_nothing_heavy() -> None:
    code = (
        "import sys; from gradsim.chain import Chain; Chain(width=3).canonical();"
        "print(sorted({'numpy', 'numba', 'scipy', 'h5py'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
