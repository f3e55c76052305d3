"""`gradsim bench`: what is timed, how times are taken, the floor and the NumPy beside them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from gradsim import microbench
from gradsim.chain import Chain
from gradsim.commands.views import bench_table
from gradsim.kernels.floor import floor_backward
from gradsim.numpy_peer import chain_norms, drawing
from gradsim.theory.registry import find
from gradsim.timing import Timing, Work, in_turns, sized

TINY = Chain(activation="relu", width=16, depth=3, gain="he")


def fmix32(x: int) -> int:
    """MurmurHash3's finaliser, after its author's C."""
    x ^= x >> 16
    x = x * 0x85EBCA6B % 2**32
    x ^= x >> 13
    x = x * 0xC2B2AE35 % 2**32
    return x ^ x >> 16


def test_fmix32_as_published():
    assert fmix32(1) == 0x514E28B7
    assert fmix32(0) == 0


@pytest.mark.parametrize("seed", [0, 2**32 - 5])
def test_floor_mixes_every_weight_once(seed):
    n, q = 16, 2
    rows = np.arange(4 * q)
    words = [[fmix32((seed + int(r) * n + j) % 2**32) for j in range(n)] for r in rows]
    matrix = np.array(words, dtype=np.uint32).view(np.int32).astype(np.float64)
    d = np.linspace(-1, 1, 4 * q).astype(np.float32)
    g = np.ones(n, np.float32)
    floor_backward(np.uint32(seed), d, g, n, q)
    np.testing.assert_allclose(g, 1 + d @ matrix, rtol=1e-5, atol=2.0**31 * 1e-5)


def test_turns_pair_every_repetition_with_ours():
    order = []

    def work(name):
        return Work(lambda: order.append(name), 10)

    own, timings = in_turns(work("us"), {"a": work("a"), "b": work("b")}, 3)
    warm, turns = order[:3], order[3:]
    assert warm == ["us", "a", "b"]
    assert turns[1::2] == ["us"] * 6
    assert turns[::2] == ["a", "b", "b", "a", "a", "b"]
    assert len(own.ns) == 6
    assert all(len(t.ns) == len(t.own_ns) == len(t.results) == 3 for t in timings.values())


def test_ratio_is_the_median_of_pairs():
    timing = Timing([2.0, 40.0, 9.0], [1.0, 10.0, 3.0], [0, 0, 0])
    assert (timing.median, timing.minimum, timing.ratio) == (9.0, 2.0, 3.0)
    timing.extend(Timing([1.0], [1.0], [0]))
    assert timing.ratio == 2.5
    assert len(timing.results) == 4


def test_sized_grows_until_a_call_is_long_enough():
    made = []

    def make(units):
        made.append(units)
        return Work(lambda: sum(range(2000 * units)), units)

    assert sized(make, 0.005).weights == made[-1] > 1
    assert made == sorted(made)


def test_every_kernel_is_timed_at_every_width():
    names = {width: {case.name for case in cases} for width, cases in microbench.CASES.items()}
    assert names[64] == names[1024] <= names[256]
    assert {"linear backward", "linear forward + backward", "relu forward + backward"} <= names[64]
    assert {"uniform linear backward", "orthogonal linear backward", "recurrent relu"} <= names[64]
    assert {"leaky relu forward + backward", "tanh forward + backward"} <= names[256]
    for cases in microbench.CASES.values():
        assert cases[0].chain.activation == "linear" and not cases[0].forward
        assert cases[0].quantities == ("log_grad_norm",)
        laws = [find(case.chain) for case in cases if "tanh" not in case.name]
        assert all(law is None or abs(law.rate) * cases[0].width < 3 for law in laws)


def test_counting():
    feedforward = microbench.Case("x", TINY)
    assert feedforward.weights == 3 * 16**2
    assert feedforward.floor_passes == 2
    recurrent = microbench.Case("x", Chain(kind="recurrent", width=16, depth=7, gain=1.0))
    assert recurrent.weights == 2 * 7 * 16**2
    assert recurrent.floor_passes is None
    chains = 5
    assert microbench.our_work(feedforward, chains).weights == chains * feedforward.weights
    assert microbench.numpy_work(feedforward, chains).weights == chains * feedforward.weights
    assert microbench.floor_work(16, 3).weights == 3 * 16**2


def test_document(monkeypatch):
    linear = microbench.Case("linear backward", Chain(width=16, depth=3, gain=1.0), forward=False)
    recurrent = microbench.Case("recurrent", Chain(kind="recurrent", width=16, depth=3, gain=1.0))
    monkeypatch.setattr(microbench, "CASES", {256: [linear, recurrent], 64: [linear]})
    monkeypatch.setattr(microbench, "QUICK_SECONDS", 0.001)
    document = json.loads(json.dumps(microbench.run_microbench(quick=True)))
    assert [kernel["kernel"] for kernel in document["kernels"]] == ["linear backward n=16", "recurrent n=16"]
    first, second = document["kernels"]
    for name in ("ns_per_weight", "numpy_ns_per_weight", "floor_ns_per_weight"):
        assert 0.0 < first[f"{name}_min"] <= first[name]
    assert second["floor_ns_per_weight"] is None and second["floor_ratio"] is None
    assert document["repetitions"] >= 5
    table = bench_table(document)
    assert "linear backward n=16" in table and "recurrent n=16" in table


def test_our_calls_draw_other_chains():
    work = microbench.our_work(microbench.Case("x", TINY), 2)
    first, second = work.run(), work.run()
    assert first.shape == (2, 4)
    assert not np.any(first[:, 0] == second[:, 0])


@pytest.mark.parametrize("activation", ["linear", "relu"])
@pytest.mark.parametrize("forward", [False, True])
def test_numpy_draws_the_law(activation, forward):
    if activation == "relu" and not forward:
        pytest.skip("needs the forward pass")
    chain = Chain(activation=activation, width=8, depth=3, gain="critical")
    generator = np.random.default_rng(5)
    logs = np.array([chain_norms(chain, "float32", generator, forward) for _ in range(2000)])
    law = find(chain)
    alive = logs[np.isfinite(logs[:, 0])]
    assert alive.shape[0] / 2000 == pytest.approx(1 - law.p_dead[0], abs=0.02)
    error = np.sqrt(law.var[:-1] / len(alive))
    assert np.all(np.abs(alive.mean(axis=0)[:-1] - law.mean[:-1]) < 5 * error)
    np.testing.assert_allclose(logs[:, -1], 0.0, atol=1e-6)


@pytest.mark.parametrize("forward", [False, True])
def test_numpy_recurrent_uses_one_matrix(forward):
    drawn = []
    chain = Chain(kind="recurrent", activation="relu" if forward else "linear", width=8, depth=5, gain=1.0)

    def draw(shape):
        drawn.append(shape)
        return np.eye(8, dtype=np.float32) * math.sqrt(8)

    logs = chain_norms(chain, "float32", np.random.default_rng(1), forward, draw)
    assert drawn == [(8, 8)]
    if not forward:
        np.testing.assert_allclose(logs, 0.0, atol=1e-5)


@pytest.mark.parametrize("init", ["gaussian", "uniform", "orthogonal"])
def test_numpy_inits(init):
    w = drawing(np.random.default_rng(2), init, "float32")((64, 64))
    assert w.dtype == np.float32
    if init == "orthogonal":
        np.testing.assert_allclose(w @ w.T, np.eye(64), atol=1e-5)
    else:
        assert w.var() == pytest.approx(1.0, abs=0.1)
        assert w.mean() == pytest.approx(0.0, abs=0.1)
