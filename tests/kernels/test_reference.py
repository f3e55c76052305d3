"""The reference itself: its gradients are those of a loss, by finite differences, and its matrices are of their law."""

from __future__ import annotations

import numpy as np
import pytest

from gradsim import Chain, activations
from gradsim.kernels import reference
from gradsim.kernels.keys import WEIGHT, cell_key

STEP = 1e-6
CHAINS = [
    {"activation": "linear", "profile": [3, 7, 2, 5], "init": "uniform", "gain": "xavier"},
    {"activation": "tanh", "width": 5, "depth": 3, "bias": 0.3},
    {"activation": "leaky_relu", "profile": [6, 4, 4], "init": "orthogonal", "gain": "torch"},
    {"activation": "relu", "width": 6, "depth": 3, "init": "rademacher", "bias": 0.2},
    {"activation": "tanh", "kind": "recurrent", "width": 4, "depth": 4, "input_noise": 0.4, "gain": 1.3},
    {"activation": "tanh", "kind": "recurrent", "width": 4, "depth": 3, "init": "identity", "bias": 0.3},
]
every_chain = pytest.mark.parametrize("fields", CHAINS, ids=str)
every_output = pytest.mark.parametrize("output_gradient", ["random", "ones", "loss"])


def setting(fields, output_gradient):
    """A chain, its matrices and additions, and what the reference found."""
    chain = Chain(**fields, output_gradient=output_gradient)
    cell = cell_key(3, chain.canonical())
    layers = range(1, chain.depth + 1)
    weights = [reference.weight_matrix(chain, cell, 2, layer) for layer in layers]
    added = [reference.added(chain, cell, 2, layer) for layer in layers]
    return chain, weights, added, reference.simulate_chain(chain, 3, 2)


def loss(chain, weights, added, h, g_top):
    """What g_L is the gradient of: <g_L, h_L>, or ||h_L||^2 / 2."""
    phi = activations.get(chain.activation, chain.negative_slope).phi
    for w, extra in zip(weights, added, strict=True):
        h = phi(w @ h + extra)
    return 0.5 * h @ h if chain.output_gradient == "loss" else g_top @ h


def gradient(f, shape):
    """The gradient at 0 of a function of an array, by central differences."""
    found = np.empty(shape)
    for place in np.ndindex(*shape):
        step = np.zeros(shape)
        step[place] = STEP
        found[place] = (f(step) - f(-step)) / (2 * STEP)
    return found


@every_output
@every_chain
def test_g_is_the_gradient_with_respect_to_h(fields, output_gradient):
    chain, weights, added, found = setting(fields, output_gradient)
    top = found["g"][-1]
    for layer in (0, 1, chain.depth):

        def of_state(change, layer=layer):
            return loss(chain, weights[layer:], added[layer:], found["h"][layer] + change, top)

        g = found["g"][layer]
        np.testing.assert_allclose(gradient(of_state, g.shape), g, rtol=1e-6, atol=1e-8)


@every_output
@every_chain
def test_weight_gradients_are_those_of_the_loss(fields, output_gradient):
    """The Frobenius norm; of a tied chain that of the one matrix all steps share."""
    chain, weights, added, found = setting(fields, output_gradient)
    for layer in range(1 if chain.tied else chain.depth):

        def of_matrix(change, layer=layer):
            changed = [w + change if chain.tied or own == layer else w for own, w in enumerate(weights)]
            return loss(chain, changed, added, found["h"][0], found["g"][-1])

        norm = np.linalg.norm(gradient(of_matrix, weights[layer].shape))
        assert np.log(norm) == pytest.approx(found["log_weight_grad_norm"][layer], abs=1e-6)


@pytest.mark.parametrize("init", ["gaussian", "uniform", "rademacher", "orthogonal", "identity"])
def test_gain_and_fan_in(init):
    """Var W_ij = gain^2 / fan_in; orthogonal and identity are gain times an isometry."""
    shape = [200, 200] if init == "identity" else [300, 200]
    chain = Chain(profile=shape, init=init, gain=1.7, activation="linear")
    w = reference.weight_matrix(chain, cell_key(0, chain.canonical()), 0, 1)
    assert w.shape == (200, shape[0])
    if init in ("orthogonal", "identity"):
        np.testing.assert_allclose(w @ w.T, 1.7**2 * np.eye(200), atol=1e-12)
    else:
        assert w.var() == pytest.approx(1.7**2 / 300, rel=0.05)
    if init == "rademacher":
        np.testing.assert_allclose(np.abs(w), 1.7 / np.sqrt(300))
    if init == "uniform":
        assert np.abs(w).max() == pytest.approx(1.7 * np.sqrt(3 / 300), rel=1e-3)


def test_a_recurrent_chain_has_one_matrix_and_noise_of_each_step():
    chain = Chain(kind="recurrent", width=5, depth=3, bias=0.5, input_noise=0.1)
    cell = cell_key(0, chain.canonical())
    matrices = [reference.weight_matrix(chain, cell, 0, layer) for layer in (1, 2, 3)]
    added = [reference.added(chain, cell, 0, layer) for layer in (1, 2, 3)]
    for other in matrices[1:]:
        np.testing.assert_array_equal(other, matrices[0])
    # The bias is common, the noise is not.
    differences = np.array([added[1] - added[0], added[2] - added[1]])
    assert (np.abs(differences) > 0).all()
    assert np.abs(differences).max() < 0.6
    still = chain.replace(input_noise=0.0)
    key = cell_key(0, still.canonical())
    np.testing.assert_array_equal(reference.added(still, key, 0, 1), reference.added(still, key, 0, 3))


def test_layers_and_chains_have_matrices_of_their_own():
    chain = Chain(width=5, depth=3)
    cell = cell_key(0, chain.canonical())
    drawn = [reference.weight_matrix(chain, cell, index, layer) for index in (0, 1, 2**32) for layer in (1, 2, 3)]
    drawn.append(reference.draw(reference.stream_key(cell, 0, 0, WEIGHT), 5, 5, "gaussian"))
    for number, one in enumerate(drawn):
        for other in drawn[:number]:
            assert np.abs(one - other).min() > 0
