"""`verify_file`: whether a result file is the one that was written, whole and in order."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
from h5py import h5ds

from gradsim.chain import Chain
from gradsim.quantities import COORDINATES, Variable, trajectory_variables
from gradsim.store.digest import (
    RowDigest,
    cell_digest,
    check_file_bytes,
    content_digest,
    object_line,
)
from gradsim.store.hdf import read_attributes
from gradsim.store.reader import ResultFile, checked_dataset, expected_shape, reading
from gradsim.store.schema import (
    CELLS,
    ROOT_ATTRIBUTES,
    SUMMARY,
    cell_attributes,
    cell_name,
    cell_variables,
    chunk_shape,
    root_attributes,
    stored_rows,
)

__all__ = ["verify_file"]

_READ_ROWS = 64 * 64


def verify_file(path: str | os.PathLike[str]) -> list[str]:
    """Check a result file: its bytes, then its completeness, its schema and its content.

    The bytes are checked against ``file_sha256`` before HDF5 opens the file.

    Returns
    -------
    list of str
        What is not as this format has it, one line each; empty for a sound file.

    Raises
    ------
    ResultFileError
        Where the bytes are not those written, or the file is not gradsim's, of a newer version or incomplete.
    """
    path = Path(path)
    check_file_bytes(path)
    source = ResultFile(path)
    with source.opened() as file, reading(path):
        problems = [*_root_problems(source, file), *_cells_problems(source, file)]
        if not problems and source.attributes["content_sha256"] != _content(source, file):
            problems.append("content_sha256 does not match the content")
    return problems


def _root_problems(source: ResultFile, file: h5py.File) -> Iterator[str]:
    """Compare the root attributes with each other."""
    experiment, found = source.experiment, source.attributes
    expected = root_attributes(experiment, {})
    for name in sorted(set(found) - set(ROOT_ATTRIBUTES)):
        yield f"root attribute {name} is unknown"
    for name, value in expected.items():
        if found[name] != value:
            yield f"root attribute {name} does not belong to the experiment"
    if set(file) != {CELLS}:
        yield f"the root holds {', '.join(sorted(file))} where {CELLS} alone belongs"


def _cells_problems(source: ResultFile, file: h5py.File) -> Iterator[str]:
    for index, chain in enumerate(source.experiment.cells):
        group = file[CELLS][cell_name(index)]
        try:
            yield from (f"cell {index}: {problem}" for problem in _cell_problems(source, group, chain))
        except (KeyError, TypeError, ValueError, RuntimeError, OSError) as error:
            yield f"cell {index}: {error.args[0] if error.args else error}"


def _cell_problems(source: ResultFile, group: h5py.Group, chain: Chain) -> Iterator[str]:
    """Compare a cell with what its experiment asks for."""
    experiment = source.experiment
    expected = cell_attributes(chain, experiment.chains, experiment.chains)
    # As text: NaN, which stands for a gain that differs by layer, equals itself only there.
    if object_line("", read_attributes(group)) != object_line("", expected):
        yield "its attributes are not those of its chain"
    quantities = experiment.quantities_of(chain)
    variables = cell_variables(quantities)
    there = {*group} | {f"{SUMMARY}/{name}" for name in group[SUMMARY]}
    for path in sorted(there - {*variables, SUMMARY}):
        yield f"{path} is unknown"
    missing = [path for path in variables if path not in there]
    if missing:
        yield from (f"{path} is missing" for path in missing)
        return
    trajectories = trajectory_variables(quantities)
    for path, variable in variables.items():
        dataset = checked_dataset(group, path)
        shape = expected_shape(variable, chain, stored_rows(experiment))
        yield from _dataset_problems(path, dataset, variable, shape)
        yield from _axis_problems(path, dataset, variable, group)
        if variable in trajectories:
            yield from _chunk_problems(path, dataset)


def _dataset_problems(path: str, dataset: h5py.Dataset, variable: Variable, shape: tuple[int, ...]) -> Iterator[str]:
    if dataset.dtype != np.dtype(variable.dtype) or dataset.shape != shape:
        yield f"{path} is {dataset.dtype} {dataset.shape} where {variable.dtype} {shape} belongs"
    if read_attributes(dataset) != variable.attributes:
        yield f"{path} does not have its units and long_name"


def _axis_problems(path: str, dataset: h5py.Dataset, variable: Variable, group: h5py.Group) -> Iterator[str]:
    """Compare the coordinates that an array is tied to with those of its cell."""
    if variable.name in COORDINATES:
        if not h5ds.is_scale(dataset.id):
            yield f"{path} is no dimension scale"
        return
    for number, axis in enumerate(variable.axes):
        scale = group[f"{SUMMARY}/{axis}" if axis == "quantile" else axis]
        if not h5ds.is_attached(dataset.id, scale.id, number):
            yield f"{path} is not tied to its axis {axis}"


def _chunk_problems(path: str, dataset: h5py.Dataset) -> Iterator[str]:
    """Compare how trajectories are stored with the format: a chunk that is not there would read as NaN."""
    if dataset.chunks != chunk_shape(*dataset.shape):
        yield f"{path} has chunks {dataset.chunks} where {chunk_shape(*dataset.shape)} belong"
    elif dataset.id.get_num_chunks() != _count_chunks(dataset.shape, dataset.chunks):
        yield f"{path} lacks some of its chunks"
    if not (dataset.compression == "gzip" and dataset.shuffle and dataset.fletcher32):
        yield f"{path} is not stored with gzip, shuffle and fletcher32"


def _count_chunks(shape: tuple[int, ...], chunks: tuple[int, ...]) -> int:
    return math.prod(-(-length // size) for length, size in zip(shape, chunks, strict=True))


def _content(source: ResultFile, file: h5py.File) -> str:
    """Take the digest of the content anew."""
    cells = []
    for index, chain in enumerate(source.experiment.cells):
        group = file[CELLS][cell_name(index)]
        name = f"/{CELLS}/{cell_name(index)}"
        lines = {name: object_line(name, read_attributes(group))}
        for path in (SUMMARY, *cell_variables(source.experiment.quantities_of(chain))):
            item, there = group[path], f"{name}/{path}"
            array = None if path == SUMMARY else _array(item)
            lines[there] = object_line(there, read_attributes(item), array)
        cells.append((name, cell_digest(lines)))
    return content_digest(source.attributes, cells)


def _array(dataset: h5py.Dataset) -> tuple[str, tuple[int, ...], str]:
    """Return type, shape and digest of an array, read a few thousand rows at a time."""
    digest = RowDigest()
    for start in range(0, len(dataset), _READ_ROWS):
        digest.add(start, dataset[start : start + _READ_ROWS])
    return dataset.dtype.str, dataset.shape, digest.hexdigest()
