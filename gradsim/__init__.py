"""Gradient growth in random deep networks, simulated exactly and held against theory.

The public names are resolved when they are first used, so that importing the package stays light: it imports
neither numba, h5py, scipy nor matplotlib.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradsim.chain import Chain
    from gradsim.comparison import Comparison, compare
    from gradsim.criticality import critical_gain
    from gradsim.errors import (
        DeviceError,
        ExperimentError,
        GradsimError,
        OutputExistsError,
        ResultFileError,
        StorageError,
    )
    from gradsim.experiment import Experiment
    from gradsim.results import Cell, Results
    from gradsim.runner import run, simulate
    from gradsim.store import open_result as open
    from gradsim.theory.registry import predict

__version__ = "0.1.0"

__all__ = [
    "Cell",
    "Chain",
    "Comparison",
    "DeviceError",
    "Experiment",
    "ExperimentError",
    "GradsimError",
    "OutputExistsError",
    "ResultFileError",
    "Results",
    "StorageError",
    "__version__",
    "compare",
    "critical_gain",
    "open",
    "predict",
    "run",
    "simulate",
]

# public name -> (module that holds it, its name there)
_HOMES = {
    "Cell": ("gradsim.results", "Cell"),
    "Chain": ("gradsim.chain", "Chain"),
    "Comparison": ("gradsim.comparison", "Comparison"),
    "DeviceError": ("gradsim.errors", "DeviceError"),
    "Experiment": ("gradsim.experiment", "Experiment"),
    "ExperimentError": ("gradsim.errors", "ExperimentError"),
    "GradsimError": ("gradsim.errors", "GradsimError"),
    "OutputExistsError": ("gradsim.errors", "OutputExistsError"),
    "ResultFileError": ("gradsim.errors", "ResultFileError"),
    "Results": ("gradsim.results", "Results"),
    "StorageError": ("gradsim.errors", "StorageError"),
    "compare": ("gradsim.comparison", "compare"),
    "critical_gain": ("gradsim.criticality", "critical_gain"),
    "open": ("gradsim.store", "open_result"),
    "predict": ("gradsim.theory.registry", "predict"),
    "run": ("gradsim.runner", "run"),
    "simulate": ("gradsim.runner", "simulate"),
}


def __getattr__(name: str) -> Any:
    try:
        module, attribute = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
