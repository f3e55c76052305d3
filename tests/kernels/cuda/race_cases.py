"""Runs chains under the simulator with every entry watched: python -m tests.kernels.cuda.race_cases CASES.json.

Prints a JSON list, for each case the races found. A case is a chain's fields with `method`, `dtype` and `broken`: which
barrier is left out, for controls.
"""

import json
import sys
import warnings
from types import SimpleNamespace

from gradsim import Chain
from gradsim.experiment import Experiment
from gradsim.kernels.cuda import engine, target
from tests.kernels.cuda import turns, watched
from tests.kernels.cuda.kept import forget_kernels

KEPT = 8  # races that are told of a case
_function = target.Translation._function


class WatchedCuda(turns.Cuda):
    """The `cuda` that kernels see, with barriers counted and shared memory watched."""

    def syncthreads(self):
        super().syncthreads()
        watched.passed()

    def launch(self):
        super().launch()
        own = self.shared
        self.shared = SimpleNamespace(array=lambda shape, dtype: watched.watch(own.array(shape, dtype), "shared"))


class WatchedPile(engine._Pile):
    """The memory of chains, watched; what each thread has for itself is not."""

    def __init__(self, *given):
        super().__init__(*given)
        self.arrays = type(self.arrays)(
            **{name: self._watched(name, array) for name, array in self.arrays._asdict().items()}
        )

    @staticmethod
    def _watched(name, array):
        if name in ("spec", "progress"):
            return array
        return watched.Records(array, name) if array.dtype.names else watched.watch(array, name)


def without_barriers(names):
    """Translate functions of these names without barriers of their own."""

    def function(self, original, apart):
        if original.__name__ not in names:
            return _function(self, original, apart)
        made = self.plain(original)
        made.__globals__["meet"] = lambda: None
        return made

    return function


def races_of(case):
    """What is raced for in one chain of a case."""
    fields = dict(case)
    method, dtype, broken = (fields.pop(name, other) for name, other in _DEFAULTS.items())
    target.Translation._function = without_barriers(broken) if broken else _function
    forget_kernels()
    watched.begin()
    experiment = Experiment(chain=Chain(**fields), chains=1, method=method, dtype=dtype)
    chain = experiment.cells[0]
    engine.Engine(chain, 0, dtype, experiment.quantities_of(chain), method=method).run(0, 1)
    return sorted(set(watched.races))[:KEPT]


_DEFAULTS = {"method": "dense", "dtype": "float64", "broken": []}


def main():
    """Run the cases of a file."""
    warnings.simplefilter("ignore", RuntimeWarning)  # words wrap around
    turns.CUDA = WatchedCuda()
    turns.take("forward")
    engine._Pile = WatchedPile
    with open(sys.argv[1]) as file:
        cases = json.load(file)
    json.dump([races_of(case) for case in cases], sys.stdout)


if __name__ == "__main__":
    main()
