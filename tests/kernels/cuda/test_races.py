"""No two threads of a block touch the same entry without a barrier between, unless nothing changes by it.

What a run on a GPU would show now and then, the simulator shows always: see `watched`. Controls leave a barrier out.
"""

import json

import pytest

from tests.kernels.cuda.race_chains import CASES, CONTROLS


def named(case):
    """A case in a few words."""
    return "-".join(f"{value}" for value in case.values()).replace(" ", "")


@pytest.fixture(scope="session")
def races(work):
    """The races of every case."""
    return json.loads(work.background.output("races"))


@pytest.mark.parametrize("index", range(len(CASES)), ids=[named(case) for case in CASES])
def test_no_thread_waits_in_vain(races, index):
    assert races[index] == []


@pytest.mark.parametrize("index", range(len(CONTROLS)), ids=[named(case) for case in CONTROLS])
def test_a_missing_barrier_is_found(races, index):
    assert races[len(CASES) + index] != []
