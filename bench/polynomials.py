"""Minimax polynomials of the normal transform, by Remez's exchange: what the constants in `gradsim.kernels.rng` are.

    python -m bench.polynomials        # prints coefficients and errors

-2 ln(1 + f)/f makes the squared radius of Box and Muller, cos(pi y) and sin(pi y)/y, both in y^2, its direction; in
float64 the logarithm goes through -2 ln m = s P(s^2), s = (m - 1)/(m + 1).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import mpmath as mp  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray

Real = Callable[[mp.mpf], mp.mpf]

DIGITS = 40  # of the arithmetic: monomials of degree 7 cost about 8 of them
GRID = 4001  # points the error is looked at
EXCHANGES = 50
TOLERANCE = 1e-13  # of the coefficients, between exchanges


@dataclass(frozen=True)
class Problem:
    """Which function to approximate, where, and in what sense."""

    name: str
    function: Real
    weight: Real  # 1: absolute error; 1/|function|: relative
    first: float
    last: float
    degree: int


def _log(f: mp.mpf) -> mp.mpf:
    return -2 * mp.log1p(f) / f if f != 0 else mp.mpf(-2)


def _cos(z: mp.mpf) -> mp.mpf:
    return mp.cos(mp.pi * mp.sqrt(z))


def _sin(z: mp.mpf) -> mp.mpf:
    return mp.sin(mp.pi * mp.sqrt(z)) / mp.sqrt(z) if z > 0 else +mp.pi


def _log_by_atanh(z: mp.mpf) -> mp.mpf:
    return -4 * mp.atanh(mp.sqrt(z)) / mp.sqrt(z) if z > 0 else mp.mpf(-4)


# s of m = sqrt(2), the largest.
_S = (2**0.5 - 1) / (2**0.5 + 1)

PROBLEMS = (
    Problem("LOG", _log, lambda f: 1 / abs(_log(f)), 0.5**0.5 - 1, 2**0.5 - 1, 7),
    Problem("COS", _cos, lambda z: mp.mpf(1), 0.0, 0.25, 4),
    Problem("SIN", _sin, lambda z: 1 / _sin(z), 0.0, 0.25, 4),
    Problem("LOG64", _log_by_atanh, lambda z: 1 / abs(_log_by_atanh(z)), 0.0, _S**2, 7),
    Problem("COS64", _cos, lambda z: mp.mpf(1), 0.0, 0.25, 8),
    Problem("SIN64", _sin, lambda z: 1 / _sin(z), 0.0, 0.25, 8),
)


def _interpolate(problem: Problem, points: list[mp.mpf]) -> list[mp.mpf]:
    """Coefficients, lowest first, of the polynomial whose weighted error at `points` alternates with equal size."""
    n = problem.degree + 2
    matrix, values = mp.matrix(n, n), mp.matrix(n, 1)
    for row, x in enumerate(points):
        for power in range(n - 1):
            matrix[row, power] = x**power
        matrix[row, n - 1] = (-1) ** row / problem.weight(x)
        values[row] = problem.function(x)
    return list(mp.lu_solve(matrix, values))[:-1]


def _alternation(errors: NDArray[np.float64]) -> list[int]:
    """The largest error within each run of one sign."""
    ends = np.flatnonzero(np.diff(np.sign(errors))) + 1
    runs = np.split(np.arange(len(errors)), ends)
    return [int(run[np.argmax(np.abs(errors[run]))]) for run in runs]


def remez(problem: Problem) -> tuple[list[float], float]:
    """The minimax polynomial (Remez 1934), by exchange of all extrema at once.

    Parameters
    ----------
    problem : Problem

    Returns
    -------
    coefficients : list of float
        Lowest power first.
    error : float
        The largest weighted error.

    Raises
    ------
    ArithmeticError
        The error does not alternate often enough, or the exchange does not settle.
    """
    with mp.workdps(DIGITS):
        span = mp.mpf(problem.last) - mp.mpf(problem.first)
        grid = [mp.mpf(float(x)) for x in np.linspace(problem.first, problem.last, GRID)]
        exact, weight = [problem.function(x) for x in grid], [problem.weight(x) for x in grid]
        n = problem.degree + 2
        points = [problem.first + span * (1 - mp.cos(mp.pi * i / (n - 1))) / 2 for i in range(n)]
        before: list[mp.mpf] = []
        for _ in range(EXCHANGES):
            coefficients = _interpolate(problem, points)
            errors = np.array(
                [
                    float(w * (mp.polyval(coefficients[::-1], x) - f))
                    for x, f, w in zip(grid, exact, weight, strict=True)
                ]
            )
            chosen = _alternation(errors)
            if len(chosen) != n:
                raise ArithmeticError(f"{problem.name}: the error alternates {len(chosen)} times instead of {n}")
            points = [grid[i] for i in chosen]
            if before and max(abs(a - b) for a, b in zip(coefficients, before, strict=True)) < TOLERANCE:
                return [float(c) for c in coefficients], float(np.abs(errors).max())
            before = coefficients
    raise ArithmeticError(f"{problem.name}: the exchange did not settle")


def main() -> int:
    """Print every polynomial and its error."""
    for problem in PROBLEMS:
        coefficients, error = remez(problem)
        print(f"{problem.name}  error {error:.2g}")
        for power, coefficient in enumerate(coefficients):
            print(f"    x^{power}  {coefficient!r}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
