"""What must hold of chains whatever was drawn: conservation, orthogonality, invariance to scale, sums of exponents.

None of it knows how a gradient is computed. Each has a control that must break it.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from gradsim import Chain
from gradsim.kernels import reference
from gradsim.kernels.keys import cell_key
from tests.kernels import compare

SEED, INDEX = 5, 2
EXACT = 1e-12
# A stored float32 of size up to 16, and rounding on the way.
STORED = 2e-6


def vectors(chain):
    """h_l and g_l, l = 0 .. L, each (n_l, B)."""
    found = reference.simulate_chain(chain, SEED, INDEX)
    return tuple([v.reshape(len(v), -1) for v in found[name]] for name in ("h", "g"))


def products(chain):
    """<g_l, h_l>, relative to the largest ||g_l|| ||h_l||, for each column: shape (L + 1, B)."""
    h, g = vectors(chain)
    size = max(np.linalg.norm(a) * np.linalg.norm(b) for a, b in zip(g, h, strict=True))
    return np.array([(a * b).sum(axis=0) for a, b in zip(g, h, strict=True)]) / size


def engine(chain, dtype="float64", streams="independent"):
    """Quantities of one chain by the engine, each (columns,)."""
    found = compare.run(chain, SEED, INDEX, 1, dtype, chain.quantities, streams)
    return {name: values[0].astype(float) for name, values in found.items()}


def oracle(chain, dtype="float64", streams="independent"):
    """The same by the reference."""
    found = reference.simulate_chain(chain, SEED, INDEX, dtype, streams)
    return {name: found[name] for name in chain.quantities}


both = pytest.mark.parametrize("simulated", [oracle, engine])


class TestConservation:
    """Bias-free and homogeneous of degree 1: <g_l, h_l> is the same at every layer, input by input."""

    @pytest.mark.parametrize("kind", ["feedforward", "recurrent"])
    @pytest.mark.parametrize("output_gradient", ["random", "loss"])
    @pytest.mark.parametrize("more", [{}, {"batch": 3}, {"dropout": 0.3}], ids=str)
    @pytest.mark.parametrize(
        "skip", [{}, {"skip": 0.7}, {"skip": "rsqrt-depth"}, {"skip": "inv-depth", "carry": 0.9}], ids=str
    )
    @pytest.mark.parametrize("activation", ["linear", "relu", "leaky_relu"])
    def test_g_dot_h_is_conserved(self, activation, skip, more, output_gradient, kind):
        fields = {"kind": kind, "activation": activation, "output_gradient": output_gradient}
        found = products(Chain(width=12, depth=7, **fields, **skip, **more))
        assert np.abs(found - found[-1]).max() < EXACT
        # No constant 0, which much else could give.
        assert np.abs(found).max() > 1e-6

    @pytest.mark.parametrize("fields", [{"bias": 0.3}, {"activation": "gelu"}, {"clip": 0.3}], ids=str)
    def test_a_bias_gelu_and_clipping_break_it(self, fields):
        found = products(Chain(width=12, depth=7, skip=0.7, **fields))
        assert np.abs(found - found[-1]).max() > 1e-3

    @pytest.mark.parametrize("fields", [{}, {"skip": 0.7}, {"skip": "inv-depth", "carry": 0.8}], ids=str)
    @both
    def test_one_unit_shows_it_in_the_norms(self, simulated, fields):
        """Of width 1, |g_l| |h_l| is |<g_l, h_l>|."""
        for kind in ("feedforward", "recurrent"):
            chain = Chain(activation="leaky_relu", negative_slope=-0.4, width=1, depth=9, kind=kind, **fields)
            found = simulated(chain)
            np.testing.assert_allclose(np.ptp(found["log_grad_norm"] + found["log_activation_norm"]), 0, atol=STORED)
            biased = simulated(chain.replace(bias=0.5))
            assert np.ptp(biased["log_grad_norm"] + biased["log_activation_norm"]) > 1e-3


class TestOrthogonality:
    """Where h_l is rescaled by a norm further on, the loss does not change along h_l: g_l is orthogonal to it."""

    @pytest.mark.parametrize("batch", [1, 4])
    @pytest.mark.parametrize(
        "fields",
        [
            {"norm": "rms", "norm_position": "post", "skip": 0.7},
            {"norm": "rms", "norm_position": "post", "skip": "inv-depth", "carry": 0.5},
            {"norm": "layer", "norm_position": "post", "skip": 0.7},
            {"norm": "rms", "norm_position": "before"},
            {"norm": "rms", "norm_position": "before", "activation": "gelu"},
            {"norm": "layer", "norm_position": "before", "activation": "sigmoid"},
            {"norm": "rms", "norm_position": "after", "dropout": 0.2},
            {"norm": "layer", "norm_position": "pre", "skip": 1.0, "carry": 0.0, "activation": "tanh", "bias": 0.4},
        ],
        ids=str,
    )
    def test_g_is_orthogonal_to_h(self, fields, batch):
        for kind in ("feedforward", "recurrent"):
            found = products(Chain(width=12, depth=6, kind=kind, batch=batch, **fields))
            assert np.abs(found[:-1]).max() < EXACT
            assert np.abs(found[-1]).max() > 1e-3

    @pytest.mark.parametrize(
        "fields",
        [
            {"norm": "rms", "norm_position": "post", "skip": 0.7, "bias": 0.3},
            {"norm": "rms", "norm_position": "post", "skip": 0.7, "norm_eps": 0.1},
            {"norm": "rms", "norm_position": "pre", "skip": 0.7},
        ],
        ids=str,
    )
    def test_a_bias_eps_and_a_skip_around_the_norm_break_it(self, fields):
        found = products(Chain(width=12, depth=6, **fields))
        assert np.abs(found[:-1]).max() > 1e-3

    def test_with_batch_norm_it_holds_over_the_batch(self):
        """Batch norm rescales all inputs of a unit together."""
        h, g = vectors(Chain(width=12, depth=6, norm="batch", batch=5))
        sums = np.array([(a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(g, h, strict=True)])
        assert np.abs(sums[:-1]).max() < EXACT
        assert abs(sums[-1]) > 1e-3


NORMED = [
    {"norm": norm, "norm_position": position, **more}
    for norm, batch in (("batch", {"batch": 6}), ("layer", {}), ("rms", {"batch": 2}))
    for position, more in (
        ("before", {"activation": "tanh", **batch}),
        ("before", {"activation": "silu", "skip": 0.5, **batch}),
        ("after", {"activation": "relu", "dropout": 0.2, **batch}),
    )
]


class TestScale:
    """What is normalised before anything sees its scale: the gain changes no state and no gradient at a state."""

    @pytest.mark.parametrize("kind", ["feedforward", "recurrent"])
    @pytest.mark.parametrize("fields", NORMED, ids=str)
    @both
    def test_the_gain_changes_nothing(self, simulated, fields, kind):
        chain = Chain(width=16, depth=4, kind=kind, gain=0.5, **fields)
        one, other = (simulated(c, streams="common") for c in (chain, chain.replace(gain=8.0)))
        for name in ("log_grad_norm", "log_activation_norm", "log_grad_max"):
            np.testing.assert_allclose(other[name], one[name], rtol=0, atol=STORED)
        # Weights 16 times as large, gradients 16 times as small.
        shift = other["log_weight_grad_norm"] - one["log_weight_grad_norm"]
        np.testing.assert_allclose(shift, -math.log(16), atol=STORED)

    @both
    def test_a_norm_with_eps_and_a_bias_see_the_gain(self, simulated):
        for more in ({"norm_eps": 0.1}, {"bias": 0.3}, {"norm_position": "pre", "skip": 1.0}):
            chain = Chain(**{"width": 16, "depth": 4, "gain": 0.5, "norm": "rms", "activation": "tanh"} | more)
            one, other = (simulated(c, streams="common") for c in (chain, chain.replace(gain=8.0)))
            assert np.abs(other["log_grad_norm"] - one["log_grad_norm"]).max() > 1e-2

    @both
    def test_the_input_scale_is_forgotten_after_one_layer(self, simulated):
        chain = Chain(width=16, depth=4, norm="layer", activation="tanh")
        one, other = (simulated(c, streams="common") for c in (chain, chain.replace(input_scale=100.0)))
        np.testing.assert_allclose(other["log_grad_norm"][1:], one["log_grad_norm"][1:], atol=STORED)
        drop = one["log_grad_norm"][0] - other["log_grad_norm"][0]
        assert drop == pytest.approx(math.log(100), abs=STORED)


# Chains that are another chain in disguise, and by how much ln||g|| grows less per layer.
PLAIN = {"activation": "linear", "width": 11, "depth": 5, "gain": 1.1, "input_scale": 1e-4}
DISGUISES = [
    ({"activation": "leaky_relu", "negative_slope": 1.0}, 0.0),
    ({"activation": "tanh"}, 0.0),
    ({"activation": "erf"}, math.log(2 / math.sqrt(math.pi))),
    ({"activation": "silu", "input_scale": 1e-8}, math.log(0.5)),
    ({"activation": "gelu", "input_scale": 1e-8}, math.log(0.5)),
    ({"skip": 1.0, "carry": 0.0}, 0.0),
    ({"norm": "rms", "norm_eps": 1e8}, math.log(1e-4)),
    ({"norm": "rms", "norm_eps": 1e8, "norm_position": "post", "skip": 1.0, "carry": 0.0}, math.log(1e-4)),
    ({"norm": "rms", "norm_eps": 1e8, "norm_position": "pre", "skip": 2.0, "carry": 0.0}, math.log(2e-4)),
    ({"clip": 1e9}, 0.0),
    ({"clip_value": 1e9}, 0.0),
    ({"probes": 3}, 0.0),
]


class TestCommonStreams:
    """Cells that differ in norm, activation, skip or clipping draw the same input, weights and gradient at the top."""

    @pytest.mark.parametrize("kind", ["feedforward", "recurrent"])
    @pytest.mark.parametrize(("fields", "growth"), DISGUISES, ids=str)
    @both
    def test_a_chain_in_disguise_is_the_same_chain(self, simulated, fields, growth, kind):
        chain, disguised = Chain(**PLAIN, kind=kind), Chain(**(PLAIN | fields), kind=kind)
        steps = growth * np.arange(chain.depth, -1, -1)
        plain = simulated(chain, streams="common")["log_grad_norm"]
        found = simulated(disguised, streams="common")["log_grad_norm"]
        np.testing.assert_allclose(found - steps, plain, rtol=0, atol=1e-5)
        own = simulated(disguised)["log_grad_norm"] - steps - simulated(chain)["log_grad_norm"]
        assert np.abs(own[:-1]).max() > 1e-2

    def test_inputs_of_a_batch_do_not_depend_on_how_many_there_are(self):
        fields = {"width": 7, "depth": 3, "activation": "gelu", "dropout": 0.4, "norm": "layer", "bias": 0.2}
        for kind, more in (("feedforward", {}), ("recurrent", {"input_noise": 0.3})):
            chains = [Chain(kind=kind, batch=batch, **fields, **more) for batch in (1, 2, 5)]
            one, two, five = (reference.simulate_chain(chain, SEED, INDEX, streams="common")["h"] for chain in chains)
            for layer in range(4):
                np.testing.assert_allclose(two[layer][:, 0], one[layer], rtol=EXACT)
                np.testing.assert_allclose(five[layer][:, :2], two[layer], rtol=EXACT)

    def test_gates_share_their_matrices_between_kinds(self):
        """Gate 0 of an LSTM, gate 0 of a GRU and the one matrix of a recurrent chain are one draw."""
        chains = [Chain(kind=kind, width=5, depth=2, gain=1.0, bias=0.3) for kind in ("lstm", "gru", "recurrent")]
        cell = cell_key(SEED, "", "common")
        first = [reference.gate_matrix(chain, cell, INDEX, 0) for chain in chains[:2]]
        first.append(reference.weight_matrix(chains[2], cell, INDEX, 1))
        for matrix in first[1:]:
            np.testing.assert_array_equal(matrix, first[0])
        assert np.abs(reference.gate_matrix(chains[0], cell, INDEX, 1) - first[0]).min() > 0


class TestNoVariance:
    """A group without variance is 0 and has gradient 0, by the interface, whatever eps is."""

    @pytest.mark.parametrize("norm", ["batch", "layer", "rms"])
    @pytest.mark.parametrize("norm_eps", [0.0, 0.3])
    @both
    def test_it_is_zero_with_zero_gradient(self, simulated, norm_eps, norm):
        chain = Chain(width=5, depth=1, gain=0.0, activation="tanh", norm=norm, norm_eps=norm_eps, batch=4)
        found = simulated(chain)
        assert found["log_activation_norm"][1] == -np.inf
        assert found["log_weight_grad_norm"][0] == -np.inf
        # Control: tanh without the norm has slope 1 at 0.
        assert np.isfinite(simulated(Chain(width=5, depth=1, gain=0.0, activation="tanh"))["log_weight_grad_norm"][0])


class TestLyapunov:
    """As many probes as units: the exponents sum to the rate at which volumes grow, the mean of ln |det|."""

    @staticmethod
    def log_determinants(chain):
        cell = cell_key(SEED, chain.canonical())
        eye = np.eye(chain.width)
        for layer in range(1, chain.depth + 1):
            w = reference.weight_matrix(chain, cell, INDEX, layer)
            jacobian = chain.carry * eye + chain.skip_factor * w if chain.skip_factor else w
            yield np.linalg.slogdet(jacobian)[1]

    @pytest.mark.parametrize("kind", ["feedforward", "recurrent"])
    @pytest.mark.parametrize("init", ["gaussian", "uniform", "orthogonal"])
    @pytest.mark.parametrize("skip", [{}, {"skip": 0.4, "carry": 0.8}], ids=str)
    @both
    def test_they_sum_to_the_rate_of_the_determinant(self, simulated, skip, init, kind):
        chain = Chain(activation="linear", width=6, depth=5, gain=1.1, init=init, kind=kind, probes=6, bias=0.2, **skip)
        exponents = simulated(chain)["lyapunov"]
        assert (np.diff(exponents) <= 0).all()
        assert exponents.sum() == pytest.approx(np.mean(list(self.log_determinants(chain))), abs=1e-5)
        # Fewer of them do not.
        fewer = simulated(chain.replace(probes=5))["lyapunov"]
        assert abs(fewer.sum() - exponents.sum()) > 1e-3 or abs(exponents[-1]) < 1e-3

    @both
    def test_a_slope_adds_its_logarithm(self, simulated):
        """Of leaky ReLU, n |ln|slope|| for units below zero: with slope -1 the determinant is that of W again."""
        chain = Chain(activation="leaky_relu", negative_slope=-1.0, width=6, depth=5, gain=1.1, probes=6)
        assert simulated(chain)["lyapunov"].sum() == pytest.approx(
            np.mean(list(self.log_determinants(chain))), abs=1e-5
        )

    @both
    def test_isometries_grow_alike_in_every_direction(self, simulated):
        for init in ("orthogonal", "identity"):
            chain = Chain(activation="linear", width=6, depth=4, init=init, gain=1.3, probes=4)
            np.testing.assert_allclose(simulated(chain)["lyapunov"], math.log(1.3), atol=STORED)

    @both
    def test_the_first_of_long_chains_is_the_growth_of_the_gradient(self, simulated):
        chain = Chain(kind="recurrent", activation="linear", width=6, depth=300, gain=1.0, probes=3)
        found = simulated(chain)
        growth = (found["log_grad_norm"][0] - found["log_grad_norm"][-1]) / chain.depth
        assert found["lyapunov"][0] == pytest.approx(growth, abs=0.02)
        assert found["lyapunov"][0] > found["lyapunov"][-1]

    @both
    def test_directions_that_die_are_dead(self, simulated):
        """A layer of ReLU passes as many directions as it has units that are on."""
        chain = Chain(activation="relu", width=4, depth=3, probes=4, bias=0.1)
        cell = cell_key(SEED, chain.canonical())
        found = simulated(chain)["lyapunov"]
        h = reference.simulate_chain(chain, SEED, INDEX)["h"]
        masks = [state > 0 for state in h[1:]]
        product = np.eye(4)
        for layer in range(3, 0, -1):
            product = reference.weight_matrix(chain, cell, INDEX, layer).T @ np.diag(masks[layer - 1]) @ product
        assert np.isneginf(found).sum() == 4 - np.linalg.matrix_rank(product) > 0
