"""One thread each: every library is held to one, and the process to one processor."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

#: What XLA is told; to be in the environment before JAX is loaded.
XLA_FLAGS = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
#: Processor seconds per second above which something ran beside the one thread.
MOST_PROCESSORS = 1.05


@contextmanager
def one_processor() -> Iterator[None]:
    """Hold this process and the threads it starts to one processor, NumPy and torch and XLA to one thread.

    Torch and JAX have still to be loaded.
    """
    from threadpoolctl import threadpool_limits

    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    os.environ.update(dict.fromkeys(names, "1"))
    os.environ["XLA_FLAGS"] = XLA_FLAGS
    os.environ["JAX_PLATFORMS"] = "cpu"
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    if before is not None:
        os.sched_setaffinity(0, {max(before)})
    try:
        with threadpool_limits(1):
            yield
    finally:
        if before is not None:
            os.sched_setaffinity(0, before)


class Processors:
    """Processor seconds per second since this was made."""

    def __init__(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def used(self) -> float:
        """At most 1 where one thread ran."""
        wall, processor = self._began
        return (time.process_time() - processor) / (time.perf_counter() - wall)
