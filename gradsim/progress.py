"""How far a run is: a bar on a terminal, a timestamped line now and then elsewhere, or nothing.

Rate and time left come from the work of the finished blocks, as the plan expects it, so that a grid of
cheap and costly cells is foretold well. Time spent compiling is kept out of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

__all__ = ["BarProgress", "LineProgress", "Meter", "Notices", "Progress", "duration"]

LINE_INTERVAL_S = 30.0
_HALF_A_MINUTE = "about half a minute"


def duration(seconds: float) -> str:
    """A length of time in words: ``"0.4 s"``, ``"12 s"``, ``"3 min 20 s"``, ``"2 h 5 min"``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class Meter:
    """Counts chains and work done, and the time they took.

    Parameters
    ----------
    chains : int
        Chains to be simulated in all.
    work : float
        The time they are expected to take, in the plan's seconds. What the finished blocks took corrects it.
    clock : callable
        Monotonic time in seconds.
    foretold : bool
        Whether the plan's seconds are those of this machine; if not, they only say how much work is in a block.
    """

    def __init__(
        self, chains: int, work: float, clock: Callable[[], float] = time.monotonic, foretold: bool = True
    ) -> None:
        self.total_chains = chains
        self.total_work = work
        self.chains = 0
        self.blocks = 0
        self.work = 0.0
        self._clock = clock
        self._foretold = foretold
        self._started = clock()
        self._block_started = self._started
        self._paused_at: float | None = None

    def pause(self) -> None:
        """Stop the clock: something that is not simulation begins."""
        if self._paused_at is None:
            self._paused_at = self._clock()

    def resume(self) -> float:
        """Let the clock go on; the seconds it stood."""
        if self._paused_at is None:
            return 0.0
        stood = self._clock() - self._paused_at
        self._paused_at = None
        self._started += stood
        self._block_started += stood
        return stood

    def advance(self, chains: int, work: float) -> None:
        """A block of ``chains`` is finished."""
        self.chains += chains
        self.blocks += 1
        self.work += work
        self._block_started = self._clock()

    @property
    def elapsed(self) -> float:
        """Seconds of simulation so far."""
        now = self._clock() if self._paused_at is None else self._paused_at
        return now - self._started

    @property
    def rate(self) -> float | None:
        """Chains per second, None before the first block."""
        elapsed = self.elapsed
        return self.chains / elapsed if self.chains and elapsed > 0.0 else None

    @property
    def seconds_left(self) -> float | None:
        """Expected seconds to the end; None when unknown."""
        per_work = self._seconds_per_work()
        return None if per_work is None else max(0.0, (self.total_work - self.work) * per_work)

    def block_seconds_left(self, work: float) -> float | None:
        """Expected seconds left of a block of this work, begun when the last one ended; None when unknown."""
        per_work = self._seconds_per_work()
        if self._paused_at is not None or per_work is None:
            return None
        return max(0.0, work * per_work - (self._clock() - self._block_started))

    def _seconds_per_work(self) -> float | None:
        if self.work > 0.0:
            return (self._block_started - self._started) / self.work
        return 1.0 if self._foretold else None

    def __str__(self) -> str:
        share = f"{self.chains:,} of {self.total_chains:,} chains"
        if self.total_chains:
            share += f" ({int(100 * self.chains / self.total_chains)} %)"
        rate, left = self.rate, self.seconds_left
        if rate is None or left is None:
            return share
        per_second = f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
        return f"{share}, {per_second} chains/s, {duration(left)} left"


class Progress:
    """Says nothing; the base of those that do. A context manager around a run."""

    def __init__(self) -> None:
        self.meter = Meter(0, 0.0)
        self._compiling = False

    def begin(self, chains: int, work: float, foretold: bool = True) -> None:
        """The run begins: this many chains in all, of this expected cost (see `Meter`)."""
        self.meter = Meter(chains, work, foretold=foretold)

    def preparing(self) -> None:
        """Kernels are being loaded or compiled: the clock of the rate stands still until `prepared`."""
        self.meter.pause()

    def compiling(self, takes: str = _HALF_A_MINUTE) -> None:
        """It turns out that they have to be compiled, and how long that takes."""
        self._compiling = True

    def prepared(self) -> None:
        """The kernels are ready."""
        stood = self.meter.resume()
        if self._compiling:
            self._compiling = False
            self._compiled(stood)

    def _compiled(self, seconds: float) -> None:
        """Compilation is over."""

    def advance(self, chains: int, work: float) -> None:
        """A block is finished."""
        self.meter.advance(chains, work)

    def say(self, text: str) -> None:
        """Something that whoever runs should know."""

    def end(self) -> None:
        """Nothing more will come."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()


class Notices(Progress):
    """Says what should be known, and nothing of how far the run is.

    Parameters
    ----------
    stream : text file
        Where it is said. A reader that has gone away, or a full disk, ends the notices, not the run.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream: TextIO | None = stream

    def say(self, text: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(f"{text}\n")
            self._stream.flush()
        except (OSError, ValueError):
            self._stream = None


class LineProgress(Notices):
    """A timestamped line every 30 s, for logs and pipes.

    Parameters
    ----------
    stream : text file
        Where the lines go. A reader that has gone away, or a full disk, ends the lines, not the run.
    interval : float
        Seconds between lines.
    clock : callable
        Monotonic time in seconds.
    """

    def __init__(
        self, stream: TextIO, interval: float = LINE_INTERVAL_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(stream)
        self._interval = interval
        self._clock = clock
        self._last_line = clock()

    def begin(self, chains: int, work: float, foretold: bool = True) -> None:
        self.meter = Meter(chains, work, self._clock, foretold)
        self._last_line = self._clock()

    def compiling(self, takes: str = _HALF_A_MINUTE) -> None:
        super().compiling()
        self.say(_compiling_line(takes))

    def _compiled(self, seconds: float) -> None:
        self.say(f"compiled in {duration(seconds)}")

    def advance(self, chains: int, work: float) -> None:
        super().advance(chains, work)
        if self._clock() - self._last_line >= self._interval:
            self.say(str(self.meter))

    def say(self, text: str) -> None:
        self._last_line = self._clock()
        super().say(f"{datetime.now():%Y-%m-%d %H:%M:%S}  {text}")


class BarProgress(Progress):
    """A bar on a terminal, drawn by rich on standard error."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: RichProgress | None = None
        self._task: Any = None

    def begin(self, chains: int, work: float, foretold: bool = True) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

        super().begin(chains, work, foretold)
        self._bar = Progress(
            SpinnerColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.description}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task(str(self.meter), total=work or 1.0)
        self._bar.start()

    def compiling(self, takes: str = _HALF_A_MINUTE) -> None:
        super().compiling()
        if self._bar is not None:
            self._bar.update(self._task, description=_compiling_line(takes))

    def _compiled(self, seconds: float) -> None:
        self.say(f"compiled in {duration(seconds)}")
        if self._bar is not None:
            self._bar.update(self._task, description=str(self.meter))

    def say(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def advance(self, chains: int, work: float) -> None:
        super().advance(chains, work)
        if self._bar is not None:
            self._bar.update(self._task, completed=self.meter.work, description=str(self.meter))

    def end(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _compiling_line(takes: str) -> str:
    return f"compiling kernels (once per version on this machine, {takes}) ..."
