"""Sizes of launches on a GPU, which need none to be decided."""

from __future__ import annotations

import numpy as np
import pytest

from gradsim import Chain
from gradsim.kernels.cuda import engine

RECURRENT = {"kind": "recurrent", "width": 256, "depth": 3}


@pytest.mark.parametrize(
    ("fields", "method", "threads"),
    [
        (RECURRENT, "dense", engine.MANY_THREADS),
        ({**RECURRENT, "init": "orthogonal"}, "dense", engine.MANY_THREADS),
        ({**RECURRENT, "width": 100}, "dense", engine.THREADS),
        ({**RECURRENT, "init": "identity"}, "dense", engine.THREADS),
        ({**RECURRENT, "batch": 2}, "dense", engine.THREADS),
        ({**RECURRENT, "probes": 2}, "dense", engine.THREADS),
        (RECURRENT, "deferred", engine.THREADS),
        ({"kind": "lstm", "width": 256, "depth": 3}, "dense", engine.THREADS),
        ({"kind": "gru", "width": 256, "depth": 3}, "dense", engine.THREADS),
        ({"width": 256, "depth": 3}, "dense", engine.THREADS),
        ({"width": 256, "depth": 3}, "deferred", engine.FEW_THREADS),
    ],
)
def test_blocks_are_squares_wherever_columns_are_multiplied(fields, method, threads):
    """Products of columns give thread (u, v) of EDGE x EDGE its entries: more threads would add them twice."""
    assert engine.threads_for(Chain(**fields), method) == threads


def test_blocks_fit_into_the_registers_of_a_multiprocessor():
    from gradsim.kernels.cuda.launch import REGISTERS

    assert engine.MANY_THREADS * REGISTERS <= 65_536


def test_the_budget_stays_an_integer_of_64_bits():
    own = object.__new__(engine.Engine)
    own._budget = engine.FIRST_BUDGET
    for _ in range(100):
        own._adapt(1e-9)
    assert engine.FIRST_BUDGET < own._budget < np.iinfo(np.int64).max // 2**20
    for _ in range(100):
        own._adapt(1e9)
    assert own._budget == 1
