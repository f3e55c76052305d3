"""Timing work against work on a machine whose speed wanders: in turns, so that what slows one slows the other."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Timing", "Work", "in_turns", "sized"]

#: Times the size of a call is corrected before it is taken as it is.
_CORRECTIONS = 6


@dataclass(frozen=True)
class Work:
    """Something to be timed.

    Attributes
    ----------
    run : callable
        Does the work once, each time on fresh draws; what it returns is kept.
    weights : int
        Weights one call works through, the unit of the nanoseconds reported.
    """

    run: Callable[[], Any]
    weights: int


@dataclass
class Timing:
    """Repetitions of one piece of work.

    Attributes
    ----------
    ns : list of float
        Nanoseconds per weight of each repetition.
    own_ns : list of float
        Nanoseconds per weight of our work, done right after each repetition.
    results : list
        What each repetition returned.
    """

    ns: list[float] = field(default_factory=list)
    own_ns: list[float] = field(default_factory=list)
    results: list[Any] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Median of the repetitions, nanoseconds per weight."""
        return statistics.median(self.ns)

    @property
    def minimum(self) -> float:
        """Fastest repetition, nanoseconds per weight."""
        return min(self.ns)

    @property
    def ratio(self) -> float:
        """Median over the repetitions of this work's time over ours next to it."""
        return statistics.median(other / own for other, own in zip(self.ns, self.own_ns, strict=True))

    def extend(self, more: Timing) -> None:
        """Add the repetitions of another timing of the same work."""
        self.ns += more.ns
        self.own_ns += more.own_ns
        self.results += more.results


def in_turns(ours: Work, others: Mapping[str, Work], repetitions: int) -> tuple[Timing, dict[str, Timing]]:
    """Time our work beside others: each repetition goes through all of them, ours follows each.

    Everything is run once before, untimed. The order of the others moves on by one in each repetition.

    Parameters
    ----------
    ours : Work
    others : mapping of str to Work
    repetitions : int

    Returns
    -------
    Timing
        Of our work.
    dict of str to Timing
        Of the others.
    """
    own = Timing()
    timings = {name: Timing() for name in others}
    for work in (ours, *others.values()):
        work.run()
    names = list(others)
    for repetition in range(repetitions):
        start = repetition % max(len(names), 1)
        for name in [*names[start:], *names[:start]]:
            timing = timings[name]
            result, ns = _timed(others[name])
            timing.results.append(result)
            timing.ns.append(ns)
            result, ns = _timed(ours)
            timing.own_ns.append(ns)
            own.ns.append(ns)
            own.results.append(result)
    return own, timings


def _timed(work: Work) -> tuple[Any, float]:
    """Result and nanoseconds per weight of one call."""
    begun = time.perf_counter()
    result = work.run()
    return result, (time.perf_counter() - begun) * 1e9 / work.weights


def sized(make: Callable[[int], Work], seconds: float) -> Work:
    """Work of a size that one call takes about `seconds`.

    Parameters
    ----------
    make : callable
        Makes work of a number of units, at least one.
    seconds : float
    """
    units = 1
    work = make(units)
    work.run()
    for _ in range(_CORRECTIONS):
        begun = time.perf_counter()
        work.run()
        took = time.perf_counter() - begun
        if took > 0.7 * seconds:
            break
        units = max(units + 1, min(math.ceil(units * seconds / max(took, 1e-9)), units * 100))
        work = make(units)
    return work
