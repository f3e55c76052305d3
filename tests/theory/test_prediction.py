"""`predict` and the document of ``gradsim theory --json``."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from gradsim.chain import Chain
from gradsim.theory.law import Increment
from gradsim.theory.registry import predict
from gradsim.theory.special import LogActiveFraction


def test_exact_law():
    prediction = predict(Chain(width=16, depth=10))
    assert prediction.validity == "exact"
    assert prediction.mean.shape == prediction.var.shape == prediction.p_dead.shape == (11,)
    assert prediction.p_dead[0] == pytest.approx(-math.expm1(10 * math.log1p(-(2.0**-16))))
    assert prediction.p_dead[-1] == 0.0
    assert prediction.rate == pytest.approx(prediction.mean[0] / 10)
    assert prediction.log_second_moment[0] == pytest.approx(0.0, abs=1e-12)
    assert prediction.cdf(prediction.mean[0]) == pytest.approx(0.5, abs=0.05)
    assert prediction.cdf([[-100.0, 100.0]], layer=3).tolist() == [[0.0, 1.0]]
    with pytest.raises(IndexError, match=r"layer 11 is outside 0\.\.10"):
        prediction.cdf(0.0, layer=11)


def test_document():
    document = predict(Chain(width=16, depth=3)).to_dict()
    json.dumps(document, allow_nan=False)
    row, *others = document["predictions"]
    assert [other["quantity"] for other in others] == ["log_activation_norm", "log_weight_grad_norm"]
    names = ["quantity", "layer", "mean", "var", "log_second_moment", "p_dead", "rate", "validity", "source"]
    assert list(row) == list(others[0]) == names
    assert row["layer"] == [0, 1, 2, 3]
    assert len(row["mean"]) == len(row["var"]) == len(row["log_second_moment"]) == 4
    assert isinstance(row["p_dead"], float)


def test_unknown_values_are_null():
    (row,) = predict(Chain(activation="tanh", profile=[4, 5, 6], gain=1.5)).to_dict()["predictions"]
    assert row["var"] is None
    assert row["rate"] is None
    recurrent = Chain(kind="recurrent", activation="linear", width=4, depth=2, gain=1.0)
    row = predict(recurrent).to_dict()["predictions"][0]
    assert row["mean"] == [None, None, 0.0]


def test_chain_without_a_law():
    prediction = predict(Chain(kind="recurrent", activation="tanh", skip=1.0, width=8, depth=2))
    assert np.isnan(prediction.mean).all()
    assert prediction.var is prediction.p_dead is prediction.log_second_moment is None
    assert prediction.validity is prediction.source is prediction.cdf(0.0) is None
    assert math.isnan(prediction.rate)
    assert prediction.to_dict()["predictions"] == []


@pytest.mark.parametrize("bias", [0.0, 0.5])
def test_deaths_count_the_layers_that_matter(bias):
    alive = np.array([1 - 2.0**-n for n in (3, 8, 2, 5)])
    above = [1 - np.prod(alive[layer:]) for layer in range(4)]
    expected = [*above, 0.0] if bias else [above[0]] * 4 + [0.0]
    np.testing.assert_allclose(predict(Chain(profile=[6, 3, 8, 2, 5], bias=bias)).p_dead, expected)


def test_quoted_growth_of_identity():
    prediction = predict(Chain(activation="linear", init="identity", width=3, depth=10, gain=1.5))
    assert math.exp(prediction.mean[0]) == pytest.approx(57.6650390625)
    assert prediction.var.tolist() == [0.0] * 11


LAWS = [
    Chain(width=16, depth=10),
    Chain(activation="linear", width=4, depth=3, gain=1.0),
    Chain(profile=[3, 3, 3], init="orthogonal"),
    Chain(profile=[2, 5, 3], init="orthogonal", activation="linear"),
    Chain(activation="linear", init="identity", gain=1.0),
]


@pytest.mark.parametrize("chain", LAWS, ids=[f"{chain.init}-{chain.activation}" for chain in LAWS])
def test_distribution_function_at_values_that_are_no_numbers(chain):
    prediction = predict(chain)
    points = np.array([[math.nan, -math.inf], [math.inf, 50.0]])
    np.testing.assert_array_equal(prediction.cdf(points), [[math.nan, 0.0], [1.0, 1.0]])
    assert math.isnan(prediction.cdf(math.nan))
    assert prediction.cdf(-math.inf) == 0.0
    assert prediction.cdf(math.inf) == 1.0
    assert prediction.cdf([]).shape == (0,)


@pytest.mark.parametrize(
    ("chain", "parts"),
    [
        (Chain(width=64, depth=10_000), ["exact", "mean of ln||g_0|| -200.5", "sd 14.4", "p_dead", "rate -0.02005"]),
        (Chain(activation="tanh", gain="critical", depth=10_000), ["mean field", "mean of ln||g_0||"]),
        (Chain(kind="recurrent", activation="linear", gain=1.0, width=8, depth=3), ["exact", "ln E||g_0||^2"]),
        (Chain(profile=[8] * 3000), ["profile=[8, 8, 8, 8, ..., 8, 8]"]),
        (Chain(output_gradient="loss", bias=0.1, depth=10_000), ["no law known"]),
    ],
)
def test_repr_is_short(chain, parts):
    prediction = predict(chain)
    text = repr(prediction)
    assert text.startswith("Prediction(Chain(")
    assert len(text) < 300 and "\n" not in text and "nan" not in text
    assert all(part in text for part in parts), text
    assert len(repr(prediction.law)) < 100


def test_what_a_profile_of_many_widths_costs(monkeypatch):
    """Moments of complex order at some hundred points a width, once; what lies beside the law takes none of them again.

    By the second call everything is kept.
    """
    points = []
    log_moment = LogActiveFraction.log_moment

    def counted(part, s):
        points.append(s.size)
        return log_moment(part, s)

    monkeypatch.setattr(LogActiveFraction, "log_moment", counted)
    widths = range(301, 421)
    prediction = predict(Chain(profile=list(widths)))
    assert len(points) <= len(widths), "one for the mean of the square"
    points.clear()
    prediction.to_dict()
    assert not points
    first = prediction.cdf(prediction.mean[0] + np.array([-1.0, 0.0, 1.0]))
    assert sum(points) <= 160 * len(widths)
    assert len(points) <= 4 * len(widths)
    points.clear()
    np.testing.assert_array_equal(prediction.cdf(prediction.mean[0] + np.array([-1.0, 0.0, 1.0])), first)
    assert not points


def test_a_chain_predicted_again_has_the_law_that_was_kept():
    first, second = (predict(Chain(width=8, depth=5, clip=0.9)) for _ in range(2))
    assert first.law is second.law and first.law is not predict(Chain(width=8, depth=5, clip=0.8)).law
    for array in (first.mean, first.var, first.log_second_moment, first.p_dead):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0.0


@pytest.mark.parametrize("activation", ["linear", "relu"])
def test_equal_layers_of_a_long_chain_are_made_once(activation, monkeypatch):
    made = []
    fill = Increment.__init__
    monkeypatch.setattr(
        Increment, "__init__", lambda self, *args, **named: made.append(args) or fill(self, *args, **named)
    )
    chain = Chain(activation=activation, width=7, depth=2000)
    assert len(predict(chain).to_dict()["predictions"]) == 3
    assert 0 < len(made) < 30
