"""Gradients and spreads that cancel: zero where they are in the law, NaN where only the dtype has no digits for them.

The reference decides in another way: it forms every sum in float64 beside that of its terms' magnitudes, and takes one
10^-9 of them for zero. The kernels look at which entries carry a gradient, never at its size.
"""

from __future__ import annotations

import numpy as np
import pytest

from gradsim import Chain
from gradsim.kernels import layout, lone, reference
from tests.kernels import compare

SEED, COUNT = 1, 25
DTYPES = ("float32", "float64")

# Chains of which some die by cancellation: one case for each norm, position and what else decides it.
DYING = {
    "rms": {"width": 5, "depth": 8, "norm": "rms"},
    "layer": {"width": 6, "depth": 8, "norm": "layer"},
    "recurrent": {"width": 5, "depth": 5, "norm": "rms", "kind": "recurrent"},
    "leaky with slope 0": {"width": 4, "depth": 6, "norm": "rms", "activation": "leaky_relu", "negative_slope": 0.0},
    "clipped": {"width": 4, "depth": 6, "norm": "rms", "clip_value": 0.3},
    "after, with a bias": {"width": 4, "depth": 6, "norm": "rms", "norm_position": "after", "bias": 0.3},
    "layer after": {"width": 5, "depth": 5, "norm": "layer", "norm_position": "after"},
    "inputs": {"width": 4, "depth": 6, "norm": "rms", "batch": 3},
    "inputs after": {"width": 4, "depth": 6, "norm": "rms", "batch": 3, "norm_position": "after"},
    "batch": {"width": 2, "depth": 6, "norm": "batch", "batch": 3},
    "batch of one unit": {"width": 1, "depth": 3, "norm": "batch", "batch": 3},
    "batch after": {"width": 3, "depth": 3, "norm": "batch", "batch": 4, "norm_position": "after"},
    "batch after, bias": {"width": 3, "depth": 3, "norm": "batch", "batch": 3, "norm_position": "after", "bias": 0.5},
    "dropout": {"width": 5, "depth": 5, "norm": "rms", "dropout": 0.6, "activation": "linear"},
    "dropout of tanh": {"width": 5, "depth": 5, "norm": "layer", "dropout": 0.6, "activation": "tanh"},
    "dropout after": {"width": 5, "depth": 5, "norm": "rms", "dropout": 0.5, "norm_position": "after"},
    "batch, dropout": {"width": 3, "depth": 3, "norm": "batch", "batch": 3, "dropout": 0.6, "activation": "gelu"},
    "pre": {"width": 4, "depth": 5, "norm": "rms", "norm_position": "pre", "skip": 0.7, "carry": 0.0, "bias": 0.2},
    "post": {"width": 4, "depth": 5, "norm": "rms", "norm_position": "post", "skip": 0.7, "carry": 0.0, "bias": 0.2},
    "batch pre": {"width": 3, "depth": 4, "norm": "batch", "batch": 3, "norm_position": "pre", "skip": 1, "carry": 0.0},
    "one input unit": {"profile": [1, 5, 5], "norm": "rms"},
    "isometries": {"width": 4, "depth": 4, "norm": "layer", "init": "orthogonal"},
    "loss": {"width": 2, "depth": 4, "norm": "rms", "output_gradient": "loss"},
    "loss, dropout": {"width": 3, "depth": 4, "norm": "layer", "dropout": 0.3, "activation": "linear"}
    | {"output_gradient": "ones"},
    "probes": {"width": 6, "depth": 5, "norm": "rms", "probes": 3},
    "all probes": {"width": 5, "depth": 5, "norm": "layer", "probes": 5, "norm_position": "after"},
}
# The same where something breaks the cancellation.
LIVING = {
    "bias": {"width": 3, "depth": 4, "norm": "rms", "bias": 0.5},
    "eps": {"width": 3, "depth": 4, "norm": "rms", "norm_eps": 0.1},
    "noise": {"width": 3, "depth": 4, "norm": "rms", "kind": "recurrent", "input_noise": 0.4},
}


def run(chain, dtype, count=COUNT, **more):
    return compare.run(chain, SEED, 0, count, dtype, chain.quantities, **more)


def pattern(values):
    """-inf, NaN and numbers, told apart."""
    return np.where(np.isnan(values), np.nan, np.where(np.isneginf(values), -np.inf, 0.0))


def expected(chain, count=COUNT):
    """Each quantity of the reference, (count, columns)."""
    with np.errstate(all="ignore"):
        found = [reference.simulate_chain(chain, SEED, index) for index in range(count)]
    return {name: np.array([np.asarray(one[name], float) for one in found]) for name in chain.quantities}


def active_units(chain, index):
    """The fewest units that are on in a hidden layer."""
    return min(np.count_nonzero(h) for h in reference.simulate_chain(chain, SEED, index)["h"][1:-1])


class TestZeros:
    @pytest.mark.parametrize("fields", DYING.values(), ids=DYING)
    def test_they_are_the_same_in_both_dtypes_and_the_reference(self, fields):
        chain = Chain(**fields)
        exact = expected(chain)
        assert np.isneginf(exact["log_grad_norm"][:, 0]).any()
        for dtype in DTYPES:
            found = run(chain, dtype)
            for name, values in found.items():
                wanted = exact[name]
                if chain.norm == "batch" and name == "log_weight_grad_norm":
                    # Where inputs are parallel all the way up, zeros of the weights are told as NaN, never as numbers.
                    wanted = np.where(np.isneginf(wanted) & np.isnan(values), np.nan, wanted)
                np.testing.assert_array_equal(pattern(values), pattern(wanted), err_msg=f"{dtype} {name}")
                if dtype == "float64":
                    np.testing.assert_allclose(values, wanted, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("fields", LIVING.values(), ids=LIVING)
    def test_one_unit_that_is_on_is_enough_where_the_size_counts(self, fields):
        chain = Chain(**fields)
        alone = [index for index in range(100) if active_units(chain, index) == 1]
        assert len(alone) > 5
        gradients = run(chain, "float64", 100)["log_grad_norm"]
        np.testing.assert_array_equal(pattern(gradients[alone]), pattern(expected(chain, 100)["log_grad_norm"][alone]))
        assert np.isfinite(gradients[alone]).all(axis=1).any()

    @pytest.mark.parametrize("fields", [DYING[name] for name in ("rms", "batch", "recurrent")], ids=str)
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_chains_without_them_keep_every_bit(self, fields, dtype, monkeypatch):
        chain = Chain(**fields)
        found = run(chain, dtype)
        monkeypatch.setattr(layout, "rules", lambda chain: lone.Rules())
        plain = run(chain, dtype)
        alive = np.isfinite(found["log_grad_norm"][:, 0])
        assert alive.any()
        for name, values in found.items():
            np.testing.assert_array_equal(values[alive], plain[name][alive])
        # Without the rules what they zero is rounding, and said to be.
        dead, rounding = np.isneginf(found["log_grad_norm"][:, 0]), ~np.isneginf(plain["log_grad_norm"][:, 0])
        assert (dead & rounding).any()
        assert np.isnan(plain["log_grad_norm"][dead & rounding, 0]).all()

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_what_rounding_leaves_of_a_weight_gradient_is_no_zero(self, dtype):
        """Deep linear chains of two or three units under batch norm: their inputs all but align, and never do."""
        for fields in (
            {"width": 2, "batch": 64},
            {"width": 3, "batch": 4},
            {"width": 8, "kind": "recurrent", "batch": 8},
        ):
            chain = Chain(depth=40, norm="batch", activation="linear", **fields)
            weights = run(chain, dtype, 60)["log_weight_grad_norm"]
            assert not np.isneginf(weights).any()
            assert np.isfinite(weights).any()

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize(("norm", "position"), [("layer", "before"), ("batch", "before"), ("layer", "after")])
    def test_a_branch_that_cancels_leaves_the_carry(self, dtype, norm, position):
        """The sum of a normed branch's outputs is 0 whatever comes in: all of the gradient is the carry's."""
        fields = {"norm": norm, "norm_position": position, "skip": 1.0, "output_gradient": "ones"}
        batch = 5 if norm == "batch" else 1
        activation = "relu" if position == "after" else "linear"
        found = run(Chain(width=16, depth=9, batch=batch, activation=activation, **fields), dtype)
        np.testing.assert_allclose(found["log_grad_norm"], 0.5 * np.log(16 * batch), rtol=1e-6)
        assert not np.isfinite(found["log_weight_grad_norm"]).any()

    def test_exact_zeros_of_weight_gradients_stay_zeros(self):
        """Inputs that are all zero in the columns that carry a gradient."""
        chain = Chain(width=2, depth=10, bias=0.5, batch=3)
        for dtype in DTYPES:
            weights = run(chain, dtype, 300)["log_weight_grad_norm"]
            assert not np.isnan(weights).any()
            assert np.isneginf(weights).any()

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_weights_of_one_input_under_batch_norm(self, dtype):
        """z = w h: batch norm divides by |w|."""
        for profile in ([1, 5, 4], [1, 5, 1, 4], [1, 3]):
            for bias in (0.0, 0.5):
                chain = Chain(norm="batch", batch=6, bias=bias, profile=profile, activation="tanh")
                found = run(chain, dtype)
                assert np.isneginf(found["log_weight_grad_norm"][:, 0]).all()
                assert np.isfinite(found["log_grad_norm"]).all()
        recurrent = Chain(kind="recurrent", width=1, depth=3, norm="batch", batch=6, activation="tanh")
        assert np.isneginf(run(recurrent, dtype)["log_weight_grad_norm"]).all()
        eps = Chain(norm="batch", batch=6, profile=[1, 5, 4], norm_eps=0.3)
        assert np.isfinite(run(eps, dtype)["log_weight_grad_norm"]).all()


class TestSpread:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize(
        "fields",
        [
            {"activation": "tanh"},
            {"activation": "linear", "norm_position": "after"},
            {"activation": "linear", "norm_position": "post", "skip": 0.5},
        ],
        ids=str,
    )
    def test_a_bias_that_batch_norm_takes_out_changes_no_bit(self, fields, dtype):
        chain = Chain(width=8, depth=3, norm="batch", batch=5, gain=1.0, **fields)
        found, biased = (run(c, dtype, streams="common") for c in (chain, chain.replace(bias=1e9)))
        for name, values in found.items():
            np.testing.assert_array_equal(biased[name], values)
        seen = run(chain.replace(activation="tanh", norm_position="after", bias=0.5), dtype, streams="common")
        assert (seen["log_grad_norm"] != found["log_grad_norm"]).any()

    def test_saturated_units_have_digits_or_are_nan(self):
        fields = {"activation": "tanh", "width": 4, "depth": 2, "norm": "batch", "norm_position": "after"}
        chain = Chain(**fields, gain=1.0, bias=5.0, batch=4)
        single, double = (run(chain, dtype, 200)["log_grad_norm"] for dtype in DTYPES)
        exact = expected(chain, 200)["log_grad_norm"]
        lost = np.isnan(single[:, 0])
        assert 20 < lost.sum() < 180
        assert not np.isneginf(single).any()
        assert (lost | ~np.isnan(double[:, 0])).all()
        np.testing.assert_allclose(single[~lost], double[~lost], atol=0.1)
        known = ~np.isnan(double) & ~np.isnan(exact)
        assert known[:, 0].sum() > 150
        np.testing.assert_allclose(double[known], exact[known], atol=0.1)
        # NaN from there on: the states above, the gradients below the top.
        assert np.isfinite(single[:, -1]).all()
        assert np.isnan(run(chain, "float32", 200)["log_activation_norm"][lost, -1]).all()

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_ordinary_saturation_is_no_loss(self, dtype):
        chain = Chain(activation="tanh", width=16, depth=4, norm="batch", norm_position="after", gain=1.0, bias=0.5)
        assert np.isfinite(run(chain, dtype)["log_grad_norm"]).all()

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("norm", ["batch", "layer"])
    def test_what_is_constant_in_the_law_is_zero(self, norm, dtype):
        bias = 1.0 if norm == "batch" else 0.0
        fields = {"width": 4, "depth": 3, "norm": norm, "norm_position": "after", "activation": "sigmoid", "batch": 4}
        still = run(Chain(gain=0.0, bias=bias, **fields), dtype)
        assert np.isneginf(still["log_activation_norm"][:, 1:]).all()
        assert np.isneginf(still["log_weight_grad_norm"]).all()
        # A weight of 10^-20 moves all of them, by less than there are digits.
        moved = run(Chain(gain=1e-20, bias=bias, **fields), dtype)
        assert np.isnan(moved["log_activation_norm"][:, 1:]).all()
        assert np.isnan(moved["log_grad_norm"][:, :-1]).all()


class TestConstantLoss:
    """Losses that are constant but for something too small for the dtype: no number is right, and none is given."""

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize(
        "fields",
        [
            {"norm_eps": 1e-30, "activation": "tanh"},
            {"norm_eps": 1e-30, "activation": "linear", "norm_position": "before"},
            {"norm_eps": 1e-30, "norm": "batch", "batch": 5},
            {"skip": 1.0, "carry": 1e-30, "activation": "tanh"},
            {"activation": "leaky_relu", "negative_slope": 1.0 + 1e-15, "norm_position": "before"},
        ],
        ids=str,
    )
    def test_it_is_nan(self, fields, dtype):
        chain = Chain(
            **{"width": 6, "depth": 3, "norm": "rms", "norm_position": "after"} | fields, output_gradient="loss"
        )
        gradients = run(chain, dtype)["log_grad_norm"]
        assert np.isnan(gradients[:, :-1]).all()
        seen = {name: 0.3 for name in ("norm_eps", "carry", "negative_slope") if name in fields}
        # A leaky layer of units of one sign is linear.
        assert np.isfinite(run(chain.replace(**seen), dtype)["log_grad_norm"][:, -2]).mean() > 0.8

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_where_dropout_leaves_all_units_it_is_zero(self, dtype):
        chain = Chain(width=3, depth=2, norm="rms", activation="linear", dropout=0.2, output_gradient="loss")
        whole = np.array([np.all(reference.simulate_chain(chain, SEED, i)["h"][-1] != 0) for i in range(COUNT)])
        assert whole.any()
        np.testing.assert_array_equal(np.isneginf(run(chain, dtype)["log_grad_norm"][:, 1]), whole)
