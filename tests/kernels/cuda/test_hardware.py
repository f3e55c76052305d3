"""The CUDA kernels on a GPU: `pytest -m gpu`. Skipped, and said so, without one; failing where GRADSIM_REQUIRE_GPU=1.

The chains are those of the simulator. The law test rejects a right kernel with probability ALPHA, seeds fixed.
"""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

import gradsim
from gradsim import Chain
from tests.kernels.cuda import cases, golden_words
from tests.kernels.cuda.agreement import bound, by_cpu, quantities_of, wrong
from tests.kernels.cuda.background import ROOT
from tests.kernels.cuda.cases import case

REQUIRED = "GRADSIM_REQUIRE_GPU"
ALPHA = 1e-6


@pytest.fixture(scope="module")
def gpu():
    """A usable GPU."""
    from gradsim.errors import DeviceError
    from gradsim.kernels.cuda import device

    try:
        device.require()
    except DeviceError as error:
        if os.environ.get(REQUIRED) == "1":
            pytest.fail(f"{REQUIRED}=1: {error}")
        pytest.skip(str(error))


def run(one, **changes):
    """The quantities of a case on the GPU."""
    from gradsim.kernels.cuda.engine import Engine

    one = one.with_(**changes)
    engine = Engine(one.chain, one.seed, one.dtype, quantities_of(one), one.streams, method=one.method, slots=one.slots)
    return {name: values.astype(float) for name, values in engine.run(one.first, one.count).items()}


#: Threads and their order are the hardware's own.
TINY = list(dict.fromkeys(one.with_(threads=None, order="forward") for one in [*cases.SELECTED, *cases.COVERING]))
LARGE = [
    case({"count": 3, "dtype": dtype, "condition": 100.0}, **fields)
    for dtype in cases.DTYPES
    for fields in (
        {"width": 256, "depth": 3},
        {"width": 1000, "depth": 2, "activation": "linear"},
        {"width": 257, "depth": 2, "init": "orthogonal", "activation": "tanh", "gain": 1.0},
        {"width": 256, "depth": 2, "batch": 33, "norm": "batch"},
        {"kind": "recurrent", "width": 256, "depth": 4, "activation": "tanh", "gain": 0.9},
        {"kind": "lstm", "width": 256, "depth": 3},
    )
] + [
    case(
        {"count": 3, "method": "deferred", "dtype": dtype, "condition": 100.0},
        width=1000,
        depth=3,
        activation=activation,
    )
    for dtype in cases.DTYPES
    for activation in ("relu", "erf")
]


@pytest.mark.gpu
@pytest.mark.parametrize("case", TINY, ids=str)
def test_tiny_chains_agree(gpu, case):
    assert not wrong(run(case), case, stored=True)


@pytest.mark.gpu
@pytest.mark.parametrize("case", LARGE, ids=str)
def test_large_chains_agree(gpu, case):
    """With the CPU: the oracles, which form every matrix, are held to it elsewhere."""
    found = run(case)
    for name, values in by_cpu(case).items():
        np.testing.assert_array_equal(np.isfinite(found[name]), np.isfinite(values))
        allowed = 2 * bound(case, values) + 2 * np.spacing(np.abs(values).astype(np.float32))
        finite = np.isfinite(values)
        assert (np.abs(found[name] - values)[finite] <= allowed[finite]).all(), name


@pytest.mark.gpu
@pytest.mark.parametrize("one", [*cases.REPRESENTATIVE, *LARGE], ids=str)
def test_a_run_repeated_is_bit_identical(gpu, one):
    """And so it is in another number of waves of chains in flight."""
    many = one.with_(count=40)
    first = run(many)
    for changes in ({}, {"slots": 7}, {"slots": 1, "count": 3}):
        for name, values in run(many, **changes).items():
            np.testing.assert_array_equal(values, first[name][: len(values)])


@pytest.mark.gpu
def test_words_are_golden(gpu):
    from tests.kernels.cuda import words

    found = words.drawn()
    assert found["layers"] == golden_words.layers()
    for way in golden_words.WAYS:
        assert found[way] == golden_words.matrices()


@pytest.mark.gpu
@pytest.mark.parametrize("method", cases.METHODS)
def test_relu_chains_have_the_exact_law(gpu, method):
    """Several waves of chains at n = 256, by Kolmogorov and Smirnov; control: a gain 1 % off is rejected."""
    one = case(
        {"method": method, "dtype": "float32", "count": 20_000, "quantities": ("log_grad_norm",)}, width=256, depth=5
    )
    law = gradsim.predict(one.chain)
    found = run(one)["log_grad_norm"][:, 0]
    assert stats.kstest(found, lambda x: law.cdf(x, layer=0)).pvalue > ALPHA
    off = gradsim.predict(Chain(width=256, depth=5, gain=1.01 * np.sqrt(2)))
    assert stats.kstest(found, lambda x: off.cdf(x, layer=0)).pvalue < ALPHA


@pytest.mark.parametrize(("required", "status", "said"), [("0", 0, "1 skipped"), ("1", 1, f"{REQUIRED}=1")])
def test_without_a_gpu_hardware_is_skipped_or_demanded(required, status, said):
    """A machine without a GPU, or one made to see none."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-rs",
        "-p",
        "no:cacheprovider",
        "-m",
        "gpu",
        "-k",
        "words",
        __file__,
    ]
    environment = os.environ | {REQUIRED: required, "CUDA_VISIBLE_DEVICES": "-1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, said in done.stdout) == (status, True), done.stdout[-2000:]
