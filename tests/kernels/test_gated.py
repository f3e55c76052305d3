"""LSTM and GRU chains: the kernel against the reference, its range against exact arithmetic, what changes no bit."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
import time
from itertools import pairwise

import mpmath
import numpy as np
import pytest

from gradsim import Chain
from gradsim.kernels import gated_layout, gated_shapes, reference
from gradsim.kernels.cpu import Engine
from gradsim.kernels.keys import cell_key
from tests.kernels import compare

KINDS = ("lstm", "gru")
DTYPES = ("float32", "float64")
# One for each field that such a chain can have; widths beside whole vectors and groups of rows.
CHAINS = {
    "default": {"width": 20, "depth": 6},
    "gaussian": {"width": 33, "depth": 7, "init": "gaussian", "gain": 1.2, "bias": 0.0},
    "uniform": {"width": 6, "depth": 9, "init": "uniform", "gain": 1.6, "bias": 0.4},
    "signs": {"width": 11, "depth": 5, "init": "rademacher", "gain": "lecun", "bias": 0.3},
    "orthogonal": {"width": 9, "depth": 5, "init": "orthogonal", "gain": 1.1},
    "identity": {"width": 7, "depth": 6, "init": "identity", "gain": 0.9, "bias": 0.5},
    "one unit": {"width": 1, "depth": 4, "gain": 1.0, "input_noise": 0.3},
    "noise": {"width": 8, "depth": 6, "gain": 1.0, "input_noise": 0.5, "input_scale": 3.0},
    "batch": {"width": 8, "depth": 6, "batch": 5, "gain": 1.3, "input_noise": 0.3, "bias": 0.2},
    "batch of identity": {"width": 5, "depth": 4, "batch": 3, "init": "identity", "gain": 1.3},
    "probes": {"width": 10, "depth": 12, "probes": 4, "gain": 1.5, "init": "gaussian"},
    "all probes": {"width": 6, "depth": 20, "probes": 6, "gain": 1.5, "init": "orthogonal", "bias": 0.1},
    "loss": {"width": 12, "depth": 5, "output_gradient": "loss", "gain": 1.4},
    "ones": {"width": 12, "depth": 5, "output_gradient": "ones", "batch": 2},
    "clip": {"width": 14, "depth": 6, "clip": 0.2, "gain": 2.0},
    "clip a batch": {"width": 14, "depth": 6, "clip": 0.5, "gain": 2.0, "batch": 4, "output_gradient": "ones"},
    "clip values": {"width": 14, "depth": 6, "clip_value": 0.05, "gain": 2.0, "output_gradient": "loss"},
    "long": {"width": 5, "depth": 40, "gain": 1.0, "init": "gaussian"},
}
every_kind = pytest.mark.parametrize("kind", KINDS)
every_chain = pytest.mark.parametrize("fields", CHAINS.values(), ids=CHAINS)
both_dtypes = pytest.mark.parametrize("dtype", DTYPES)


def run(chain, seed=3, first=0, count=2, dtype="float64", quantities=None, **more):
    return compare.run(chain, seed, first, count, dtype, quantities or chain.quantities, **more)


def assert_same_bits(found, expected):
    for name, values in found.items():
        np.testing.assert_array_equal(values.view(np.uint32), expected[name].view(np.uint32), err_msg=name)


@both_dtypes
@every_chain
@every_kind
def test_kernel_is_the_reference(kind, fields, dtype):
    chain = Chain(kind=kind, **fields)
    found = run(chain, dtype=dtype)
    assert set(found) == set(chain.quantities)
    for index in range(2):
        with np.errstate(divide="ignore"):
            expected = reference.simulate_chain(chain, 3, index)
        for name, values in found.items():
            tolerance = 2e-8 if dtype == "float64" else 1e-4
            np.testing.assert_allclose(
                values[index], expected[name], rtol=2.0**-23, atol=tolerance, err_msg=f"{name} of chain {index}"
            )


def test_forget_bias():
    for forget_bias in (-2.5, 1.0, 4.0):
        chain = Chain(kind="lstm", width=9, depth=8, forget_bias=forget_bias, gain=1.3)
        found, expected = run(chain, count=1), reference.simulate_chain(chain, 3, 0)
        for name, values in found.items():
            np.testing.assert_allclose(values[0], expected[name], rtol=2.0**-23, atol=2e-8, err_msg=name)


def exactly(chain, seed, index):
    """ln ||h_l||, ln ||g_l|| and, of an LSTM, ln ||dLoss/dc_l|| in arithmetic without bounds; one column."""
    cell = cell_key(seed, chain.canonical(), "independent")
    n, gates = chain.widths[0], range(chain.gates)
    w = [mpmath.matrix(reference.gate_matrix(chain, cell, index, k).tolist()) for k in gates]
    b = [mpmath.matrix(reference.bias(chain, cell, index, 1, k).tolist()) for k in gates]
    h, c = mpmath.matrix(reference.input_state(chain, cell, index)[:, 0].tolist()), mpmath.zeros(n, 1)
    each = lambda f, *vectors: mpmath.matrix([f(*entries) for entries in zip(*vectors, strict=True)])  # noqa: E731
    sigmoid = lambda x: 1 / (1 + mpmath.exp(-x))  # noqa: E731
    slope = lambda x: sigmoid(x) * sigmoid(-x)  # noqa: E731
    states, steps = [h], []
    for _ in range(chain.depth):
        a = [w[k] * h + b[k] for k in gates]
        if chain.kind == "lstm":
            a[1] += mpmath.matrix([chain.forget_bias] * n)
            old = c
            c = each(lambda i, f, g, c: sigmoid(f) * c + sigmoid(i) * mpmath.tanh(g), a[0], a[1], a[2], c)
            h = each(lambda o, c: sigmoid(o) * mpmath.tanh(c), a[3], c)
            steps.append((a, old, c))
        else:
            old = h
            inner = each(lambda r, x: sigmoid(r) * x, a[0], a[2])
            h = each(lambda z, n, h: sigmoid(-z) * mpmath.tanh(n) + sigmoid(z) * h, a[1], inner, h)
            steps.append((a, old, inner))
        states.append(h)
    top = reference.output_gradient(chain, cell, index, np.zeros((n, 1)))[:, 0]
    g, dc = mpmath.matrix(top.tolist()), mpmath.zeros(n, 1)
    gradients, cells = [g], [dc]
    for a, old, new in reversed(steps):
        if chain.kind == "lstm":
            whole = each(lambda dc, g, o, c: dc + g * sigmoid(o) * mpmath.sech(c) ** 2, dc, g, a[3], new)
            d = [
                each(lambda x, g, i: x * mpmath.tanh(g) * slope(i), whole, a[2], a[0]),
                each(lambda x, c, f: x * c * slope(f), whole, old, a[1]),
                each(lambda x, i, g: x * sigmoid(i) * mpmath.sech(g) ** 2, whole, a[0], a[2]),
                each(lambda g, c, o: g * mpmath.tanh(c) * slope(o), g, new, a[3]),
            ]
            dc = each(lambda x, f: x * sigmoid(f), whole, a[1])
            g = mpmath.zeros(n, 1)
        else:
            at_n = each(lambda g, z, n: g * sigmoid(-z) * mpmath.sech(n) ** 2, g, a[1], new)
            d = [
                each(lambda x, a, r: x * a * slope(r), at_n, a[2], a[0]),
                each(lambda g, h, n, z: g * (h - mpmath.tanh(n)) * slope(z), g, old, new, a[1]),
                each(lambda x, r: x * sigmoid(r), at_n, a[0]),
            ]
            g = each(lambda g, z: g * sigmoid(z), g, a[1])
        for k in gates:
            g += w[k].T * d[k]
        gradients.insert(0, g)
        cells.insert(0, dc)
    logs = lambda vectors: np.array([float(mpmath.log(mpmath.norm(v))) if any(v) else -math.inf for v in vectors])  # noqa: E731
    found = {"log_activation_norm": logs(states), "log_grad_norm": logs(gradients)}
    return found | ({"log_cell_grad_norm": logs(cells)} if chain.kind == "lstm" else {})


EXTREMES = {
    "tiny": {"width": 4, "depth": 30, "gain": 1e-3, "init": "gaussian", "bias": 0.0, "input_scale": 1e-30},
    "vanishing": {"width": 3, "depth": 160, "gain": 1e-2, "init": "gaussian", "bias": 0.0},
    "huge input": {"width": 4, "depth": 6, "gain": 1e-28, "init": "gaussian", "bias": 0.1, "input_scale": 1e30},
    "saturated": {"width": 6, "depth": 6, "gain": 12.0, "init": "gaussian", "bias": 0.0},
    "shut": {"width": 4, "depth": 8, "gain": 1.0, "init": "gaussian", "bias": 30.0},
    "no weights": {"width": 4, "depth": 8, "gain": 0.0, "bias": 0.5},
    "no weights, no bias": {"width": 4, "depth": 8, "gain": 0.0, "bias": 0.0},
    "hardly any weights": {"width": 4, "depth": 8, "gain": 1e-30, "bias": 0.5},
}


@both_dtypes
@pytest.mark.parametrize("fields", EXTREMES.values(), ids=EXTREMES)
@every_kind
def test_range_is_that_of_exact_arithmetic(kind, fields, dtype):
    chain = Chain(kind=kind, **fields)
    found = run(chain, dtype=dtype, count=1)
    with mpmath.workdps(80):
        expected = exactly(chain, 3, 0)
    for name, values in expected.items():
        rtol, atol = (1e-6, 2e-7) if dtype == "float64" else (1e-4, 3e-3)
        np.testing.assert_allclose(found[name][0], values, rtol=rtol, atol=atol, err_msg=name)


@pytest.mark.parametrize("forget_bias", [-60.0, -600.0, 60.0])
@both_dtypes
def test_forget_gate_that_is_shut_or_open(forget_bias, dtype):
    chain = Chain(kind="lstm", width=4, depth=7, forget_bias=forget_bias, gain=1.0, init="gaussian")
    found = run(chain, dtype=dtype, count=1)
    with mpmath.workdps(80):
        expected = exactly(chain, 3, 0)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name][0], values, rtol=1e-5, atol=1e-4, err_msg=name)


@both_dtypes
@every_kind
def test_what_leaves_the_dtype_is_nan_from_there_on(kind, dtype):
    """A gain at which every gate is saturated beyond float64; the law has no zero there."""
    found = run(Chain(kind=kind, width=4, depth=9, gain=1e6, init="gaussian", bias=0.0), dtype=dtype, count=20)
    gradients = found["log_grad_norm"]
    assert not np.isneginf(gradients).any()
    lost = np.isnan(gradients)
    assert lost.any()
    assert (np.diff(lost.astype(int), axis=1) <= 0).all()
    assert np.isnan(found["log_weight_grad_norm"][lost.any(axis=1)]).all()
    if kind == "lstm":
        below = lost[:, :-1] & lost[:, 1:]
        assert np.isnan(found["log_cell_grad_norm"][:, :-1][below]).all()


@every_kind
def test_units_that_never_meet(kind):
    """Where a unit falls behind, float32 says what float64 says, or that it does not know."""
    chain = Chain(kind=kind, width=12, depth=300, init="identity", gain=3.0, bias=2.0)
    single, double = (run(chain, count=20, dtype=dtype) for dtype in DTYPES)
    for name in ("log_grad_norm", "log_grad_max"):
        known = np.isfinite(single[name])
        assert known[:, -30:].all()
        np.testing.assert_allclose(single[name][known], double[name][known], rtol=1e-4, atol=1e-2)


@both_dtypes
def test_units_too_far_apart_for_one_exponent(dtype):
    """60 decades between units that grow 10^10-fold a step: float32 says that it does not know."""
    fields = {"init": "identity", "batch": 5, "input_noise": 1e-30}
    chain = Chain(kind="gru", width=17, depth=9, gain=1e10, clip_value=1e-30, input_scale=1e30, **fields)
    found = run(chain, 1, 0, 2, dtype)
    for index in range(2):
        with np.errstate(divide="ignore"):
            exact = reference.simulate_chain(chain, 1, index)
        for name, values in found.items():
            known = ~np.isnan(values[index])
            np.testing.assert_allclose(values[index][known], exact[name][known], rtol=1e-5, atol=1e-4, err_msg=name)
    assert dtype == "float64" or np.isnan(found["log_grad_norm"][:, :-1]).all()
    assert not np.isnan(found["log_grad_norm"][:, -1]).any()
    # Nearer to each other they are known in either dtype.
    near = run(chain.replace(gain=1.1, input_scale=1.0, input_noise=0.1), 1, 0, 2, dtype)
    assert np.isfinite(near["log_grad_norm"]).all()


@both_dtypes
@every_chain
@every_kind
def test_budget_and_pieces_change_no_bit(kind, fields, dtype):
    chain = Chain(kind=kind, **fields)
    whole = run(chain, 4, 0, 5, dtype)
    for budget in (1, 1_000, 10**15):
        assert_same_bits(run(chain, 4, 0, 5, dtype, budget=budget), whole)
    parts = [run(chain, 4, first, last - first, dtype) for first, last in pairwise([0, 1, 5])]
    assert_same_bits({name: np.concatenate([part[name] for part in parts]) for name in whole}, whole)


@every_kind
def test_budget_changes_no_bit_where_matrices_take_many_units(kind):
    for fields in ({"batch": 64}, {}, {"probes": 48}):
        chain = Chain(kind=kind, width=700, depth=2, **fields)
        whole = run(chain, 0, 0, 1, "float32")
        assert_same_bits(run(chain, 0, 0, 1, "float32", budget=1), whole)


@both_dtypes
@every_chain
@every_kind
def test_what_is_recorded_changes_no_bit(kind, fields, dtype):
    chain = Chain(kind=kind, **fields)
    whole = run(chain, 4, 0, 2, dtype)
    for name in chain.quantities:
        assert_same_bits(run(chain, 4, 0, 2, dtype, (name,)), whole)


def test_batch_draws_what_one_input_does():
    """The first of a batch has the weights, inputs and noise of a chain of its own with the same streams."""
    fields = {"kind": "gru", "width": 9, "depth": 4, "bias": 0.3, "output_gradient": "loss"}
    one, three = (Chain(**fields, batch=batch) for batch in (1, 3))
    cells = [reference.simulate_chain(chain, 0, 0, streams="common") for chain in (one, three)]
    np.testing.assert_allclose(cells[1]["h"][-1][:, 0], cells[0]["h"][-1])


def test_spectrum_adds_up_to_the_determinant():
    """All directions of a GRU's state: exponents sum to the mean of ln |det dh_l / dh_{l-1}|."""
    chain = Chain(kind="gru", width=5, depth=30, probes=5, gain=1.4, init="gaussian")
    found = run(chain, count=1)["lyapunov"][0]
    assert (np.diff(found) <= 0).all()
    cell = cell_key(3, chain.canonical(), "independent")
    _, steps = reference._gated_forward(chain, cell, 0, np.float64)
    determinants = [np.linalg.slogdet(step.pull(np.eye(5), np.zeros((5, 5)))[0])[1] for step in steps]
    np.testing.assert_allclose(found.sum(), np.mean(determinants), atol=1e-5)


@every_kind
def test_stop_is_heard_within_a_second(kind):
    chain = Chain(kind=kind, width=1500, depth=3000)
    engine = Engine(chain, 0, "float32", chain.quantities)
    run(Chain(kind=kind, width=1, depth=1), count=0, dtype="float32")
    stop = threading.Event()
    said = []

    def say():
        said.append(time.monotonic())
        stop.set()

    threading.Timer(1.0, say).start()
    assert engine.run(0, 1, stop) is None
    assert time.monotonic() - said[0] < 1.0


@pytest.mark.parametrize("fields", [{}, {"batch": 7}, {"probes": 3}, {"init": "identity"}])
@every_kind
def test_plan_counts_the_memory_that_is_taken(kind, fields):
    chain = Chain(kind=kind, width=130, depth=9, **fields)
    for quantities in (chain.quantities, ("log_grad_norm",)):
        for dtype in DTYPES:
            memory = gated_layout.make_gated_memory(chain, quantities, dtype)
            taken = sum(array.nbytes for array in memory if isinstance(array, np.ndarray) and array.ndim)
            counted = gated_shapes.gated_working_bytes(chain, quantities, np.dtype(dtype).itemsize)
            assert taken <= counted <= taken + 2000


def test_other_chains_do_not_load_this_kernel():
    code = """
import sys
from gradsim import Chain
from gradsim.kernels.cpu import Engine
Engine(Chain(width=4, depth=2), 0, "float64", ("log_grad_norm",)).run(0, 1)
assert "gradsim.kernels.gated" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
