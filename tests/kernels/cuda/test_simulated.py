"""The CUDA kernels in numba's simulator, on tiny chains: what the CPU gives, and what the oracles do.

No GPU is needed. Results are taken in float64 before they are rounded to what a file holds. Of the covering set of
chains those that meet every pair of values with a kind, a batch or a norm, each in one of the ways (engine, dtype,
order of threads) in turn; all chains in all ways: `-m battery`.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.kernels import autograd_cases
from tests.kernels.cuda import broken, cases
from tests.kernels.cuda.agreement import bound, wrong
from tests.kernels.cuda.cases import case
from tests.kernels.cuda.conftest import SimulationError

KNOWN = set(cases.COVERING)


def numbers(found):
    """The quantities among what a case gave."""
    return {name: values for name, values in found.items() if name != "launches"}


def assert_same_bits(found, expected):
    for name, values in numbers(expected).items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


@pytest.mark.parametrize("case", cases.SELECTED, ids=str)
def test_widths_directions_and_extremes(simulated, case):
    assert not wrong(numbers(simulated(case)), case)


@pytest.mark.parametrize("case", cases.COVERING, ids=str)
def test_whatever_the_fields(simulated, case):
    assert not wrong(numbers(simulated(case)), case)


@pytest.mark.battery
@pytest.mark.parametrize(
    "case",
    [one for row in autograd_cases.fixtures() for one in cases.in_every_way(row) if one not in KNOWN],
    ids=str,
)
def test_whatever_the_fields_in_every_way(simulated, case):
    assert not wrong(numbers(simulated(case)), case)


@pytest.mark.parametrize(
    "cases", [(one, one.with_(order="backward")) for one in cases.REPRESENTATIVE], ids=lambda cases: str(cases[0])
)
def test_the_order_of_threads_changes_no_bit(simulated, cases):
    """What one thread writes and another reads lies on the two sides of a barrier (see `turns`)."""
    forward, backward = (simulated(one) for one in cases)
    assert not wrong(numbers(forward), cases[0])
    assert_same_bits(backward, forward)


@pytest.mark.parametrize(
    "cases",
    [(one, one.with_(budget=30, slots=1), one.with_(first=1, count=1)) for one in cases.REPRESENTATIVE],
    ids=lambda cases: str(cases[0]),
)
def test_how_the_work_is_cut_changes_no_bit(simulated, cases):
    """Launches of a few weights, chains in flight, and which chains are in a run."""
    whole, pieces, alone = (simulated(one) for one in cases)
    assert pieces["launches"] >= max(2 * cases[0].count, 1 + whole["launches"])
    assert_same_bits(pieces, whole)
    assert_same_bits(alone, {name: values[1:] for name, values in numbers(whole).items()})


# Of products of several columns the threads are a square of matrix entries.
SINGLE = [one for one in cases.REPRESENTATIVE if one.chain.columns == 1 == one.chain.gates]
SQUARE = [one for one in cases.REPRESENTATIVE if one not in SINGLE and one.method == "dense"]
RESIZED = [(one, *(one.with_(threads=threads) for threads in (1, 2, 32))) for one in SINGLE[::2]] + [
    (one, one.with_(edge=8, order="backward")) for one in SQUARE[::2]
]


@pytest.mark.parametrize("cases", RESIZED, ids=lambda cases: str(cases[0]))
def test_threads_of_a_block_change_the_rounding_alone(simulated, cases):
    whole = numbers(simulated(cases[0]))
    for one in cases[1:]:
        for name, values in numbers(simulated(one)).items():
            assert (np.abs(values - whole[name]) <= bound(one, whole[name])).all(), name


PLAIN = case({"order": "backward"}, width=5, depth=3, bias=0.2, activation="tanh")
WIDE = case({}, width=70, depth=1, activation="linear")
BATCH = case({}, width=5, depth=2, batch=4, activation="tanh", bias=0.2)
# More threads than join sums in their first step, and more entries than those.
MANY = case({"threads": 32}, width=20, depth=1, activation="tanh", bias=0.2)
TIED_BATCH = case({}, kind="recurrent", width=5, depth=2, batch=3, activation="tanh")
SEEN_IN = {
    "sum read early": MANY,
    "sum joined early": MANY,
    "meeting of some threads": MANY,
    "slices added early": PLAIN.with_(threads=32),
    "kept square overwritten early": TIED_BATCH,
    "square overwritten early": case({}, width=9, depth=2, batch=4, activation="tanh"),
    "next counter": WIDE,
    "one row of lanes": WIDE,
    "d and h swapped": BATCH,
}


@pytest.mark.parametrize(
    "cases",
    [
        tuple(SEEN_IN.get(name, PLAIN).with_(broken=name, order=order) for order in ("forward", "backward"))
        for name in broken.MISTAKES
    ],
    ids=lambda cases: cases[0].broken,
)
def test_a_mistake_is_seen(simulated, cases):
    """Control: a barrier left out, a draw from another counter, and so on, fails in one of two orders of threads."""
    assert any(is_seen(simulated, one) for one in cases)


def is_seen(simulated, one):
    """Whether a broken kernel fails the comparison."""
    try:
        return bool(wrong(numbers(simulated(one)), one))
    except SimulationError as error:
        assert ("MeetingError" in str(error)) == (one.broken == "meeting of some threads"), error
        return True


@pytest.mark.parametrize("case", list(dict.fromkeys([PLAIN, *SEEN_IN.values()])), ids=str)
def test_the_same_chains_without_a_mistake(simulated, case):
    """Control of the controls."""
    assert not wrong(numbers(simulated(case)), case)
