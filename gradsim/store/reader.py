"""Opening a result file: whose it is, whether it is whole, and reading from it without trusting it.

Only hard links are followed; arrays must have the types, shapes, filters and places that this format gives
them, so that nothing outside the file is read and no more memory is taken than the file can fill.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from h5py import h5d, h5z
from numpy.typing import NDArray

from gradsim.chain import Chain
from gradsim.errors import GradsimError, OutputExistsError, ResultFileError
from gradsim.experiment import Experiment
from gradsim.kernels.keys import STREAM_VERSION
from gradsim.quantities import Variable, axis_lengths
from gradsim.results import Cell, LazyArrays, Results
from gradsim.store.digest import check_size, open_bytes
from gradsim.store.hdf import read_attributes
from gradsim.store.parts import describe_difference
from gradsim.store.schema import (
    CELLS,
    FORMAT,
    FORMAT_VERSION,
    ROOT_ATTRIBUTES,
    SUMMARY,
    cell_name,
    cell_variables,
    stored_rows,
)

__all__ = ["ResultFile", "is_complete", "open_result", "reading"]

#: Deflate makes at most about 1032 bytes out of one.
_MOST_INFLATED: Final = 1100
_FILTERS: Final = frozenset({h5z.FILTER_SHUFFLE, h5z.FILTER_DEFLATE, h5z.FILTER_FLETCHER32})
#: What h5py and a damaged or foreign file may raise between them.
_MISREADINGS = (
    OSError,
    KeyError,
    ValueError,
    TypeError,
    RuntimeError,
    AttributeError,
    OverflowError,
    EOFError,
)


def open_result(path: str | os.PathLike[str]) -> Results:
    """Open a result file.

    Raises
    ------
    ResultFileError
        Where there is no such file, or it is not gradsim's, of a newer version, truncated, damaged or
        incomplete.
    """
    return Results(ResultFile(Path(path)))


def is_complete(path: str | os.PathLike[str], experiment: Experiment) -> bool:
    """Return whether a file is there that holds this experiment, complete; False where there is no file.

    Raises
    ------
    OutputExistsError
        Where the file holds another experiment; the message says how it differs.
    ResultFileError
        Where the file is no sound result.
    """
    if not os.path.lexists(path):
        return False
    there = ResultFile(Path(path))
    difference = describe_difference(there.experiment, experiment)
    if there.attributes["stream_version"] != STREAM_VERSION:
        difference = f"its random streams are of version {there.attributes['stream_version']}"
    if difference:
        text = f"{path} holds another experiment: {difference}"
        raise OutputExistsError(f"{text}: choose another name, or give overwrite=True to replace it")
    return True


@contextmanager
def reading(path: Path, what: str = "it") -> Iterator[None]:
    """Turn whatever a damaged or foreign file makes h5py raise into a `ResultFileError` of one line."""
    try:
        yield
    except ResultFileError:
        raise
    except (*_MISREADINGS, GradsimError, MemoryError, RecursionError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ResultFileError(f"{path}: {what} cannot be read, so it is damaged: {reason:.200}") from error


class ResultFile:
    """The content of a result file, for `Results`; see `gradsim.results.ResultSource`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held: h5py.File | None = None
        _check_before_opening(path)
        self._identity = _identity(path)
        with self.opened() as file, reading(path):
            self.attributes: Mapping[str, Any] = _check_root(path, file)
            self.experiment = Experiment.from_json(self.attributes["experiment"])
            self._check_cells(file)

    def hold(self) -> None:
        """Keep the file open between reads."""
        if self._held is None:
            self._held = self._open()

    def release(self) -> None:
        """Close the file."""
        if self._held is not None:
            self._held.close()
            self._held = None

    @contextmanager
    def opened(self) -> Iterator[h5py.File]:
        """Give the open file: the one held, or one opened for this once."""
        if self._held is not None:
            yield self._held
            return
        with self._open() as file:
            yield file

    def cell(self, index: int) -> Cell:
        """Return one cell; its arrays are read when they are used."""
        with self.opened() as file, reading(self.path, f"cell {index}"):
            attributes = read_attributes(_group(file, index))
            chain = Chain.from_fields(attributes)
        quantities = self.experiment.quantities_of(chain)
        names = [path.partition("/")[2] for path in cell_variables(quantities) if path.startswith(f"{SUMMARY}/")]
        return Cell(
            chain,
            LazyArrays(quantities, partial(self.read, index, chain, "")),
            chains=int(attributes["chains"]),
            chains_done=int(attributes["chains_done"]),
            dtype=self.experiment.dtype,
            record=self.experiment.record,
            summary=LazyArrays(
                [name for name in names if name != "quantile"], partial(self.read, index, chain, f"{SUMMARY}/")
            ),
            index=index,
        )

    def read(self, index: int, chain: Chain, folder: str, name: str) -> NDArray[Any]:
        """Return one array of a cell, `folder` being "" or that of its summary."""
        path = f"{folder}{name}"
        variable = cell_variables(self.experiment.quantities_of(chain))[path]
        with self.opened() as file, reading(self.path, f"{path} of cell {index}"):
            dataset = checked_dataset(_group(file, index), path)
            shape = expected_shape(variable, chain, stored_rows(self.experiment))
            if dataset.shape != shape or dataset.dtype != np.dtype(variable.dtype):
                raise ValueError(f"{dataset.dtype} {dataset.shape} where {variable.dtype} {shape} belongs")
            values: NDArray[Any] = dataset[()]
            return values

    def __getstate__(self) -> dict[str, Any]:
        # Wherever it is unpickled, it opens the file for itself.
        return self.__dict__ | {"path": self.path.absolute(), "_held": None}

    def _open(self) -> h5py.File:
        with reading(self.path):
            # What is published is never written again: no lock is needed, and some file systems have none.
            file = h5py.File(self.path, "r", locking=False)
        if _identity(self.path) != self._identity:
            file.close()
            raise ResultFileError(f"{self.path} was replaced since it was opened: open it again")
        return file

    def _check_cells(self, file: h5py.File) -> None:
        """Refuse a file with other cells than its experiment has."""
        cells = _hard(file, CELLS)
        wanted = len(self.experiment.cells)
        names = {cell_name(index) for index in range(wanted)}
        if not isinstance(cells, h5py.Group) or len(cells) != wanted or set(cells) != names:
            raise ValueError(f"it does not have the {wanted} cells of its experiment")


def expected_shape(variable: Variable, chain: Chain, rows: int) -> tuple[int, ...]:
    """Return the shape of a variable in a cell with this chain and number of stored chains."""
    length = axis_lengths(chain, rows)
    return tuple(length[axis] for axis in variable.axes)


def checked_dataset(group: h5py.Group, path: str) -> h5py.Dataset:
    """Return an array that lies in this file alone and is no larger than its bytes there can make it."""
    parent, _, name = path.rpartition("/")
    dataset = _hard(_hard(group, parent) if parent else group, name)
    if not isinstance(dataset, h5py.Dataset):
        raise TypeError(f"{path} is no dataset")
    creation = dataset.id.get_create_plist()
    if creation.get_layout() == h5d.VIRTUAL or creation.get_external_count():
        raise ValueError(f"{path} lies in another file")
    if not {creation.get_filter(at)[0] for at in range(creation.get_nfilters())} <= _FILTERS:
        raise ValueError(f"{path} has an unknown filter")
    if dataset.nbytes > _MOST_INFLATED * dataset.id.get_storage_size():
        raise ValueError(f"{path} is larger than its bytes in the file can make it")
    return dataset


def _group(file: h5py.File, index: int) -> h5py.Group:
    group = _hard(_hard(file, CELLS), cell_name(index))
    if not isinstance(group, h5py.Group):
        raise TypeError(f"cell {index} is no group")
    return group


def _hard(parent: h5py.Group, name: str) -> Any:
    """Return a member of a group, which must be there itself and not by a link elsewhere."""
    if not isinstance(parent.get(name, getlink=True), h5py.HardLink):
        raise KeyError(f"{name} is missing")
    return parent[name]


def _identity(path: Path) -> tuple[int, ...]:
    with reading(path):
        status = path.stat()
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _check_before_opening(path: Path) -> None:
    """Refuse what is no whole HDF5 file, before HDF5 sees it."""
    with open_bytes(path) as file:
        problem = check_size(file)
    if problem:
        raise ResultFileError(f"{path} {problem}")


def _check_root(path: Path, file: h5py.File) -> dict[str, Any]:
    """Return the root attributes of a complete file that this version reads."""
    try:
        ours = read_attributes(file, only=("format", "format_version"))
    except _MISREADINGS:
        ours = {}
    if ours.get("format") != FORMAT:
        raise ResultFileError(f"{path} is another program's HDF5 file, not a gradsim result")
    version = ours.get("format_version")
    if not isinstance(version, int) or version < 1:
        raise ResultFileError(f"{path} is damaged: its format_version is {version!r}")
    if version > FORMAT_VERSION:
        text = f"{path} has format version {version}, newer than the {FORMAT_VERSION} this gradsim reads"
        raise ResultFileError(f"{text}: upgrade gradsim")
    attributes = read_attributes(file)
    if attributes.get("complete") != 1:
        raise ResultFileError(f"{path} is incomplete: its run did not end")
    for name, kind in ROOT_ATTRIBUTES.items():
        if not isinstance(attributes.get(name), kind):
            raise ResultFileError(f"{path} is damaged: its attribute {name} is missing or no {kind.__name__}")
    return attributes
