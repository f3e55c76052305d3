"""Kernels called by address: what happens where one cannot be made ready at once."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from gradsim.chain import Chain
from gradsim.kernels import linking
from gradsim.kernels.cpu import Engine

CHAIN = Chain(width=5, depth=3)


def simulate():
    return Engine(CHAIN, 1, "float32", ("log_grad_norm",)).run(0, 20)["log_grad_norm"]


@pytest.fixture
def unlinked():
    linking.table("float32")[1:] = 0


def test_an_interruption_waits_for_the_kernel_and_is_not_lost(monkeypatch, unlinked):
    expected = simulate()
    linking.table("float32")[1:] = 0
    address_of, calls = linking._address, []

    def interrupted_first(link, real):
        calls.append(link)
        if len(calls) == 2:
            raise KeyboardInterrupt("now")
        return address_of(link, real)

    monkeypatch.setattr(linking, "_address", interrupted_first)
    with pytest.raises(KeyboardInterrupt, match="now"):
        simulate()
    assert calls[1] is calls[2], "made ready at the second attempt"
    assert np.array_equal(simulate(), expected)


def test_a_kernel_that_cannot_be_compiled_ends_the_process_and_says_why():
    script = """
from tests.kernels import test_linking as t
def fail(link, real):
    raise ValueError("no compiler")
t.linking._address = fail
t.simulate()
print("went on")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "ValueError: no compiler" in done.stderr
    assert not done.stdout


def test_the_types_written_down_are_those_of_the_memory():
    from numba import typeof

    from gradsim.kernels import kinds
    from gradsim.kernels.layout import make_memory

    for dtype, real in linking.REALS.items():
        assert typeof(make_memory(CHAIN, ("log_grad_norm",), dtype)) == kinds.memory(real)
