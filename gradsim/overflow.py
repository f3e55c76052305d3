"""At which layer a gradient, its true value stored in a number format unscaled, would leave that format.

gradsim accumulates in log scale and never overflows; what would have is read off ``log_grad_max``, the logarithm
of the largest entry of g_l, going backward from the output. The formats are IEEE 754's and bfloat16, and a value is
rounded to the nearest number, of two as near to the one whose last bit is 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
from scipy import special as sp

from gradsim.chain import Chain
from gradsim.theory.law import Law

__all__ = ["EVENTS", "FORMATS", "Crossing", "Format", "crossings"]

_QUANTITY = "log_grad_max"
_CHAINS_AT_ONCE = 1024
_EARLY, _LATE = 0.05, 0.95
#: A rate below it is a rate of zero, computed.
ROUNDING = 1e-9

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Format:
    """A binary floating-point format.

    Attributes
    ----------
    name : str
    largest, smallest_normal, smallest : float
        Largest finite number, smallest positive one of full precision, and smallest positive one (subnormal).
    """

    name: str
    largest: float
    smallest_normal: float
    smallest: float

    @property
    def log_bounds(self) -> tuple[float, float, float]:
        """Logarithms of the values at which each of `EVENTS` begins, half a spacing from those numbers.

        The next number above the largest would be the power of 2 above it, and a value half way to it becomes inf; one
        half way from the smallest number to 0 becomes 0; one half way from the smallest normal number to the next
        below becomes that normal number still.
        """
        # Scaled down to 1: half a spacing above the largest float64 lies none.
        share, exponent = math.frexp(self.largest)
        overflow = math.log((share + 1.0) / 2.0) + exponent * math.log(2.0)
        subnormal = math.log(self.smallest_normal) + math.log1p(-self.smallest / self.smallest_normal / 2.0)
        return overflow, subnormal, math.log(self.smallest) - math.log(2.0)


FORMATS: Final = (
    Format("float16", 65504.0, 2.0**-14, 2.0**-24),
    Format("bfloat16", (2.0 - 2.0**-7) * 2.0**127, 2.0**-126, 2.0**-133),
    Format("float32", (2.0 - 2.0**-23) * 2.0**127, 2.0**-126, 2.0**-149),
    Format("float64", (2.0 - 2.0**-52) * 2.0**1023, 2.0**-1022, 2.0**-1074),
)

#: What can happen when the vector is stored: its largest entry becomes infinite; it loses full precision; it, and so
#: every entry, becomes zero.
EVENTS: Final = ("overflow", "subnormal", "underflow")


@dataclass(frozen=True)
class Crossing:
    """When the chains of a cell leave one format in one way.

    Attributes
    ----------
    format, event : str
    chains : int
        Stored chains that were looked at.
    crossed, never, dead, unknown : int
        Those that leave it; that do not within the chain; whose gradient becomes exactly zero first, as the law has
        it; that left the arithmetic of the simulation first.
    early, median, late : int or None
        Layer by which 5, 50 and 95 per cent of the chains (unknown ones left out) have left it, going backward;
        None where fewer do.
    theory_depth : int or None
        Layers going backward after which the law's mean of ln max|g_i| leaves it, beyond the chain's depth at the
        law's rate; None without a law, or where it never does.
    theory_layer : int or None
        The layer where that is, None beyond the chain.
    """

    format: str
    event: str
    chains: int
    crossed: int
    never: int
    dead: int
    unknown: int
    early: int | None
    median: int | None
    late: int | None
    theory_depth: int | None
    theory_layer: int | None


class Cell(Protocol):
    """What overflow layers need of a result cell."""

    @property
    def chain(self) -> Chain: ...
    @property
    def quantities(self) -> Iterable[str]: ...
    def __getitem__(self, quantity: str, /) -> Any: ...


def crossings(cell: Cell, law: Law | None) -> tuple[Crossing, ...]:
    """Every format and event of a cell, in the order of `FORMATS` and `EVENTS`; none without ``log_grad_max``.

    Parameters
    ----------
    cell : Cell
        Its stored trajectories are looked at: in summary mode the first ``keep`` chains.
    law : Law or None
        Of ln||g||.
    """
    if _QUANTITY not in cell.quantities:
        return ()
    depth = cell.chain.depth
    steps = [_first_steps(cell[_QUANTITY], depth, event, threshold) for _, event, threshold in _thresholds()]
    expected = None if law is None else _expected_log_max(law, cell.chain)
    return tuple(
        _crossing(form, event, depth, found, _theory(law, expected, event, threshold))
        for (form, event, threshold), found in zip(_thresholds(), steps, strict=True)
    )


@dataclass(frozen=True)
class _Steps:
    """Layers going backward until a chain crosses, of those that do, and the counts of the others."""

    crossed: npt.NDArray[np.int64]
    never: int
    dead: int
    unknown: int


def _thresholds() -> list[tuple[str, str, float]]:
    """Format, event, and the logarithm of the value that is passed."""
    return [(form.name, event, bound) for form in FORMATS for event, bound in zip(EVENTS, form.log_bounds, strict=True)]


def _passed(values: npt.NDArray[np.floating], event: str, threshold: float) -> Bools:
    """Where the largest entry is beyond the threshold, or at it where that rounds away; exact zeros and lost values
    are not.
    """
    # In the float32 of the recorded values: a power of 2 that lies on a threshold is then seen to.
    logs, bound = np.asarray(values, dtype=np.float32), np.float32(threshold)
    beyond = {"overflow": logs >= bound, "subnormal": logs < bound, "underflow": logs <= bound}[event]
    return np.asarray(beyond & np.isfinite(logs))


def _first_steps(trajectories: Any, depth: int, event: str, threshold: float) -> _Steps:
    """Look at every stored chain, some at a time."""
    crossed: list[npt.NDArray[np.int64]] = []
    never = dead = unknown = 0
    for first in range(0, trajectories.shape[0], _CHAINS_AT_ONCE):
        logs = np.asarray(trajectories[first : first + _CHAINS_AT_ONCE])[:, ::-1]
        step_passed, passed = _first(_passed(logs, event, threshold))
        step_lost, lost = _first(np.isnan(logs))
        # What happens after a chain has left the arithmetic of the simulation says nothing.
        hidden = lost & (~passed | (step_lost < step_passed))
        counted = passed & ~hidden
        zero = np.isneginf(logs).any(axis=1) & ~counted & ~hidden
        crossed.append(step_passed[counted])
        dead += int(zero.sum())
        unknown += int(hidden.sum())
        never += int((~counted & ~hidden & ~zero).sum())
    return _Steps(np.sort(np.concatenate([*crossed, np.empty(0, np.int64)])), never, dead, unknown)


def _first(where: Bools) -> tuple[npt.NDArray[np.int64], Bools]:
    """Index of the first True of each row, and whether there is one."""
    return where.argmax(axis=1), np.asarray(where.any(axis=1))


def _crossing(form: str, event: str, depth: int, steps: _Steps, theory_depth: int | None) -> Crossing:
    known = steps.crossed.size + steps.never + steps.dead
    early, median, late = (_layer(steps.crossed, known, share, depth) for share in (_EARLY, 0.5, _LATE))
    return Crossing(
        form,
        event,
        chains=known + steps.unknown,
        crossed=int(steps.crossed.size),
        never=steps.never,
        dead=steps.dead,
        unknown=steps.unknown,
        early=early,
        median=median,
        late=late,
        theory_depth=theory_depth,
        theory_layer=None if theory_depth is None or theory_depth > depth else depth - theory_depth,
    )


def _layer(steps: npt.NDArray[np.int64], known: int, share: float, depth: int) -> int | None:
    """Layer at which a share of the chains has crossed; chains that never do come last."""
    rank = math.ceil(share * known)
    return depth - int(steps[rank - 1]) if 0 < rank <= steps.size else None


def _theory(law: Law | None, expected: npt.NDArray[np.float64] | None, event: str, threshold: float) -> int | None:
    """Layers going backward after which the mean of ln max|g_i| passes a threshold."""
    if law is None or expected is None or not np.isfinite(expected).all():
        return None
    backward = expected[::-1]
    passed = _passed(backward, event, threshold)
    if passed.any():
        return int(passed.argmax())
    rate = law.rate if event == "overflow" else -law.rate
    if not rate > ROUNDING:
        return None
    layers = abs(threshold - float(backward[-1])) / rate
    # A distance that is a whole number of layers but for rounding ends at the threshold.
    slack = ROUNDING * max(1.0, layers)
    further = math.floor(layers + slack) + 1 if event == "subnormal" else math.ceil(layers - slack)
    return len(backward) - 1 + max(further, 1)


def _expected_log_max(law: Law, chain: Chain) -> npt.NDArray[np.float64]:
    """Mean of ln max_i |g_l,i| at each layer, shape (L+1,): that of ln||g_l||, and of a direction's largest entry.

    Exact where g_l points uniformly and independently of its length, as with Gaussian or orthogonal weights and at
    the output; an approximation otherwise.
    """
    return np.asarray(law.mean + [log_largest_entry(chain.batch * width) for width in chain.widths])


@lru_cache(maxsize=4096)
def log_largest_entry(n: int) -> float:
    """E ln max_i |u_i| for u uniform on the unit sphere in n dimensions.

    With Z standard normal in n dimensions, ||Z|| is independent of its direction, so that this is E ln max|Z_i| less
    E ln||Z|| = (psi(n/2) + ln 2)/2; the former is an integral over the quantiles of max|Z_i|, whose distribution
    function is (2 Phi(x) - 1)^n.
    """

    def log_quantile(p: float) -> float:
        return math.log(-float(sp.ndtri(-math.expm1(math.log(p) / n) / 2.0)))

    from scipy import integrate  # here: few runs need it, and it loads slowly

    largest = float(integrate.quad(log_quantile, 0.0, 1.0, limit=200)[0])
    return largest - (float(sp.digamma(n / 2.0)) + math.log(2.0)) / 2.0
