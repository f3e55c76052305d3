"""Chains through the simulator and kernels through the compiler, in processes that work while other tests run."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest

from tests.kernels.cuda.background import PROCESSES, Background
from tests.kernels.cuda.cases import Case
from tests.kernels.cuda.ptx import IN_CI
from tests.kernels.cuda.race_chains import EVERYTHING

HERE = Path(__file__).parent


def needed(items):
    """The cases that tests are given, by `case` or by `cases`, each once."""
    found = {}
    for item in items:
        if "simulated" in getattr(item, "fixturenames", ()):
            for value in item.callspec.params.values():
                for case in value if isinstance(value, tuple) else (value,):
                    if isinstance(case, Case):
                        found.setdefault(case, len(found))
    return found


def pytest_collection_modifyitems(items):
    """Tests that wait for a process come last."""
    items.sort(key=lambda item: HERE in item.path.parents)


class Work:
    """What the chosen tests wait for, and the folder in which it is left."""

    def __init__(self, items):
        self.cases = needed(items)
        self.background = Background()
        self._folder = tempfile.TemporaryDirectory()
        self.folder = Path(self._folder.name)
        wanted = {name for item in items for name in getattr(item, "fixturenames", ())}
        if "modules" in wanted:
            for dtype, kernels in IN_CI.items():
                self.background.start(dtype, "ptx", self.folder, *kernels, simulator=False)
        for number in range(PROCESSES if self.cases else 0):
            share = list(self.cases.items())[number::PROCESSES]
            given = self.folder / f"cases-{number}.json"
            given.write_text(json.dumps([(at, dataclasses.asdict(case) | {"chain": case.given}) for case, at in share]))
            self.background.start(f"cases-{number}", "simulate_cases", given, self.folder / f"results-{number}.npz")
        if "races" in wanted:
            given = self.folder / "races.json"
            given.write_text(json.dumps(EVERYTHING))
            self.background.start("races", "race_cases", given)
        if "drawn" in wanted:
            self.background.start("words", "words")

    def close(self):
        """End what is not done, and leave nothing."""
        self.background.close()
        self._folder.cleanup()


WORK = pytest.StashKey[Work]()


def pytest_collection_finish(session):
    """Start the processes."""
    if not session.config.option.collectonly:
        session.config.stash[WORK] = Work(session.items)


def pytest_sessionfinish(session):
    """No process outlives the tests."""
    if WORK in session.config.stash:
        session.config.stash[WORK].close()


@pytest.fixture(scope="session")
def work(request):
    """What was started."""
    return request.config.stash[WORK]


@pytest.fixture(scope="session")
def simulated(work):
    """A function from a case to its quantities, float64; what went wrong in the simulator is raised there."""
    found = {}
    for number in range(PROCESSES):
        work.background.output(f"cases-{number}")
        with np.load(work.folder / f"results-{number}.npz") as results:
            found |= dict(results)

    def of(case):
        prefix = f"{work.cases[case]}/"
        own = {name.removeprefix(prefix): values for name, values in found.items() if name.startswith(prefix)}
        if "error" in own:
            raise SimulationError(str(own["error"]))
        return own

    return of


class SimulationError(Exception):
    """What was raised in the simulator."""
