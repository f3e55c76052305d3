"""Results: a cell of chains in memory or in a file, and a file as a sequence of cells."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, overload

import numpy as np
from numpy.typing import NDArray

from gradsim.errors import GradsimError
from gradsim.quantities import (
    COORDINATES,
    QUANTILES,
    QUANTITIES,
    STATISTICS,
    Variable,
    coordinates,
    summary_variables,
    trajectory_variables,
)
from gradsim.summary import summarise

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from gradsim.chain import Chain
    from gradsim.experiment import Experiment

__all__ = ["Cell", "LazyArrays", "ResultSource", "Results"]

Array = NDArray[Any]


class LazyArrays(Mapping[str, Array]):
    """Arrays by name, each read when it is first asked for, then kept.

    Parameters
    ----------
    names : iterable of str
    read : callable
        Name -> array.
    """

    def __init__(self, names: Iterable[str], read: Callable[[str], Array]) -> None:
        self._read = read
        self._arrays: dict[str, Array | None] = dict.fromkeys(names)

    def __getitem__(self, name: str) -> Array:
        array = self._arrays[name]
        if array is None:
            array = self._read(name)
            array.flags.writeable = False
            self._arrays[name] = array
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for array in self._arrays.values():
            if array is not None:
                array.flags.writeable = False


class Cell:
    """Chains of one kind and what was recorded of them.

    ``cell["log_grad_norm"]`` and ``cell.log_grad_norm`` are the same float32 array, one row per stored chain.
    In a file's cell it is read when it is first used and kept with the cell; so it is in a pickled or copied
    cell, which finds the file by its path.

    Parameters
    ----------
    chain : Chain
    arrays : mapping of str to ndarray of float32
        Trajectories (stored chains, columns) by quantity.
    chains : int, optional
        Chains simulated; more than are stored where only a summary was recorded. By default those stored.
    chains_done : int, optional
        Those of them that are done; by default all.
    dtype : str
        Arithmetic of the chains: "float32" or "float64".
    record : str
        "trajectories" or "summary".
    summary : mapping of str to ndarray, optional
        As `gradsim.summary.SummaryBuilder.result` gives it; by default taken from the arrays.
    index : int, optional
        Position in a result file.
    """

    log_grad_norm: Array
    log_activation_norm: Array
    log_weight_grad_norm: Array
    log_grad_max: Array
    log_cell_grad_norm: Array
    lyapunov: Array

    def __init__(
        self,
        chain: Chain,
        arrays: Mapping[str, Array],
        *,
        chains: int | None = None,
        chains_done: int | None = None,
        dtype: str = "float32",
        record: str = "trajectories",
        summary: Mapping[str, Array] | None = None,
        index: int | None = None,
    ) -> None:
        self.chain = chain
        self.chains = len(next(iter(arrays.values()))) if chains is None else chains
        self.chains_done = self.chains if chains_done is None else chains_done
        self.dtype = dtype
        self.record = record
        self.quantities = tuple(arrays)
        self.index = index
        self._arrays = arrays
        self._given_summary = summary

    @classmethod
    def in_memory(
        cls,
        experiment: Experiment,
        arrays: Mapping[str, Array],
        summary: Mapping[str, Array] | None = None,
        index: int = 0,
    ) -> Cell:
        """Make a cell of an experiment from what was simulated of it."""
        return cls(
            experiment.cells[index],
            {name: np.asarray(arrays[name]) for name in experiment.quantities_of(experiment.cells[index])},
            chains=experiment.chains,
            dtype=experiment.dtype,
            record=experiment.record,
            summary=summary,
            index=index,
        )

    def __getitem__(self, quantity: str) -> Array:
        if quantity not in self.quantities:
            recorded = ", ".join(self.quantities)
            raise KeyError(f"{quantity} was not recorded in this cell; there is {recorded}")
        return self._arrays[quantity]

    def __contains__(self, quantity: object) -> bool:
        return quantity in self.quantities

    if not TYPE_CHECKING:  # to a type checker, the quantities declared above are the only such attributes

        def __getattr__(self, name):
            if name not in QUANTITIES:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            if name not in self.quantities:
                raise AttributeError(f"{name} was not recorded in this cell")
            return self[name]

    def __getstate__(self) -> dict[str, Any]:
        # A summary that was taken from the arrays is taken again.
        return {name: value for name, value in self.__dict__.items() if name != "summary"}

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.quantities})

    def __repr__(self) -> str:
        return f"Cell({self.chain!r}, chains={self.chains}, quantities={', '.join(self.quantities)})"

    @cached_property
    def summary(self) -> Mapping[str, Array]:
        """Statistics over all chains, by name: ``log_grad_norm_mean``, ``dead``, ...

        Arrays over the layers (or weights, or probes), quantiles with an axis of probabilities before it; see
        `gradsim.summary.SummaryBuilder.result`.
        """
        return MappingProxyType(summarise(self._arrays)) if self._given_summary is None else self._given_summary

    def to_xarray(self) -> xr.Dataset:
        """Return trajectories and summary as an `xarray.Dataset` with named dimensions and coordinates.

        Raises
        ------
        GradsimError
            Where xarray is not installed.
        """
        xarray = _need("xarray")
        rows = len(self[self.quantities[0]])
        described = trajectory_variables(self.quantities) + summary_variables(self.quantities)
        axes = {axis for variable in described for axis in variable.axes}
        values = coordinates(self.chain, rows)
        dataset: xr.Dataset = xarray.Dataset(
            {variable.name: _labelled(variable, self._values(variable.name)) for variable in described},
            {axis: _labelled(COORDINATES[axis], values[axis]) for axis in COORDINATES if axis in axes},
            self.attributes,
        )
        return dataset

    @property
    def attributes(self) -> dict[str, Any]:
        """The chain's resolved fields, ``chains`` and ``chains_done``, as a file's group has them."""
        fields = {name: math.nan if value is None else value for name, value in self.chain.fields().items()}
        return fields | {"chains": self.chains, "chains_done": self.chains_done}

    def to_dataframe(self) -> pd.DataFrame:
        """Return the summary as a table: one row per quantity and layer.

        Columns quantity, layer (the index of the weight matrix for log_weight_grad_norm, and of the exponent for
        lyapunov), the statistics count to max, the quantiles q0.001 to q0.999, and dead and nonfinite, which are
        those of log_grad_norm.

        Raises
        ------
        GradsimError
            Where pandas is not installed.
        """
        pandas = _need("pandas")
        along = coordinates(self.chain, 0)
        tables = []
        for name in self.quantities:
            columns: dict[str, Any] = {"quantity": name, "layer": along[QUANTITIES[name].axes[1]]}
            columns |= {statistic: self.summary[f"{name}_{statistic}"] for statistic in STATISTICS}
            levels = zip(QUANTILES, self.summary[f"{name}_quantiles"], strict=True)
            columns |= {f"q{probability:g}": values for probability, values in levels}
            if name == "log_grad_norm":
                columns |= {count: self.summary[count] for count in ("dead", "nonfinite")}
            tables.append(pandas.DataFrame(columns))
        frame = pandas.concat(tables, ignore_index=True)
        return frame.astype({"count": "int64", "dead": "Int64", "nonfinite": "Int64"})

    def _values(self, name: str) -> Array:
        return self[name] if name in self.quantities else self.summary[name]


class ResultSource(Protocol):
    """What `Results` reads from."""

    path: Path
    attributes: Mapping[str, Any]
    experiment: Experiment

    def cell(self, index: int) -> Cell:
        """Return one cell."""
        ...

    def hold(self) -> None:
        """Keep the file open between reads."""
        ...

    def release(self) -> None:
        """Close the file; later reads open it again for as long as they take."""
        ...


class Results(Sequence[Cell]):
    """A result file: a sequence of `Cell`, and a context manager that keeps the file open.

    Nothing is read before it is used. Outside a ``with`` block, and after one, each read opens the file for
    as long as it takes, so that results stay usable and nothing needs to be closed. Pickled or copied results
    find the file by its path.

    Attributes
    ----------
    path : Path
    attributes : mapping
        The file's root attributes.
    experiment : Experiment
    """

    def __init__(self, source: ResultSource) -> None:
        self._source = source
        self.path = source.path
        self.attributes: Mapping[str, Any] = MappingProxyType(dict(source.attributes))
        self.experiment = source.experiment

    def __reduce__(self) -> tuple[type[Self], tuple[ResultSource]]:
        return type(self), (self._source,)

    @property
    def provenance(self) -> dict[str, Any]:
        """Versions, processor, threads and time of the run."""
        provenance: dict[str, Any] = json.loads(self.attributes["provenance"])
        return provenance

    @overload
    def __getitem__(self, index: int) -> Cell: ...
    @overload
    def __getitem__(self, index: slice) -> list[Cell]: ...
    def __getitem__(self, index: int | slice) -> Cell | list[Cell]:
        if isinstance(index, slice):
            return [self._source.cell(at) for at in range(*index.indices(len(self)))]
        at = index + len(self) if index < 0 else index
        if not 0 <= at < len(self):
            raise IndexError(f"cell {index} of {len(self)} cells")
        return self._source.cell(at)

    def __len__(self) -> int:
        return len(self.experiment.cells)

    def __enter__(self) -> Self:
        self._source.hold()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Reading stays possible and opens it again."""
        self._source.release()

    def __repr__(self) -> str:
        return f"Results({str(self.path)!r}, cells={len(self)}, chains={self.experiment.chains})"

    def to_xarray(self) -> xr.DataTree:
        """Return everything as an `xarray.DataTree`, one node ``/cells/NNNN`` per cell, read into memory.

        `xarray.open_datatree` opens the file itself lazily, with the summary in a node of its own.

        Raises
        ------
        GradsimError
            Where xarray is not installed, or older than 2024.10.
        """
        xarray = _need("xarray")
        if not hasattr(xarray, "DataTree"):
            raise GradsimError("a tree of cells needs xarray 2024.10 or newer: pip install -U xarray")
        nodes = {"/": xarray.Dataset(attrs=dict(self.attributes))}
        nodes |= {f"/cells/{index:04d}": cell.to_xarray() for index, cell in enumerate(self)}
        tree: xr.DataTree = xarray.DataTree.from_dict(nodes)
        return tree

    def to_dataframe(self) -> pd.DataFrame:
        """Return the summaries as one tidy table: a row per cell, quantity and layer.

        Columns: cell, the chain's fields that are one number or name, chains, then those of
        `Cell.to_dataframe`.

        Raises
        ------
        GradsimError
            Where pandas is not installed.
        """
        pandas = _need("pandas")
        frames = []
        for index, cell in enumerate(self):
            fields = {name: value for name, value in cell.attributes.items() if not isinstance(value, list)}
            described = {"cell": index} | fields
            del described["chains_done"]
            frame = cell.to_dataframe()
            columns = {name: pandas.Series([value] * len(frame)) for name, value in described.items()}
            whole = [name for name, value in described.items() if isinstance(value, int)]
            # Nullable integers: a field that one kind of chain lacks leaves the others' whole.
            head = pandas.DataFrame(columns).astype(dict.fromkeys(whole, "Int64"))
            frames.append(pandas.concat([head, frame], axis=1))
        return _stacked(pandas, frames)


def _stacked(pandas: Any, frames: list[pd.DataFrame]) -> pd.DataFrame:
    """Stack tables whose chain fields may differ, keeping the fields before the statistics."""
    columns = dict.fromkeys(name for frame in frames for name in frame.columns)
    last = list(frames[0].columns[list(frames[0].columns).index("chains") :])
    first = [name for name in columns if name not in last]
    frame: pd.DataFrame = pandas.concat(frames, ignore_index=True)[first + last]
    return frame


def _labelled(variable: Variable, values: Array) -> tuple[tuple[str, ...], Array, dict[str, str]]:
    return variable.axes, values, variable.attributes


def _need(package: str) -> Any:
    """Import a package that only conversions need."""
    from importlib import import_module

    try:
        return import_module(package)
    except ImportError:
        text = f"this conversion needs {package}, which is not installed: pip install {package}"
        raise GradsimError(f"{text} (the extra gradsim[test] has it)") from None
