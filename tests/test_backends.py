"""The local backend: the same bits on any threads and blocks, in order, and out of the way when told."""

from __future__ import annotations

import threading
import time
from contextlib import closing

import numpy as np
import pytest

from gradsim import Chain, Experiment
from gradsim.backends import LocalBackend
from gradsim.kernels import cpu, linking
from gradsim.kernels.cpu import Engine
from gradsim.plan import Block, plan

# A call of the kernel lasts a fraction of a second, more on a machine that has other work.
SOON = 2.5

TABLES = [
    {"activation": ["linear", "relu"], "width": [5, 66], "depth": 3},
    {"kind": "recurrent", "width": 12, "depth": 9, "activation": "tanh"},
]


def experiment(**settings):
    return Experiment(TABLES, **{"chains": 200, "seed": 9, "block": 64, **settings})


def collect(made, threads=2, blocks=None):
    """Every block, and the cells put together."""
    found = list(LocalBackend(threads).blocks(made, blocks or made.blocks, threading.Event()))
    cells = []
    for cell in range(len(made.cells)):
        parts = [arrays for block, arrays in found if block.cell == cell]
        cells.append({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
    return [block for block, _ in found], cells


def assert_same_bits(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert list(one) == list(other)
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


def threads_of_the_backend():
    return [thread for thread in threading.enumerate() if thread.name.startswith("gradsim")]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert not threads_of_the_backend()


@pytest.fixture(scope="module")
def expected():
    """What the engine itself gives, cell by cell."""
    e = experiment()
    return [Engine(chain, e.seed, e.dtype, e.quantities).run(0, e.chains) for chain in e.cells]


class TestNumbers:
    @pytest.mark.parametrize("threads", [1, 2, 3, 7])
    def test_they_do_not_depend_on_threads(self, threads, expected):
        blocks, cells = collect(plan(experiment(), threads), threads)
        assert_same_bits(cells, expected)
        assert blocks == list(plan(experiment()).blocks)

    @pytest.mark.parametrize("size", [1, 64, 128, 10_000, "auto"])
    def test_they_do_not_depend_on_blocks(self, size, expected):
        _, cells = collect(plan(experiment(block=size)))
        assert_same_bits(cells, expected)

    def test_they_do_not_depend_on_the_other_cells(self, expected):
        for index, chain in enumerate(experiment().cells):
            _, cells = collect(plan(Experiment(chain, chains=200, seed=9)))
            assert_same_bits(cells, [expected[index]])

    def test_blocks_come_in_the_order_asked_for(self, expected):
        made = plan(experiment())
        backwards = made.blocks[::-1]
        found = list(LocalBackend(2).blocks(made, backwards, threading.Event()))
        assert [block for block, _ in found] == list(backwards)
        for block, arrays in found:
            for name, values in arrays.items():
                np.testing.assert_array_equal(values, expected[block.cell][name][block.start : block.stop])

    def test_any_cut_will_do(self, expected):
        made = plan(experiment())
        cuts = [Block(cell, start, stop) for cell in range(5) for start, stop in ((0, 1), (1, 3), (3, 200))]
        _, cells = collect(made, 3, cuts)
        assert_same_bits(cells, expected)

    def test_what_the_experiment_says_is_done(self):
        wanted = ("log_grad_norm", "log_grad_max")
        e = experiment(dtype="float64", streams="common", quantities=wanted)
        _, cells = collect(plan(e))
        for chain, arrays in zip(e.cells, cells, strict=True):
            direct = Engine(chain, 9, "float64", wanted, "common").run(0, 200)
            assert_same_bits([arrays], [direct])
            assert all(values.dtype == np.float32 for values in arrays.values())

    def test_shapes(self):
        _, cells = collect(plan(experiment()))
        feedforward, recurrent = cells[0], cells[-1]
        assert feedforward["log_grad_norm"].shape == (200, 4)
        assert feedforward["log_weight_grad_norm"].shape == (200, 3)
        assert recurrent["log_grad_max"].shape == (200, 10)
        assert recurrent["log_weight_grad_norm"].shape == (200, 1)

    def test_no_block_asked_for_is_none_given(self):
        assert not list(LocalBackend(2).blocks(plan(experiment()), [], threading.Event()))


class TestPreparing:
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_nothing_is_compiled_after_it(self, dtype, needed):
        """Every kernel that the cells' chains call is there, and none that they do not."""
        made = plan(experiment(dtype=dtype))
        LocalBackend(1).prepare(made)
        ready = needed(dtype)
        assert "advance" not in ready
        assert {"record_gradient", "fill_columns", "activate"} <= ready
        assert ready.isdisjoint({"norm_forward", "drop", "record_probes", "multiply_drawn"})
        collect(made)
        assert needed(dtype) == ready

    @pytest.mark.parametrize(
        "tables",
        [
            [{"activation": "relu", "width": [5, 90], "norm": ["none", "batch"], "gain": [1.0, 2.0]}],
            [{"kind": "recurrent", "width": 70, "init": ["orthogonal", "rademacher"], "probes": [1, 4]}],
            [{"profile": [3, 80, 2], "init": "orthogonal"}, {"width": 9, "skip": 0.5, "dropout": 0.1, "bias": 0.1}],
            [{"width": 66, "activation": ["tanh", "gelu"], "norm": "layer", "batch": [1, 5], "skip": "inv-depth"}],
            [{"width": 8, "clip": 0.5, "init": "identity", "activation": "tanh"}, {"kind": "gru", "width": 5}],
        ],
    )
    def test_nothing_is_compiled_after_it_whatever_the_chain(self, tables, needed):
        made = plan(Experiment([table if "profile" in table else table | {"depth": 4} for table in tables], chains=20))
        LocalBackend(1).prepare(made)
        ready = needed("float32")
        collect(made)
        assert needed("float32") == ready

    def test_one_small_chain_stands_for_all_of_its_kind(self, monkeypatch):
        prepared = []

        class Recording(Slow):
            def __init__(self, chain, seed, dtype, quantities, method):
                prepared.append((chain.kind, chain.width, chain.depth, chain.batch, chain.probes, quantities))

            def run(self, first, count, budget):
                assert first == 0

        monkeypatch.setattr(cpu, "Engine", Recording)
        tables = [
            {"kind": ["recurrent", "lstm"], "width": [4, 5, 400], "depth": 50, "gain": [1.0, 2.0]},
            {"norm": "batch", "depth": 1},
            {"kind": "gru", "probes": [3, 4], "width": 9},
        ]
        LocalBackend(1).prepare(
            plan(Experiment(tables, quantities=["log_grad_norm", "log_cell_grad_norm", "lyapunov"]))
        )
        assert prepared == [
            ("recurrent", 4, 2, 1, 1, ("log_grad_norm",)),
            ("recurrent", 64, 2, 1, 1, ("log_grad_norm",)),
            ("lstm", 4, 2, 1, 1, ("log_grad_norm", "log_cell_grad_norm")),
            ("lstm", 64, 2, 1, 1, ("log_grad_norm", "log_cell_grad_norm")),
            ("feedforward", 64, 1, 3, 1, ("log_grad_norm",)),
            ("gru", 9, 2, 1, 2, ("log_grad_norm", "lyapunov")),
        ]


@pytest.fixture
def needed(monkeypatch):
    """The names of the kernels called by address so far, beginning with none."""
    for dtype in ("float32", "float64"):
        linking.table(dtype)[1:] = 0

    def names(dtype):
        filled = np.flatnonzero(linking.table(dtype)[1:])
        return {linking._links[i].kernel.py_func.__name__ for i in filled}

    return names


class Slow:
    """An engine whose first pieces fail, or that works until it is stopped."""

    fails_at = None

    def __init__(self, *arguments):
        pass

    def run(self, first, count, stop):
        if first == self.fails_at:
            raise ZeroDivisionError(f"chain {first}")
        if self.fails_at is not None and first > self.fails_at:
            return None if stop.wait(30) else {}
        return {"log_grad_norm": np.zeros((count, 1), np.float32)}


class TestLeaving:
    @pytest.fixture
    def slow(self, monkeypatch):
        engine = type("Engine", (Slow,), {})
        monkeypatch.setattr(cpu, "Engine", engine)
        return engine

    @pytest.mark.parametrize("first", [0, 64, 192], ids=["first block", "second block", "last block"])
    def test_an_error_in_a_thread_comes_out_at_once(self, slow, first):
        """Also where other threads are in the middle of long pieces."""
        slow.fails_at = first
        made = plan(Experiment(Chain(width=4, depth=2), chains=256, block=64), 4)
        started = time.monotonic()
        with pytest.raises(ZeroDivisionError, match=f"chain {first}"):
            list(LocalBackend(4).blocks(made, made.blocks, threading.Event()))
        assert time.monotonic() - started < SOON

    def test_blocks_before_the_error_are_handed_over(self, slow):
        slow.fails_at = 128
        made = plan(Experiment(Chain(width=4, depth=2), chains=256, block=64), 2)
        seen = []
        with pytest.raises(ZeroDivisionError):
            for block, _ in LocalBackend(2).blocks(made, made.blocks, threading.Event()):
                seen.append(block.start)
        assert seen == [0, 64]

    def test_leaving_the_loop_leaves_no_thread_at_work(self):
        made = plan(Experiment(Chain(width=64, depth=200), chains=100_000, block=64), 2)
        with closing(LocalBackend(2).blocks(made, made.blocks, threading.Event())) as blocks:
            for _ in blocks:
                left = time.monotonic()
                break
        assert time.monotonic() - left < SOON
        assert not threads_of_the_backend()

    def test_nothing_is_begun_after_the_stop(self):
        stop = threading.Event()
        stop.set()
        made = plan(experiment())
        assert not list(LocalBackend(2).blocks(made, made.blocks, stop))

    def test_the_stop_between_two_blocks(self):
        stop = threading.Event()
        made = plan(Experiment(Chain(width=64, depth=200), chains=100_000, block=64), 2)
        seen = 0
        for _ in LocalBackend(2).blocks(made, made.blocks, stop):
            seen += 1
            stop.set()
            started = time.monotonic()
        assert seen <= 2  # the next block may have been finished by then
        assert time.monotonic() - started < SOON

    @pytest.mark.parametrize(
        "fields",
        [
            {"width": 4096, "depth": 50},
            {"width": 4096, "depth": 2000, "activation": "linear"},
            {"width": 4096, "depth": 50, "init": "orthogonal"},
            {"width": 3000, "depth": 500, "kind": "recurrent"},
            {"width": 3000, "depth": 50, "kind": "recurrent", "init": "orthogonal"},
            {"width": 1, "depth": 1_000_000, "init": "identity", "activation": "tanh"},
            {"width": 2, "depth": 1_000_000, "kind": "recurrent", "activation": "tanh"},
            {"width": 64, "depth": 100_000},
        ],
        ids=str,
    )
    def test_a_stop_is_heard_within_a_second_in_the_middle_of_a_chain(self, fields):
        stop = threading.Event()
        made = plan(Experiment(Chain(**fields), chains=64, quantities=["log_grad_norm", "log_weight_grad_norm"]))
        stopped_at = []

        def set_stop():
            stop.set()
            stopped_at.append(time.monotonic())

        timer = threading.Timer(0.5, set_stop)
        timer.start()
        found = list(LocalBackend(1).blocks(made, made.blocks, stop))
        ended = time.monotonic()
        timer.join()
        assert not found
        assert ended - stopped_at[0] < SOON
