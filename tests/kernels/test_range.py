"""No depth, gain or scale takes a chain out of its dtype, and what does leave it is told."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gradsim import Chain
from tests.kernels import compare, oracle
from tests.kernels.compare import EPS, stored

HOMOGENEOUS = [
    {"activation": "linear"},
    {"activation": "relu"},
    {"activation": "leaky_relu", "negative_slope": 0.2},
    {"activation": "leaky_relu", "negative_slope": -1.5},
]
GAINS = [1e-30, 1e-3, 0.7, 3.0, 1e3, 1e30]


def assert_exact(chain, seed=0, index=0, dtype="float32"):
    """The kernel gives what the chain in unlimited range gives; returns what it gave."""
    found = {name: values[0] for name, values in compare.run(chain, seed, index, 1, dtype).items()}
    assert not compare.disagreements(found, chain, seed, index, dtype), (chain, index)
    return found


def rounding(layers, logs):
    """What rounding of the gain and of one product a layer may add up to, and that of the stored number."""
    return 1.5 * EPS["float32"] * layers + stored(logs)


class TestHomogeneous:
    @pytest.mark.parametrize("fields", HOMOGENEOUS, ids=str)
    def test_a_gain_only_shifts_the_logs_of_deep_chains(self, fields):
        """With the same weights, gain a adds (L - l) ln a to ln||g_l|| and l ln a to ln||h_l||.

        Exactly, where a is a power of two; for others in float64, since in float32 the sign of a z near zero may turn.
        """
        depth = 10_000
        chain = Chain(**fields, width=32, depth=depth, gain=1.25)
        layers = np.arange(depth + 1)
        shifts = {
            "log_grad_norm": depth - layers,
            "log_grad_max": depth - layers,
            "log_activation_norm": layers,
            "log_weight_grad_norm": np.full(depth, depth - 1),
        }
        for dtype, factors in (("float32", (2.0**-99, 2.0**-10, 2.0**10, 2.0**99)), ("float64", (1e-30, 1e3))):
            plain = compare.run(chain, 2, 0, 1, dtype, streams="common")
            assert all(np.isfinite(values).all() for values in plain.values())
            for factor in factors:
                changed = chain.replace(gain=1.25 * factor)
                found = compare.run(changed, 2, 0, 1, dtype, streams="common")
                for name, values in found.items():
                    expected = plain[name][0].astype(float) + shifts[name] * math.log(factor)
                    allowed = stored(expected) + stored(plain[name][0]) + 1e-9
                    assert (np.abs(values[0] - expected) <= allowed).all(), (factor, name)

    @pytest.mark.parametrize("kind", ["feedforward", "recurrent"])
    @pytest.mark.parametrize("gain", GAINS)
    def test_identity_gives_the_power_of_the_gain(self, gain, kind):
        depth = 10_000
        chain = Chain(kind=kind, activation="linear", init="identity", width=7, depth=depth, gain=gain)
        found = compare.run(chain, dtype="float32")["log_grad_norm"][0]
        exact = np.arange(depth, -1, -1) * math.log(gain)
        assert (np.abs(found - exact) <= rounding(depth, exact)).all()

    @pytest.mark.parametrize("gain", [0.25, 2.0, 1024.0])
    def test_powers_of_two_are_exact(self, gain):
        chain = Chain(activation="linear", init="identity", width=7, depth=10_000, gain=gain, output_gradient="ones")
        found = compare.run(chain, dtype="float32")["log_grad_norm"][0]
        exact = np.arange(10_000, -1, -1) * math.log(gain) + 0.5 * math.log(7)
        assert (np.abs(found - exact) <= stored(exact)).all()

    @pytest.mark.parametrize("kind", ["feedforward", "recurrent"])
    @pytest.mark.parametrize("gain", GAINS)
    def test_orthogonal_gives_the_power_of_the_gain(self, gain, kind):
        depth, width = 2_000, 8
        chain = Chain(kind=kind, activation="linear", init="orthogonal", width=width, depth=depth, gain=gain)
        for dtype in ("float32", "float64"):
            found = compare.run(chain, dtype=dtype)
            exact = np.arange(depth, -1, -1) * math.log(gain)
            allowed = 4 * math.sqrt(width) * EPS[dtype] * depth + stored(exact)
            assert (np.abs(found["log_grad_norm"][0] - exact) <= allowed).all()
            h = found["log_activation_norm"][0].astype(float)
            allowed = 4 * math.sqrt(width) * EPS[dtype] * depth + stored(h) + stored(h[0])
            assert (np.abs(h - h[0] - exact[::-1]) <= allowed).all()

    @pytest.mark.parametrize("fields", HOMOGENEOUS, ids=str)
    @pytest.mark.parametrize("scale", [2.0**-99, 2.0**-20, 2.0**99])
    def test_input_scale_shifts_the_activations_alone(self, fields, scale):
        chain = Chain(**fields, width=64, depth=50)
        plain = compare.run(chain, dtype="float32", streams="common")
        found = compare.run(chain.replace(input_scale=scale), dtype="float32", streams="common")
        np.testing.assert_array_equal(found["log_grad_norm"], plain["log_grad_norm"])
        np.testing.assert_array_equal(found["log_grad_max"], plain["log_grad_max"])
        for name in ("log_activation_norm", "log_weight_grad_norm"):
            expected = plain[name].astype(float) + math.log(scale)
            allowed = stored(expected) + stored(plain[name]) + 1e-9
            assert (np.abs(found[name] - expected) <= allowed).all()

    @pytest.mark.parametrize("kind", ["feedforward", "recurrent"])
    @pytest.mark.parametrize("fields", HOMOGENEOUS, ids=str)
    @pytest.mark.parametrize("gain", [1e-3, 1e3])
    @pytest.mark.parametrize("bias", [1e-30, 1.0, 1e30])
    def test_a_bias_of_another_size_than_the_activations(self, fields, kind, gain, bias):
        chain = Chain(**fields, kind=kind, width=24, depth=25, gain=gain, bias=bias, input_scale=1e-10)
        for dtype in ("float32", "float64"):
            found = assert_exact(chain, index=1, dtype=dtype)
            assert np.isfinite(found["log_grad_norm"]).all()

    @pytest.mark.parametrize("noise", [1e-30, 1e30])
    def test_noise_of_another_size_than_the_activations(self, noise):
        for gain in (1e-3, 1e3):
            assert_exact(Chain(kind="recurrent", width=24, depth=25, gain=gain, input_noise=noise))

    @pytest.mark.parametrize("gain", [1.0, 1e30])
    @pytest.mark.parametrize("bias", [1e-30, 1e30])
    def test_a_bias_wakes_a_dead_layer_whatever_its_size(self, gain, bias):
        """h_l = 0 and then h_{l+1} = phi(b): its norm is the bias's, however large the gain is."""
        woken = 0
        for index in range(25):
            chain = Chain(width=1, depth=5, gain=gain, bias=bias, input_scale=1e-30)
            h = assert_exact(chain, index=index)["log_activation_norm"]
            woken += bool((np.isneginf(h[:-1]) & np.isfinite(h[1:])).any())
        assert woken >= 5

    @pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
    def test_a_bias_too_small_to_count_still_decides_the_sign_of_zero(self, activation):
        """Units of an identity chain that are silent have z = b, however large the others have grown: half of them
        let the gradient through."""
        chain = Chain(
            activation=activation, init="identity", width=16, depth=4, gain=1e30, bias=1e-20, output_gradient="ones"
        )
        for index in range(5):
            for dtype in ("float32", "float64"):
                assert_exact(chain, index=index, dtype=dtype)

    def test_slopes_at_the_limits(self):
        for slope in (0.0, 1e-30, -1e-30, 1e30, -1e30):
            for kind in ("feedforward", "recurrent"):
                chain = Chain(kind=kind, activation="leaky_relu", negative_slope=slope, width=3, depth=40)
                assert_exact(chain, index=3)


class TestDead:
    """Exactly zero in the law is -inf."""

    def dead(self, **fields):
        """A chain of narrow ReLU layers that is dead, whatever rounding does, and its index."""
        chain = Chain(width=2, depth=20, **fields)
        for index in range(100):
            passes = oracle.simulate(chain, 0, index)
            dead = np.isneginf(passes.quantities["log_activation_norm"][-1])
            if dead and compare.is_decided(compare.bounds(chain, 0, index, "float32")):
                return chain, index
        raise AssertionError

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("init", ["gaussian", "orthogonal", "rademacher"])
    def test_a_dead_chain_has_no_gradient_below_the_top(self, init, dtype):
        chain, index = self.dead(init=init)
        found = assert_exact(chain, index=index, dtype=dtype)
        assert np.isneginf(found["log_grad_norm"][:-1]).all()
        assert np.isneginf(found["log_grad_max"][:-1]).all()
        assert np.isneginf(found["log_weight_grad_norm"]).all()
        assert found["log_grad_norm"][-1] == pytest.approx(0.0, abs=1e-6)
        assert np.isfinite(found["log_activation_norm"][0])

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_the_loss_of_a_dead_chain_has_no_gradient_at_all(self, dtype):
        chain, index = self.dead(output_gradient="loss")
        found = assert_exact(chain, index=index, dtype=dtype)
        for name in ("log_grad_norm", "log_grad_max", "log_weight_grad_norm"):
            assert np.isneginf(found[name]).all()

    def test_a_dead_recurrent_chain(self):
        chain, index = self.dead(kind="recurrent")
        found = assert_exact(chain, index=index)
        assert np.isneginf(found["log_grad_norm"][:-1]).all()
        assert np.isneginf(found["log_weight_grad_norm"]).all()

    def test_chains_after_a_dead_one_are_as_they_are_alone(self):
        chain, index = self.dead()
        together = compare.run(chain, 0, index, 5)
        for offset in range(1, 5):
            alone = compare.run(chain, 0, index + offset, 1)
            for name in alone:
                np.testing.assert_array_equal(together[name][offset], alone[name][0])

    @pytest.mark.parametrize("activation", ["linear", "relu", "leaky_relu", "tanh"])
    @pytest.mark.parametrize("kind", ["feedforward", "recurrent"])
    @pytest.mark.parametrize("init", ["gaussian", "orthogonal", "identity"])
    def test_a_gain_of_zero(self, activation, kind, init):
        for fields in ({"bias": 0.0}, {"bias": 0.5}, {"bias": 0.5, "output_gradient": "loss"}):
            for depth in (1, 3):
                chain = Chain(kind=kind, activation=activation, init=init, width=4, depth=depth, gain=0.0, **fields)
                found = assert_exact(chain)
                assert np.isneginf(found["log_grad_norm"][:-1]).all()


class TestTanh:
    @pytest.mark.parametrize(
        "fields",
        [
            {"gain": 0.5, "depth": 2_000},
            {"gain": 0.05, "depth": 400, "kind": "recurrent"},
            {"gain": 0.05, "depth": 400, "init": "orthogonal"},
            {"gain": 0.05, "depth": 400, "kind": "recurrent", "bias": 1e-30, "input_scale": 3.0},
        ],
        ids=str,
    )
    def test_vanishing_deep_chains(self, fields):
        """ln||h|| and ln||g|| fall below -1000, far below what a float64 could hold."""
        chain = Chain(activation="tanh", width=6, **fields)
        for dtype in ("float32", "float64"):
            found = assert_exact(chain, dtype=dtype)
            assert found["log_grad_norm"][0] < -1000
            assert np.isfinite(found["log_weight_grad_norm"]).all()

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_from_saturation_to_nothing(self, dtype):
        """Every size of z in one chain: a thousand at first, then ever less."""
        for gain in (0.02, 0.3, 0.9):
            for width in (1, 2, 16):
                assert_exact(Chain(activation="tanh", width=width, depth=40, gain=gain, input_scale=1e3), dtype=dtype)

    @pytest.mark.parametrize("kind", ["feedforward", "recurrent"])
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("width", [1, 2, 3, 8])
    def test_phi_prime_that_rounds_to_zero_gives_nan(self, width, dtype, kind):
        """From the layer where it does down to layer 0, and never -inf: in the law the gradient is not zero."""
        seen = {"left": 0, "stayed": 0}
        for gain in (3.0, 10.0, 30.0, 60.0, 100.0, 300.0, 1e3, 1e30):
            for index in range(6):
                chain = Chain(kind=kind, activation="tanh", width=width, depth=3, gain=gain)
                found = assert_exact(chain, index=index, dtype=dtype)
                assert not any(np.isneginf(values).any() for values in found.values()), chain
                seen["left" if np.isnan(found["log_grad_norm"]).any() else "stayed"] += 1
        assert min(seen.values()) >= 6

    def test_activations_of_a_chain_that_left_are_still_there(self):
        found = compare.run(Chain(activation="tanh", width=2, depth=3, gain=1e30), dtype="float32")
        assert np.isnan(found["log_grad_norm"][0, 0])
        np.testing.assert_allclose(found["log_activation_norm"][0, 1:], 0.5 * math.log(2), atol=1e-6)
        assert found["log_grad_norm"][0, -1] == pytest.approx(0.0, abs=1e-6)


class TestIdentity:
    """Units of an identity chain never meet: one may fall out of the dtype and later be the largest."""

    def test_units_that_left_the_dtype_are_never_forgotten(self):
        """What is finite is right; with all the rest NaN, and both are seen."""
        seen = {"left": 0, "stayed": 0}
        for index in range(12):
            chain = Chain(activation="tanh", init="identity", width=4, depth=500, gain=1, bias=1)
            found = assert_exact(chain, index=index)
            seen["left" if np.isnan(found["log_grad_norm"]).any() else "stayed"] += 1
        assert min(seen.values()) >= 1, seen

    @pytest.mark.parametrize("kind", ["feedforward", "recurrent"])
    @pytest.mark.parametrize("slope", [0.01, 1e-30, -0.5])
    def test_units_that_left_the_dtype_for_good_change_nothing(self, slope, kind):
        chain = Chain(
            kind=kind, activation="leaky_relu", negative_slope=slope, init="identity", width=6, depth=400, gain=1.0
        )
        for index in range(4):
            for dtype in ("float32", "float64"):
                found = assert_exact(chain, index=index, dtype=dtype)
                assert np.isfinite(found["log_grad_norm"]).all()
                assert np.isfinite(found["log_weight_grad_norm"]).all()
