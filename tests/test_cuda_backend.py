"""The backend of a GPU, the CPU's engine in it: blocks in order, one engine a cell, and out of the way when told."""

from __future__ import annotations

import threading
from typing import ClassVar

import numpy as np
import pytest

from gradsim import Experiment
from gradsim.backends.cuda import COMPILATION, CudaBackend
from gradsim.errors import DeviceError
from gradsim.kernels import cpu
from gradsim.kernels.cuda import cache
from gradsim.kernels.cuda import engine as gpu
from gradsim.plan import plan

TABLES = [
    {"activation": ["linear", "relu"], "width": 5, "depth": 3},
    {"kind": ["lstm", "gru"], "width": 4, "depth": 2, "gain": 1.0},
]


@pytest.fixture
def events(monkeypatch):
    """What engines went through; `fails_at` is a chain that no GPU survives."""

    class Engine(cpu.Engine):
        log: ClassVar[list] = []
        fails_at = None

        def __init__(self, chain, seed, dtype, quantities, streams, method, say):
            super().__init__(chain, seed, dtype, quantities, streams, method)
            self.log.append(("made", chain.activation if chain.gates == 1 else chain.kind, chain.widths[0]))
            self._say = say

        def run(self, first, count, stop=None):
            self.log.append(("run", first, count))
            self._say("it is full")
            if self.fails_at is not None and first <= self.fails_at < first + count:
                raise DeviceError("lost")
            return super().run(first, count, stop)

        def close(self):
            self.log.append(("closed",))

    monkeypatch.setattr(gpu, "Engine", Engine)
    return Engine


@pytest.fixture
def made():
    return plan(Experiment(TABLES, chains=100, seed=3, block=64, device="cuda"))


def test_the_blocks_are_those_of_the_processor_in_order(events, made):
    said = []
    found = list(CudaBackend(said.append).blocks(made, made.blocks, threading.Event()))
    assert [block for block, _ in found] == list(made.blocks)
    e = made.experiment
    for block, arrays in found:
        chain = e.cells[block.cell]
        direct = cpu.Engine(chain, e.seed, e.dtype, e.quantities_of(chain)).run(block.start, block.chains)
        assert list(arrays) == list(direct)
        for name in arrays:
            np.testing.assert_array_equal(arrays[name], direct[name])
    assert said == ["it is full"], "once a run"


def test_an_engine_serves_its_cell_and_is_closed_after_it(events, made):
    list(CudaBackend(print).blocks(made, made.blocks, threading.Event()))
    of_a_cell = [("run", 0, 64), ("run", 64, 36), ("closed",)]
    names = [("linear", 5), ("relu", 5), ("lstm", 4), ("gru", 4)]
    assert events.log == [entry for name in names for entry in (("made", *name), *of_a_cell)]


def test_what_is_made_ready_is_one_small_chain_of_each_kernel(events, made):
    CudaBackend(print).prepare(made, print)
    # Linear and ReLU chains are one kernel's.
    ready = [entry for name in ("linear", "lstm", "gru") for entry in (("made", name, 4), ("run", 0, 1), ("closed",))]
    assert events.log == ready


def test_compilation_is_announced(events, made, monkeypatch):
    """As soon as numba-cuda's compiler begins, and once."""
    run, said = events.run, []

    def compiling(self, first, count, stop=None):
        for _ in range(3):
            cache.event.broadcast(cache.event.Event(cache._PASS, cache.event.EventStatus.START, {}))
        return run(self, first, count, stop)

    monkeypatch.setattr(events, "run", compiling)
    CudaBackend(lambda text: None).prepare(made, said.append)
    assert said == [COMPILATION]


def test_a_fault_comes_out_after_the_blocks_before_it(events, made):
    events.fails_at = 70
    seen, stop = [], threading.Event()
    with pytest.raises(DeviceError, match="lost"):
        for block, _ in CudaBackend(lambda text: None).blocks(made, made.blocks, stop):
            seen.append((block.cell, block.start))
    assert seen == [(0, 0)] and stop.is_set()
    assert events.log[-1] == ("closed",)


def test_leaving_the_loop_and_the_stop_end_it(events, made):
    for leave in (True, False):
        stop, backend = threading.Event(), CudaBackend(lambda text: None)
        blocks = backend.blocks(made, made.blocks, stop)
        next(blocks)
        blocks.close() if leave else stop.set()
        rest = list(blocks)
        assert stop.is_set() and len(rest) <= 1, "the next one may have been finished by then"
        assert events.log[-1] == ("closed",)
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("gradsim")]
