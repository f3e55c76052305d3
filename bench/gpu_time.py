"""Times on a GPU by CUDA events, and what the GPU can do at all, measured: multiply-adds and bytes a second."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Any

from gradsim.timing import Timing, Work

#: Threads of a block, blocks a multiprocessor, turns of the loop, chains of multiply-adds in it and links of each a
#: turn, for the ceiling.
_THREADS, _BLOCKS, _TURNS, _CHAINS, _LINKS = 256, 8, 1024, 8, 4
_COPY_BYTES, _REPETITIONS = 2**30, 9


def event_ns(work: Work) -> tuple[Any, float]:
    """Result and nanoseconds per weight of one call, between two events of the default stream.

    Our kernels run on that stream too, and a call returns when its results are on the host, so both sides are timed
    with what the host does in between.
    """
    import torch

    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    begin.record()
    result = work.run()
    end.record()
    end.synchronize()
    return result, begin.elapsed_time(end) * 1e6 / work.weights


def turns(
    ours: Work, others: Mapping[str, Work], repetitions: int, timed: Callable[[Work], tuple[Any, float]] = event_ns
) -> tuple[Timing, dict[str, Timing]]:
    """Time our work beside others: ours follows each of theirs in each repetition; all run once before, untimed."""
    own, timings = Timing(), {name: Timing() for name in others}
    for work in (ours, *others.values()):
        timed(work)
    for _ in range(repetitions):
        for name, work in (others or {"": None}).items():
            if work is not None:
                result, ns = timed(work)
                timings[name].results.append(result)
                timings[name].ns.append(ns)
            result, ns = timed(ours)
            own.ns.append(ns)
            own.results.append(result)
            if work is not None:
                timings[name].own_ns.append(ns)
    return own, timings


def ceilings() -> dict[str, float]:
    """What this GPU reaches: float32 multiply-adds and bytes copied (read and written) a second, and the clock.

    The clock is what the multiply-adds imply at 128 a clock and multiprocessor, the guide's figure for compute
    capability 8.6 to 9.0; of 8.0 it is 64.
    """
    import torch

    processors = torch.cuda.get_device_properties(0).multi_processor_count
    blocks = processors * _BLOCKS
    kernel, out = _multiply_adds(), torch.zeros(blocks * _THREADS, device="cuda")
    operations = blocks * _THREADS * _TURNS * _CHAINS * _LINKS
    added = statistics.median(
        event_ns(Work(lambda: kernel[blocks, _THREADS](out, 0.999), operations))[1] for _ in range(_REPETITIONS)
    )
    source = torch.randn(_COPY_BYTES // 4, device="cuda")
    target = torch.empty_like(source)
    copied = statistics.median(
        event_ns(Work(lambda: target.copy_(source), 2 * _COPY_BYTES))[1] for _ in range(_REPETITIONS)
    )
    rate = 64 if torch.cuda.get_device_capability() == (8, 0) else 128
    return {
        "multiprocessors": processors,
        "multiply_adds_per_s": 1e9 / added,
        "bytes_per_s": 1e9 / copied,
        "clock_ghz": 1.0 / added / (rate * processors),
    }


def _multiply_adds() -> Any:
    """Independent chains of multiply-adds, which nothing but the multiplier limits."""
    from numba import cuda, float32, uint32

    @cuda.jit(device=True)
    def four(x: Any, f: Any) -> Any:
        x = (x * f + f) * f + f
        return (x * f + f) * f + f

    @cuda.jit
    def kernel(out: Any, by: Any) -> None:
        i = cuda.grid(1)
        f = float32(by)
        a, b, c, d = float32(i), float32(i + 1), float32(i + 2), float32(i + 3)
        p, q, r, s = float32(i + 4), float32(i + 5), float32(i + 6), float32(i + 7)
        turn = uint32(0)
        while turn < uint32(_TURNS):
            a, b, c, d = four(a, f), four(b, f), four(c, f), four(d, f)
            p, q, r, s = four(p, f), four(q, f), four(r, f), four(s, f)
            turn = uint32(turn + uint32(1))
        out[i] = a + b + c + d + p + q + r + s

    return kernel
