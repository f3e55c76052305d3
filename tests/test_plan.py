"""The plan: blocks, estimates, and runs too large for the memory."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradsim import memory
from gradsim.errors import ExperimentError
from gradsim.experiment import Experiment
from gradsim.plan import LEAF, MAX_BLOCKS, plan

PLENTY = 2**50


@settings(derandomize=True, max_examples=60, deadline=None)
@given(
    width=st.lists(st.integers(1, 2000), min_size=1, max_size=3, unique=True),
    depth=st.integers(1, 500),
    chains=st.integers(1, 300_000),
    threads=st.integers(1, 64),
    block=st.one_of(st.just("auto"), st.integers(1, 10**6)),
)
def test_blocks_cover_every_chain_once_in_order_and_on_leaves(
    width: list[int], depth: int, chains: int, threads: int, block: int | str
) -> None:
    experiment = Experiment(chain={"width": width, "depth": depth}, chains=chains, block=block)
    made = plan(experiment, threads, available=PLENTY)
    for index in range(len(experiment.cells)):
        blocks = [block for block in made.blocks if block.cell == index]
        assert blocks[0].start == 0
        assert blocks[-1].stop == chains
        assert all(a.stop == b.start for a, b in itertools.pairwise(blocks))
        assert all(block.chains % LEAF == 0 for block in blocks[:-1])
        assert all(block.chains > 0 for block in blocks)
    assert [block.cell for block in made.blocks] == sorted(block.cell for block in made.blocks)
    assert made.seconds == pytest.approx(sum(map(made.block_seconds, made.blocks)))
    if block == "auto":
        assert len(made.blocks) <= MAX_BLOCKS


def test_automatic_blocks_take_seconds_and_their_results_stay_small() -> None:
    long = plan(Experiment(chain={"width": 256, "depth": 100}, chains=100_000), 2, available=PLENTY)
    assert all(1 < long.block_seconds(block) < 5 for block in long.blocks[:-1])
    slow = plan(Experiment(chain={"width": 4096, "depth": 1000}, chains=1000), 2, available=PLENTY)
    assert {block.chains for block in slow.blocks[:-1]} == {LEAF}
    cheap = plan(Experiment(chain={"width": 1, "depth": 10_000}, chains=10_000), 64, available=PLENTY)
    assert all(block.chains * cheap.cells[0].bytes_result < 2**26 for block in cheap.blocks)


def test_automatic_blocks_are_few_even_for_very_many_chains() -> None:
    made = plan(Experiment(chain={"width": 64, "depth": 10_000}, chains=2**24), available=PLENTY)
    assert MAX_BLOCKS / 4 < len(made.blocks) <= MAX_BLOCKS
    grid = {"width": {"from": 1, "to": 100, "num": 100}, "gain": {"from": 1, "to": 100, "num": 100}}
    assert len(plan(Experiment(chain=grid), available=PLENTY).blocks) == MAX_BLOCKS


def test_a_given_block_is_rounded_up_to_whole_leaves() -> None:
    made = plan(Experiment(chains=1000, block=100), available=PLENTY)
    assert [(block.start, block.stop) for block in made.blocks][:2] == [(0, 128), (128, 256)]
    with pytest.raises(ExperimentError, match="block = 1 makes 67108864 blocks"):
        plan(Experiment(chains=2**32, block=1), available=PLENTY)


@pytest.mark.parametrize(
    ("chain", "weights"),
    [
        ({"width": 10, "depth": 7}, 700),
        ({"kind": "recurrent", "width": 10, "depth": 7}, 100),
        ({"profile": [3, 4, 5]}, 32),
        ({"kind": "lstm", "width": 10, "depth": 7}, 400),
        ({"kind": "gru", "width": 10, "depth": 7}, 300),
    ],
)
def test_weights_per_chain(chain: dict[str, Any], weights: int) -> None:
    assert plan(Experiment(chain=chain)).cells[0].weights == weights


def test_time_grows_with_what_is_drawn() -> None:
    def nanoseconds(dtype: str = "float32", **chain: Any) -> float:
        return plan(Experiment(chain={"width": 256} | chain, dtype=dtype), available=PLENTY).cells[0].nanoseconds

    assert nanoseconds() / (50 * 256**2) == pytest.approx(1.5, rel=0.1)
    assert nanoseconds(kind="recurrent") < nanoseconds() / 5
    assert nanoseconds(init="orthogonal") > nanoseconds()
    assert nanoseconds(init="identity") < nanoseconds() / 10
    assert nanoseconds(activation="tanh") > nanoseconds()
    assert nanoseconds("float64") == pytest.approx(3 * nanoseconds())
    # One draw of the weights serves a batch.
    assert 5 * nanoseconds() < nanoseconds(batch=64) < 64 / 5 * nanoseconds()
    assert nanoseconds(batch=64, norm="batch") > nanoseconds(batch=64)
    assert nanoseconds(kind="recurrent", batch=64) > 30 * nanoseconds(kind="recurrent")
    assert nanoseconds(kind="lstm", gain=1.0) > 4 * nanoseconds(kind="recurrent")
    assert nanoseconds(kind="gru") < nanoseconds(kind="lstm")
    assert nanoseconds() < nanoseconds(probes=2) < nanoseconds(probes=16) < nanoseconds(batch=16, probes=1) * 5
    assert nanoseconds(dropout=0.5) > nanoseconds()
    assert nanoseconds(activation="gelu") == nanoseconds(activation="erf") > nanoseconds(activation="silu")


@pytest.mark.parametrize(
    "chain",
    [
        {"activation": "tanh"},
        {"activation": "tanh", "batch": 16},
        {"activation": "tanh", "kind": "recurrent"},
        {"activation": "relu"},
        {"kind": "gru", "gain": 1.0},
    ],
)
def test_answers_cost_less_than_matrices_where_layers_are_wide(chain: dict[str, Any]) -> None:
    def nanoseconds(method: str, width: int) -> float:
        experiment = Experiment(chain=chain | {"width": width, "depth": 20}, method=method)
        return plan(experiment, available=PLENTY).cells[0].nanoseconds

    assert nanoseconds("deferred", 4096) < nanoseconds("dense", 4096) / 2
    # Grows with the width, the other with its square.
    assert nanoseconds("deferred", 4096) == pytest.approx(4 * nanoseconds("deferred", 1024), rel=0.1)
    assert nanoseconds("dense", 4096) > 10 * nanoseconds("dense", 1024)


def test_a_query_past_the_width_still_costs_the_width() -> None:
    def nanoseconds(**chain: Any) -> float:
        experiment = Experiment(chain={"activation": "tanh", "width": 64, "gain": 1.5} | chain, method="deferred")
        return plan(experiment, available=PLENTY).cells[0].nanoseconds

    assert nanoseconds(kind="recurrent", depth=4000) > 1.9 * nanoseconds(kind="recurrent", depth=2000)
    assert nanoseconds(batch=1024, depth=2) > 1.9 * nanoseconds(batch=512, depth=2)


def test_sizes_follow_what_is_recorded() -> None:
    full = plan(Experiment(chain={"width": 8, "depth": 9}, chains=10_000))
    assert full.cells[0].bytes_result == 4 * (10 + 10 + 9 + 10)
    tied = plan(Experiment(chain={"kind": "recurrent", "width": 8, "depth": 9}))
    assert tied.cells[0].bytes_result == 4 * (10 + 10 + 1 + 10)
    lstm = plan(Experiment(chain={"kind": "lstm", "width": 8, "depth": 9, "probes": 3}))
    assert lstm.cells[0].bytes_result == 4 * (10 + 10 + 1 + 10 + 10 + 3)
    assert full.bytes_file > 10_000 * full.cells[0].bytes_result
    brief = {"chain": {"width": 8, "depth": 9}, "record": "summary", "keep": 64}
    few, many = (plan(Experiment(**brief, chains=chains), available=PLENTY) for chains in (10**5, 10**9))
    assert few.bytes_file == many.bytes_file < full.bytes_file


def test_memory_in_summary_mode_hardly_depends_on_the_number_of_chains() -> None:
    settings = {"chain": {"width": 64, "depth": 50}, "record": "summary"}
    few, many = (plan(Experiment(**settings, chains=chains), 2).bytes_memory for chains in (10**6, 10**8))
    assert many < 1.1 * few < 300 * 2**20


@pytest.mark.parametrize(
    ("chain", "size"),
    [
        ({"width": 2_000_000_000}, "581 GiB"),
        ({"kind": "recurrent", "width": [8, 200_000], "init": "orthogonal"}, "447 GiB"),
        ({"kind": "recurrent", "width": 200_000}, "447 GiB"),
        ({"profile": [1, 2_000_000_000]}, "216 GiB"),
        ({"depth": 2**24 - 1, "width": 64}, "112 GiB"),
    ],
)
def test_a_run_larger_than_the_memory_is_refused_with_both_sizes(chain: dict[str, Any], size: str) -> None:
    with pytest.raises(ExperimentError) as caught:
        plan(Experiment(chain=chain), available=8 * 2**30)
    message = str(caught.value)
    assert f"needs {size}" in message
    assert "8.0 GiB is available" in message
    assert "\n" not in message
    assert ("cell 1" in message) == (chain["width"] == [8, 200_000] if "width" in chain else False)


@pytest.mark.parametrize(
    "chain",
    [
        {"width": 1, "depth": 1000},
        {"width": 7, "depth": 3, "activation": "linear"},
        {"width": 100, "depth": 20, "activation": "tanh"},
        {"profile": [3, 500, 20]},
        {"kind": "recurrent", "width": 33, "depth": 40},
        {"kind": "recurrent", "width": 5, "depth": 6, "init": "identity"},
        {"width": 70, "depth": 6, "batch": 9, "norm": "batch", "skip": 1.0},
        {"kind": "recurrent", "width": 33, "depth": 6, "probes": 5, "norm": "layer"},
        {"kind": "lstm", "gain": 1.0, "width": 33, "depth": 6, "batch": 3},
        {"kind": "gru", "gain": 1.0, "width": 33, "depth": 6, "probes": 3},
        {"width": 33, "depth": 6, "gain": 1.0, "init": "orthogonal"},
        {"kind": "lstm", "gain": 1.0, "width": 33, "depth": 20, "batch": 3, "init": "orthogonal"},
        {"kind": "recurrent", "width": 33, "depth": 6, "batch": 3},
    ],
)
@pytest.mark.parametrize("method", ["dense", "deferred"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("quantities", [["log_grad_norm"], ["log_grad_norm", "log_weight_grad_norm"]])
def test_the_memory_of_a_thread_is_what_the_kernel_takes(
    chain: dict[str, Any], method: str, dtype: str, quantities: list[str]
) -> None:
    from gradsim.kernels import cpu, layout

    if method == "deferred" and chain.get("init") == "identity":
        chain = chain | {"init": "orthogonal"}
    experiment = Experiment(chain=chain, method=method, dtype=dtype, quantities=quantities)
    _, make, _ = cpu.kernel_of(experiment.cells[0], method)
    taken = make(experiment.cells[0], experiment.quantities, dtype, method)
    fixed = {"spec", "progress", "key", "links"}  # the links are shared by all threads
    sizes = [array.nbytes for name, array in taken._asdict().items() if name not in fixed]
    planned = plan(experiment, available=PLENTY).cells[0].bytes_memory
    # Most arrays are moved to begin at a cache line.
    assert sum(sizes) <= planned <= sum(sizes) + layout.CACHE_LINE * len(sizes)


def test_a_narrow_deep_chain_needs_padded_rows() -> None:
    made = plan(Experiment(chain={"width": 1, "depth": 10**6}, chains=64), threads=2, available=PLENTY)
    assert made.cells[0].bytes_memory > 384 * 10**6
    assert made.bytes_memory > 2 * made.cells[0].bytes_memory


def test_the_memory_of_a_run_covers_writing_a_long_chain(tmp_path: Path) -> None:
    import tracemalloc

    import numpy as np

    from gradsim.plan import Block
    from gradsim.store import ResultWriter

    depth, chains = 200_000, 4
    experiment = Experiment(chain={"width": 1, "depth": depth}, chains=chains, quantities=["log_grad_norm"])
    planned = plan(experiment, available=PLENTY)
    values = np.ones((chains, depth + 1), np.float32)
    with ResultWriter(tmp_path / "out.h5", experiment) as writer:
        tracemalloc.start()
        writer.write(Block(0, 0, chains), {"log_grad_norm": values})
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < planned.bytes_memory - planned.cells[0].bytes_memory


def test_planning_compiles_nothing() -> None:
    code = "import sys, gradsim.plan; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent).returncode == 0


def test_memory_is_known_here_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    found = memory.available_memory()
    assert found is None or 2**20 < found < 2**50
    monkeypatch.setattr(memory, "_lines", lambda path: [])
    monkeypatch.delattr(memory.os, "sysconf")
    assert memory.available_memory() is None
    monkeypatch.setattr("gradsim.plan.available_memory", lambda: None)
    assert plan(Experiment(chain={"width": 2_000_000_000})).bytes_memory > 2**38


@pytest.mark.parametrize("version", [1, 2])
def test_limits_of_control_groups_count(monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    root = "/sys/fs/cgroup/memory" if version == 1 else "/sys/fs/cgroup"
    limit, usage = ("limit_in_bytes", "usage_in_bytes") if version == 1 else ("max", "current")
    files = {
        "/proc/meminfo": ["MemTotal: 9 kB", "MemAvailable: 8000 kB"],
        "/proc/self/cgroup": ["5:cpu,memory:/outer/inner"] if version == 1 else ["0::/outer/inner"],
        f"{root}/outer/memory.{limit}": ["5000000"],
        f"{root}/outer/memory.{usage}": ["3000000"],
        f"{root}/outer/memory.stat": ["anon 1", "inactive_file 1000000"],
        f"{root}/outer/inner/memory.{limit}": ["max"],
        f"{root}/outer/inner/memory.{usage}": ["3000000"],
    }
    monkeypatch.setattr(memory, "_lines", lambda path: files.get(Path(path).as_posix(), []))
    assert memory.available_memory() == 3_000_000


@pytest.mark.parametrize(
    ("count", "text"), [(5, "5 B"), (1536, "1.5 KiB"), (40 * 2**30, "40 GiB"), (2**63, "8192 PiB")]
)
def test_bytes_for_people(count: int, text: str) -> None:
    assert memory.format_bytes(count) == text
