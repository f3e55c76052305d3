"""Chains against automatic differentiation: fixtures by torch's autograd in float64, for every pair of field values.

The fixtures are committed, so that all but the last test here need no torch. `make_autograd_fixtures.py` makes them.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gradsim import Chain, activations, fields
from gradsim.kernels import reference, reference_parts
from gradsim.vocabulary import CHAIN_FIELDS
from tests.kernels import autograd_cases, compare, covering

ROWS = autograd_cases.fixtures()
each_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: ",".join(f"{k}={v}" for k, v in row["chain"].items()))
# ln ||.|| in float64: sums of a few dozen terms, and what a chain makes of errors, at most CONDITION.
EXACT = 1e-9
# A bound above this would show little.
TELLING = 0.02
# At the last layer of an LSTM the cell has no gradient.
MAY_BE_ZERO = "log_cell_grad_norm"


def chain_of(row):
    return Chain(**row["chain"])


def by_reference(row):
    """What the oracle finds, quantities only."""
    with np.errstate(divide="ignore"):
        found = reference.simulate_chain(chain_of(row), row["seed"], row["index"])
    return {name: found[name] for name in row["values"]}


def disagreements(found, row, bound):
    """Quantities that are not what autograd found; `bound` is a number, or arrays by name."""
    exact = {name: np.array(values) for name, values in row["values"].items()}
    if not isinstance(bound, dict):
        bound = {name: np.full(values.shape, bound) for name, values in exact.items()}
    return compare.differences(found, exact, bound)


def rounding_bound(row, dtype):
    """How far an engine of this dtype may be: half a unit of the stored float32, and six times what errors of
    4 eps sqrt(n) everywhere do, by the condition that autograd's own disturbed passes found (see `compare.bounds`).

    n is the number of terms in the longest sum: units, in batch norm and dLoss/dW times the batch."""
    chain = chain_of(row)
    errors = compare.AMPLIFICATION * compare.ROUNDING * compare.EPS[dtype] * np.sqrt(max(chain.widths) * chain.batch)
    return {
        name: compare.stored(np.array(values)) + errors * np.array(row["condition"][name])
        for name, values in row["values"].items()
    }


@each_row
def test_the_reference_is_what_autograd_finds(row):
    assert set(row["values"]) == set(chain_of(row).quantities)
    assert not disagreements(by_reference(row), row, EXACT)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@each_row
def test_the_engine_is_what_autograd_finds(row, dtype):
    chain, bound = chain_of(row), rounding_bound(row, dtype)
    assert max(values.max() for values in bound.values()) < TELLING
    found = compare.run(chain, row["seed"], row["index"], 1, dtype, chain.quantities)
    assert set(found) == set(row["values"])
    assert not disagreements({name: values[0] for name, values in found.items()}, row, bound)


def test_every_pair_of_values_that_can_meet_is_in_the_fixtures():
    missing = autograd_cases.allowed_pairs() - autograd_cases.covered_pairs()
    assert not missing, sorted(map(str, missing))
    # A table of which little can meet would be met easily.
    assert len(autograd_cases.allowed_pairs()) > 2800


def test_the_table_holds_every_field_and_name():
    assert not autograd_cases.names_missing()


@pytest.mark.parametrize(
    "field",
    [
        fields.choice("activation", "", (*CHAIN_FIELDS["activation"].supported, "softplus")),
        fields.choice("kind", "", (*CHAIN_FIELDS["kind"].supported, "mgu")),
        fields.number("momentum", ""),
    ],
    ids=lambda field: field.name,
)
def test_a_value_or_field_added_later_is_missed(monkeypatch, field):
    """Control: what the vocabulary gains has to be put into the table ..."""
    monkeypatch.setitem(CHAIN_FIELDS, field.name, field)
    assert autograd_cases.names_missing()


def test_a_value_without_fixtures_is_missed(monkeypatch):
    """Control: ... and then into the fixtures."""
    monkeypatch.setitem(autograd_cases.VALUES, "clip", (*autograd_cases.VALUES["clip"], 0.7))
    pairs = covering.allowed_pairs(
        {name: autograd_cases.VALUES[name] for name in ("clip", "batch")}, autograd_cases.completions
    )
    assert any(("clip", 0.7) in pair for pair in pairs - autograd_cases.covered_pairs())


@pytest.mark.parametrize("name", [name for name in CHAIN_FIELDS if name not in autograd_cases.SHAPE])
def test_fields_given_have_an_effect(name):
    """A fixture at which clipping, a skip or probes changed nothing would prove nothing: most do change something."""
    values = [v for v in autograd_cases.VALUES[name] if v not in (None, 0.0, "none", 1)]
    rows = [row for row in ROWS if row["chain"].get(name) in values and row not in ROWS[: len(autograd_cases.MORE)]]
    rows = rows[:: max(1, len(rows) // 12)]
    changed = [row for row in rows if has_effect(row, name)]
    assert len(changed) >= 0.3 * len(rows) > 0


def has_effect(row, name):
    """Whether, from the same draws, the chain without this field gives something else."""
    chain = chain_of(row)
    without = {key: value for key, value in row["chain"].items() if key != name}
    plain = autograd_cases.make(without)
    if plain is None or plain == chain:
        return True
    one, other = (reference.simulate_chain(c, row["seed"], row["index"], streams="common") for c in (chain, plain))
    if one.keys() != other.keys():
        return True
    return any(not np.allclose(one[key], other[key], rtol=1e-6) for key in row["values"])


def test_fixtures_say_something():
    """Finite and well conditioned, but for the few that are about zeros."""
    for row in ROWS[len(autograd_cases.MORE) :]:
        for name, values in row["values"].items():
            assert np.isfinite(values[:-1] if name == MAY_BE_ZERO else values).all()
            assert max(row["condition"][name]) <= autograd_cases.CONDITION


def is_clipped(row):
    chain = chain_of(row)
    return chain.clip > 0 or chain.clip_value > 0


# Wrong derivatives, as one might write them, and the chains that must show each.


def norm_without_the_mean_term(x, norm, eps, still):
    y, pull = normalise(x, norm, eps, still)
    if norm == "rms":
        return y, pull
    # dLoss/dx = (g - y mean(g y)) / sigma: what RMS norm has, with the mean's own derivative left out.
    centred = x - x.mean(1 if norm == "batch" else 0, keepdims=True)
    ratio = np.divide(y, centred, out=np.zeros_like(y), where=centred != 0)
    return y, lambda g: ratio * (g - y * (y * g).mean(1 if norm == "batch" else 0, keepdims=True))


def norm_over_the_other_axis(x, norm, eps, still):
    return normalise(x, {"layer": "batch", "batch": "layer"}.get(norm, norm), eps, still)


def norm_as_a_constant(x, norm, eps, still):
    """The scale taken for a constant: no gradient through the standard deviation."""
    y, _ = normalise(x, norm, eps, still)
    axis = 1 if norm == "batch" else 0
    mean = 0 if norm == "rms" else x.mean(axis, keepdims=True)
    sigma = np.sqrt(np.square(x - mean).mean(axis, keepdims=True) + eps)
    return y, lambda g: (g - (0 if norm == "rms" else g.mean(axis, keepdims=True))) / sigma


def clipped_after_the_pass(chain, g):
    return g


def clipped_by_the_largest_entry(chain, g):
    return g * min(1.0, chain.clip / np.abs(g).max()) if chain.clip > 0 else clipped(chain, g)


normalise, clipped = reference_parts.normalise, reference_parts.clipped
WRONG = [
    ("normalise", norm_without_the_mean_term, lambda row: row["chain"]["norm"] in ("batch", "layer")),
    ("normalise", norm_over_the_other_axis, lambda row: row["chain"]["norm"] == "batch"),
    ("normalise", norm_as_a_constant, lambda row: row["chain"]["norm"] == "rms"),
    ("clipped", clipped_after_the_pass, lambda row: row["chain"].get("clip") == 0.3),
    ("clipped", clipped_after_the_pass, lambda row: row["chain"].get("clip_value") == 0.05),
    ("clipped", clipped_by_the_largest_entry, lambda row: row["chain"].get("clip") == 0.3),
]


@pytest.mark.parametrize(("name", "wrong", "shows"), WRONG, ids=lambda value: getattr(value, "__name__", ""))
def test_a_wrong_derivative_is_rejected(monkeypatch, name, wrong, shows):
    """Control: by nearly every chain it concerns, in float64 and with the bound of float32; not by the others."""
    monkeypatch.setattr(reference, name, wrong)
    rejected(shows)


@pytest.mark.parametrize("activation", ["erf", "sigmoid", "gelu", "silu", "leaky_relu", "tanh"])
def test_a_wrong_slope_is_rejected(monkeypatch, activation):
    """Control: phi' off by one part in a hundred."""
    get = activations.get

    def off(name, slope):
        found = get(name, slope)
        return dataclasses.replace(found, dphi=lambda z: 1.01 * found.dphi(z)) if name == activation else found

    monkeypatch.setattr(activations, "get", off)
    rejected(lambda row: row["chain"].get("activation") == activation and not is_clipped(row))


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_wrong_cell_is_rejected(monkeypatch, cell):
    """Control: the matrix of the last gate taken for that before it, on the way back and forward alike."""
    step = getattr(reference, f"{cell}_step")
    monkeypatch.setattr(reference, f"{cell}_step", lambda w, *rest: step([*w[:-2], w[-1], w[-2]], *rest))
    rejected(lambda row: row["chain"]["kind"] == cell and row["chain"]["init"] != "identity")


def test_a_skip_without_its_factor_is_rejected(monkeypatch):
    """Control: alpha = 1 on the way back."""
    layer = reference._layer

    def without(chain, *rest):
        state, step = layer(chain, *rest)
        if not chain.skip_factor:
            return state, step
        _, wrong = layer(dataclasses.replace(chain, skip=1.0), *rest)
        return state, wrong

    monkeypatch.setattr(reference, "_layer", without)
    rejected(
        lambda row: row["chain"].get("skip") in (0.6, "rsqrt-depth", "inv-depth") and chain_of(row).skip_factor != 1
    )


def rejected(shows):
    """A spoilt reference disagrees with the fixtures it should, and with no other that has nothing of the kind."""
    concerned = [row for row in ROWS[len(autograd_cases.MORE) :] if "norm" in row["chain"] and shows(row)]
    assert len(concerned) > 2
    found = [by_reference(row) for row in concerned]
    for bound in (lambda row: EXACT, lambda row: rounding_bound(row, "float32")):
        seen = [bool(disagreements(values, row, bound(row))) for values, row in zip(found, concerned, strict=True)]
        assert np.mean(seen) > 0.8, [row["chain"] for row, ok in zip(concerned, seen, strict=True) if not ok]


@pytest.mark.parametrize("row", ROWS[:: len(ROWS) // 12], ids=lambda row: str(row["chain"]))
def test_autograd_still_finds_what_the_fixtures_hold(row):
    """The only test here that needs torch: without it, the fixtures stand as they are."""
    pytest.importorskip("torch")
    from tests.kernels import autograd_torch

    found = autograd_torch.differentiate(chain_of(row), row["seed"], row["index"])
    assert set(found) == set(row["values"])
    assert not disagreements(found, row, EXACT)
