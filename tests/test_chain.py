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
from gradsim.vocabulary import CHAIN_FIELDS, LATER_FIELDS


@st.composite
def chains(draw: st.DrawFn) -> Chain:
    """Any chain that is allowed."""
    number = st.floats(1e-3, 1e3)
    fields: dict[str, Any] = {
        "kind": draw(st.sampled_from(["feedforward", "recurrent"])),
        "activation": draw(st.sampled_from(CHAIN_FIELDS["activation"].supported)),
        "init": draw(st.sampled_from(CHAIN_FIELDS["init"].supported)),
        "gain": draw(st.one_of(number, st.just(0), st.sampled_from(["he", "kaiming", "lecun", "xavier", "torch"]))),
        "input_scale": draw(number),
        "output_gradient": draw(st.sampled_from(["random", "ones", "loss"])),
    }
    if fields["kind"] == "feedforward" and fields["init"] != "identity" and draw(st.booleans()):
        fields["profile"] = draw(st.lists(st.integers(1, 1000), min_size=2, max_size=6))
    else:
        fields |= {"width": draw(st.integers(1, 1000)), "depth": draw(st.integers(1, 10_000))}
    if draw(st.booleans()):
        fields["bias"] = draw(st.one_of(st.just(0), number))
    if fields["activation"] == "leaky_relu":
        fields["negative_slope"] = draw(st.floats(-2, 2).filter(lambda slope: slope == 0 or abs(slope) > 1e-3))
    if fields["kind"] == "recurrent":
        fields["input_noise"] = draw(number)
    left_out = draw(st.sets(st.sampled_from(sorted(fields.keys() - {"kind", "activation", "profile"}))))
    return Chain(**{name: value for name, value in fields.items() if name not in left_out})


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
    assert not {"negative_slope", "input_noise", "profile"} & Chain().fields().keys()
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


@pytest.mark.parametrize("change", [{"gain": 3.0}, {"bias": 1.0, "bias_name": "torch"}, {"colour": 1}])
def test_fields_that_contradict_themselves_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ExperimentError):
        Chain.from_fields(Chain().fields() | change)


def test_replace_drops_what_the_change_replaces() -> None:
    chain = Chain(width=3, depth=4, activation="leaky_relu", negative_slope=0.2)
    assert chain.replace(profile=[3, 4]).profile == (3, 4)
    assert chain.replace(profile=[3, 4]).replace(width=8).profile is None
    assert chain.replace(activation="relu") == Chain(width=3, depth=4)
    assert Chain(kind="recurrent", input_noise=1).replace(kind="feedforward") == Chain()


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
        ({"input_noise": 1.0}, "input_noise applies to"),
    ],
)
def test_dataclasses_replace_validates(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ExperimentError, match=message) as caught:
        dataclasses.replace(Chain(), **changes)
    assert "_origin" not in str(caught.value)
    with pytest.raises(ExperimentError, match="unknown key"):
        Chain(_origin=3)


def test_repr_is_short_and_evaluates() -> None:
    for chain in (Chain(), Chain(kind="recurrent", width=3, bias=2), Chain(profile=[3, 4], gain="torch")):
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
    ({"kind": "lstm"}, ["lstm", "not supported by any kernel yet", "recurrent"]),
    ({"activation": "gelu"}, ["gelu", "not supported by any kernel yet", "leaky_relu"]),
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
]


@pytest.mark.parametrize(("fields", "parts"), REFUSED, ids=[repr(fields)[:40] for fields, _ in REFUSED])
def test_a_bad_field_is_one_line_naming_key_value_and_what_is_allowed(fields: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(ExperimentError) as caught:
        Chain(**fields)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 300
    for part in parts:
        assert part in message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", LATER_FIELDS)
def test_fields_without_a_kernel_say_so(name: str) -> None:
    with pytest.raises(ExperimentError, match=f"{name} is not supported by any kernel yet"):
        Chain(**{name: 1})


def test_building_a_chain_imports_nothing_heavy() -> None:
    code = (
        "import sys; from gradsim.chain import Chain; Chain(width=3).canonical();"
        "print(sorted({'numpy', 'numba', 'scipy', 'h5py'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
