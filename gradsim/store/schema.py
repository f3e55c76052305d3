"""Version 1 of the result file: names, chunk shapes and attributes, without touching HDF5 itself.

A file holds root attributes and one group ``/cells/NNNN`` per grid cell, with the cell's chain as attributes,
the coordinate variables of its axes, one array per recorded quantity and a group ``summary``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gradsim.quantities import COORDINATES, Variable, summary_variables, trajectory_variables

if TYPE_CHECKING:
    from gradsim.chain import Chain
    from gradsim.experiment import Experiment

__all__ = [
    "CELLS",
    "FORMAT",
    "FORMAT_VERSION",
    "HDF5_SIGNATURE",
    "PROVENANCE_BYTES",
    "ROOT_ATTRIBUTES",
    "SUMMARY",
    "attribute_value",
    "cell_attributes",
    "cell_name",
    "cell_variables",
    "chunk_shape",
    "root_attributes",
    "stored_rows",
]

FORMAT: Final = "gradsim"
FORMAT_VERSION: Final = 1
HDF5_SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"

CELLS: Final = "cells"
SUMMARY: Final = "summary"

#: The provenance is padded with spaces to a multiple of this, so that its length does not move what follows
#: it.
PROVENANCE_BYTES: Final = 4096

#: Root attributes, in the order they are written, and their type when read.
ROOT_ATTRIBUTES: Final[dict[str, type]] = {
    "format": str,
    "format_version": int,
    "stream_version": int,
    "gradsim_version": str,
    "created": str,
    "seed": str,
    "experiment": str,
    "experiment_hash": str,
    "method": str,
    "device": str,
    "dtype": str,
    "complete": int,
    "provenance": str,
    "content_sha256": str,
    "file_sha256": str,
}

_BAND_VALUES = 1 << 20  # most values in a full-width band of chunks: 4 MiB of float32
_CHUNK_VALUES = 1 << 16  # most values in a chunk: 256 KiB of float32
_CHUNK_COLUMNS = 40
_ROW_STEP = 64  # chunks end where blocks can end
_MOST_ROWS = 4096


def cell_name(index: int) -> str:
    """Return the name of a cell's group."""
    return f"{index:04d}"


def stored_rows(experiment: Experiment) -> int:
    """Return how many chains of each cell have their trajectory stored."""
    if experiment.record == "summary":
        return min(experiment.keep, experiment.chains)
    return experiment.chains


def chunk_shape(chains: int, layers: int) -> tuple[int, int]:
    """Return the chunk shape of an array of trajectories; a function of its shape alone.

    Chunks are about 40 layers wide, so that a few layers of many chains are read without the rest, or wider
    where many layers leave them few rows. Those side by side make a band of rows, a multiple of 64 chains,
    that is buffered as a whole while it is written. Widths and heights are as equal as can be, so that little
    is padding.
    """
    band = _power_of_two(_BAND_VALUES // layers)
    columns = -(-layers // -(-layers // max(_CHUNK_COLUMNS, _CHUNK_VALUES // band)))
    most = min(band, _power_of_two(_CHUNK_VALUES // columns))
    if chains <= most:
        return chains, columns
    bands = -(-chains // most)
    return -(-chains // (bands * _ROW_STEP)) * _ROW_STEP, columns


def _power_of_two(rows: int) -> int:
    """Round a number of rows down to a power of two within bounds."""
    return min(max(1 << max(rows, 1).bit_length() - 1, _ROW_STEP), _MOST_ROWS)


def cell_variables(quantities: Sequence[str]) -> dict[str, Variable]:
    """Return every variable of a cell by its path within the cell's group, coordinates first."""
    recorded = trajectory_variables(quantities)
    used = {"layer", "chain"}.union(*(variable.axes for variable in recorded))
    axes = [COORDINATES[name] for name in ("layer", "chain", "weight", "probe") if name in used]
    variables = {variable.name: variable for variable in (*axes, *recorded)}
    variables[f"{SUMMARY}/quantile"] = COORDINATES["quantile"]
    for variable in summary_variables(quantities):
        variables[f"{SUMMARY}/{variable.name}"] = variable
    return variables


def cell_attributes(chain: Chain, chains: int, chains_done: int) -> dict[str, Any]:
    """Return a cell's attributes: its chain's resolved fields and its numbers of chains."""
    attributes = {**chain.fields(), "chains": chains, "chains_done": chains_done}
    return {name: attribute_value(value) for name, value in attributes.items()}


def attribute_value(value: Any) -> Any:
    """Return `value` as a file gives it back: text, integer, float (NaN for None) or a list of numbers."""
    if value is None:
        return math.nan
    if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str):
        return np.asarray(value).tolist()
    return value


def root_attributes(experiment: Experiment, versions: Mapping[str, Any]) -> dict[str, Any]:
    """Return the root attributes that are known before a run ends."""
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        **versions,
        "seed": str(experiment.seed),
        "experiment": experiment.to_json(),
        "experiment_hash": experiment.hash,
        "method": experiment.method,
        "device": experiment.device,
        "dtype": experiment.dtype,
    }
