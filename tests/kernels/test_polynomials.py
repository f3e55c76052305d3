"""The constants of the normal transform are the minimax polynomials they are said to be."""

from __future__ import annotations

import numpy as np
import pytest

from bench import polynomials
from gradsim.kernels import rng

# What `rng` says of each.
ERRORS = {"LOG": 1.7e-7, "COS": 4.7e-8, "SIN": 5.4e-9, "LOG64": 1.2e-18, "COS64": 4e-18, "SIN64": 3e-19}
# Agreement of the coefficients; the last of LOG64 matter little and are determined no better.
TOLERANCE = 1e-8


@pytest.fixture(scope="module", params=polynomials.PROBLEMS, ids=lambda problem: problem.name)
def fitted(request):
    """A problem, its coefficients and its error."""
    return request.param, *polynomials.remez(request.param)


def test_constants_are_the_fitted_ones(fitted):
    problem, coefficients, _ = fitted
    constants = getattr(rng, problem.name)
    if isinstance(constants[0], np.float32):
        assert constants == tuple(np.float32(c) for c in coefficients)
    else:
        np.testing.assert_allclose(constants, coefficients, rtol=0, atol=TOLERANCE)


def test_errors_are_as_stated(fitted):
    problem, _, error = fitted
    assert 0.8 * ERRORS[problem.name] < error <= ERRORS[problem.name]


def test_a_wrong_constant_is_seen():
    problem = polynomials.PROBLEMS[2]
    coefficients, _ = polynomials.remez(problem)
    taylor = (np.pi, -(np.pi**3) / 6)
    assert any(np.float32(a) != np.float32(b) for a, b in zip(taylor, coefficients, strict=False))
