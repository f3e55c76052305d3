"""From plan to backend to store: runs an experiment, with progress and signals. No formulas.

`run` writes a result file; `simulate` keeps one cell in memory.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from numbers import Integral
from os import PathLike
from typing import TYPE_CHECKING, Any

from gradsim.chain import Chain
from gradsim.errors import ExperimentError
from gradsim.experiment import Experiment
from gradsim.interruption import Signals
from gradsim.plan import Block, Plan, plan
from gradsim.progress import BarProgress, LineProgress, Progress
from gradsim.provenance import available_threads, describe

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gradsim.backends import LocalBackend
    from gradsim.backends.cuda import CudaBackend
    from gradsim.results import Cell, Results

__all__ = ["check_threads", "progress_on", "run", "simulate"]

MAX_THREADS = 1024
MAX_CELLS_TIMED = 2000

Arrays = Mapping[str, "NDArray[np.float32]"]


def run(
    experiment: Experiment,
    path: str | PathLike[str],
    *,
    resume: bool = False,
    overwrite: bool = False,
    threads: int | None = None,
    progress: Progress | bool = False,
) -> Results:
    """Run an experiment into a result file and open it.

    The file appears whole when the run is complete; until then an existing one stays as it is.

    Parameters
    ----------
    experiment : Experiment
    path : path
        The result file, HDF5.
    resume : bool
        Go on with what is there: a complete file of the same experiment is opened and nothing is run; where
        nothing is there, the run starts.
    overwrite : bool
        Replace an existing file, once the run is complete.
    threads : int, optional
        Threads that simulate; by default as many as the process may use. Results do not depend on it.
    progress : bool or Progress
        Show progress on standard error.

    Returns
    -------
    Results
        To be closed, or used as a context manager.

    Raises
    ------
    ExperimentError
        For an experiment too large for the memory, or another experiment than the one to be resumed.
    OutputExistsError
        Where the file exists and neither `resume` nor `overwrite` is given.
    StorageError
        Where the folder is missing or not writable, or the disk is full.
    DeviceError
        With device "cuda", where there is no GPU that can be used, it fails, or a chain does not fit into its memory.
    RunInterrupted
        A `KeyboardInterrupt`, on SIGINT, SIGTERM or SIGHUP; nothing half-written is left.
    """
    from gradsim.store import ResultWriter, is_complete, open_result

    if not isinstance(experiment, Experiment):
        raise ExperimentError(
            f"run takes an Experiment, not {type(experiment).__name__}: gradsim.Experiment(chain=...), or "
            "gradsim.Experiment.from_toml(path)"
        )
    if resume and overwrite:
        raise ExperimentError("resume and overwrite exclude each other: give one of them")
    if resume and is_complete(path, experiment):
        return open_result(path)
    started = time.monotonic()
    made = plan(experiment, check_threads(threads))
    _require(experiment.device)
    with (
        _shown(progress) as shown,
        Signals(lambda: _block_seconds_left(made, shown)) as signals,
        ResultWriter(path, experiment, overwrite=overwrite, resume=resume, check=signals.check_block) as writer,
    ):
        seconds = _simulate(made, writer.write, shown, signals)
        signals.keep_going()
        provenance = describe(made.threads, time.monotonic() - started, experiment.device)
        writer.finish(provenance | _described(seconds))
        signals.check(complete=True)
    return open_result(path)


def simulate(
    chain: Chain,
    chains: int = 4096,
    seed: int = 0,
    *,
    method: str = "dense",
    device: str = "cpu",
    dtype: str = "float32",
    quantities: Sequence[str] | None = None,
    streams: str = "independent",
    threads: int | None = None,
    progress: Progress | bool = False,
) -> Cell:
    """Simulate one cell in memory.

    Parameters
    ----------
    chain : Chain
    chains : int
        How many are drawn.
    seed : int
        0 to 2^64 - 1.
    method : str
        "dense": every weight is drawn; "deferred": what matrices answer alone, with the same law (docs/deferred.md).
    device : str
        "cpu", or "cuda": the current GPU (docs/cuda.md).
    dtype : str
        "float32" or "float64", the arithmetic of the chain.
    quantities : sequence of str, optional
        What to record; by default everything that the chain has.
    streams : str
        "independent", or "common" for the same weights in every cell of the same shapes.
    threads : int, optional
        Threads that simulate; by default as many as the process may use. Results do not depend on it.
    progress : bool or Progress
        Show progress on standard error.

    Returns
    -------
    Cell
        The same numbers as a cell of a result file.

    Raises
    ------
    ExperimentError
        For a value that is not allowed, or more than the memory holds.
    DeviceError
        As in `run`.
    RunInterrupted
        A `KeyboardInterrupt`, on SIGINT, SIGTERM or SIGHUP.
    """
    from gradsim.results import Cell

    if not isinstance(chain, Chain):
        raise ExperimentError(
            f"simulate takes one Chain, not {type(chain).__name__}: gradsim.Chain(width=64, ...); "
            "a grid is an Experiment, which gradsim.run writes to a file"
        )
    experiment = Experiment(
        chain=chain,
        chains=chains,
        seed=seed,
        method=method,
        device=device,
        dtype=dtype,
        quantities=quantities,
        streams=streams,
    )
    made = plan(experiment, check_threads(threads))
    _require(experiment.device)
    parts: list[Arrays] = []

    def keep(block: Block, arrays: Arrays) -> None:
        parts.append(arrays)

    with _shown(progress) as shown, Signals(lambda: _block_seconds_left(made, shown)) as signals:
        _simulate(made, keep, shown, signals)
        signals.check()
    return Cell.in_memory(experiment, _joined(parts))


def check_threads(threads: object) -> int:
    """The number of threads to use; all that the process may use where None.

    Raises
    ------
    ExperimentError
        For anything but an integer from 1 to 1024.
    """
    if threads is None:
        return min(available_threads(), MAX_THREADS)
    if not isinstance(threads, bool) and isinstance(threads, Integral) and 1 <= int(threads) <= MAX_THREADS:
        return int(threads)
    raise ExperimentError(f"threads = {threads!r} is not allowed: threads is an integer from 1 to {MAX_THREADS}")


def progress_on(stream: Any) -> Progress:
    """The progress that suits a stream: a bar on a terminal, lines elsewhere."""
    return BarProgress() if stream.isatty() else LineProgress(stream)


def _simulate(made: Plan, take: Callable[[Block, Arrays], None], progress: Progress, signals: Signals) -> list[float]:
    """Execute the blocks of a plan and hand each to `take`; return the seconds that went by for each cell.

    Threads that are done with a cell begin with the next, so that its time is known to a piece of a block.
    """
    backend = _backend_of(made, progress)
    progress.begin(sum(cell.chains for cell in made.cells), made.seconds, made.foretold)
    # Neither loading the kernels nor compiling them counts in the rate; compiling takes long enough to be announced.
    progress.preparing()
    backend.prepare(made, progress.compiling)
    progress.prepared()
    signals.patiently()
    # Closed at once where the loop is left, so that no thread goes on working.
    missing = len(made.blocks)
    seconds = [0.0] * len(made.cells)
    last = time.monotonic()
    with closing(backend.blocks(made, made.blocks, signals.stop)) as blocks:
        for block, arrays in blocks:
            take(block, arrays)
            now = time.monotonic()
            seconds[block.cell] += now - last
            last = now
            progress.advance(block.chains, made.block_seconds(block))
            missing -= 1
            if missing:
                signals.check()
    # Once every block is there, the result is completed, signal or not.
    if missing:
        signals.check()
    return seconds


def _require(device: str) -> None:
    """Refuse a device that cannot be used, before anything is created."""
    if device == "cuda":
        from gradsim.kernels.cuda.device import require

        require()


def _backend_of(made: Plan, progress: Progress) -> LocalBackend | CudaBackend:
    """Who executes the blocks of a plan; nothing of CUDA is imported unless it is asked for."""
    if made.experiment.device == "cuda":
        from gradsim.backends.cuda import CudaBackend

        return CudaBackend(progress.say)
    from gradsim.backends import LocalBackend

    return LocalBackend(made.threads)


def _described(seconds: list[float]) -> dict[str, list[float]]:
    """The seconds of each cell for the provenance, where they fit into an attribute of a file."""
    return {"cell_seconds": [float(f"{value:.3g}") for value in seconds]} if len(seconds) <= MAX_CELLS_TIMED else {}


def _block_seconds_left(made: Plan, progress: Progress) -> float | None:
    """Expected seconds until the block in work is finished."""
    done = progress.meter.blocks
    if done >= len(made.blocks):
        return 0.0
    return progress.meter.block_seconds_left(made.block_seconds(made.blocks[done]))


def _shown(progress: Progress | bool) -> Progress:
    if isinstance(progress, Progress):
        return progress
    return progress_on(sys.stderr) if progress else Progress()


def _joined(parts: list[Arrays]) -> dict[str, NDArray[np.float32]]:
    """The blocks of a cell as one array per quantity."""
    import numpy as np

    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
