"""Writing one cell: blocks of chains in, whole compressed chunks and a summary out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from gradsim.interruption import Check, unchecked
from gradsim.plan import HELD_BYTES
from gradsim.quantities import Variable, axis_lengths, coordinates, trajectory_variables
from gradsim.store import hdf
from gradsim.store.digest import RowDigest, cell_digest, object_line
from gradsim.store.encoding import encode_chunk
from gradsim.store.schema import SUMMARY, cell_attributes, cell_variables, chunk_shape, stored_rows
from gradsim.summary import SummaryBuilder

if TYPE_CHECKING:
    from gradsim.chain import Chain
    from gradsim.experiment import Experiment

__all__ = ["CellWriter"]

Array = NDArray[Any]


class CellWriter:
    """Fills the group of one cell.

    Parameters
    ----------
    group : h5py.Group
        The cell's group, empty.
    chain : Chain
    experiment : Experiment
    check : callable
        Called several times a second while there is work; what it raises ends the work.

    Raises
    ------
    ValueError
        For a block that does not belong, in `add`.
    """

    def __init__(self, group: h5py.Group, chain: Chain, experiment: Experiment, check: Check = unchecked) -> None:
        self._group = group
        self._chain = chain
        self._chains = experiment.chains
        self._rows = stored_rows(experiment)
        self._covered: list[tuple[int, int]] = []
        self._check_stop = check
        quantities = experiment.quantities_of(chain)
        self._summary = SummaryBuilder(quantities, check)
        self._variables = cell_variables(quantities)
        self._lines: dict[str, tuple[dict[str, str], tuple[str, tuple[int, ...], str] | None]] = {}
        self._scales: dict[str, h5py.Dataset] = {}
        for name, values in coordinates(chain, self._rows).items():
            if name in self._variables:
                self._add_scale(group, name, values)
        length = axis_lengths(chain, self._rows)
        self._trajectories: dict[str, _Trajectories] = {}
        for variable in trajectory_variables(quantities):
            shape = (self._rows, length[variable.axes[1]])
            self._trajectories[variable.name] = _Trajectories(group, variable, shape, check)
            hdf.attach(self._trajectories[variable.name].dataset, variable.axes, self._scales)
        size = sum(trajectories.nbytes for trajectories in self._trajectories.values())
        self._held: dict[str, Array] | None = {} if size <= HELD_BYTES else None

    @property
    def chains_done(self) -> int:
        """Number of chains written."""
        return sum(stop - start for start, stop in self._covered)

    def add(self, start: int, stop: int, arrays: Mapping[str, Array]) -> None:
        """Add chains `start` to `stop` - 1: one float32 array (stop - start, columns) per quantity."""
        self._check(start, stop, arrays)
        self._cover(start, stop)
        self._summary.add(start, arrays)
        count = min(stop, self._rows) - start
        if count <= 0:
            return
        for name, trajectories in self._trajectories.items():
            rows = arrays[name][:count]
            trajectories.add(start, rows)
            if self._held is not None:
                held = self._held.setdefault(name, np.empty(trajectories.shape, np.float32))
                held[start : start + count] = rows

    def finish(self) -> str:
        """Write summary and attributes; return the cell's digest."""
        kept = self._held or {name: one.dataset for name, one in self._trajectories.items()}
        summary = self._summary.result(kept)
        self._held = None
        group = hdf.create_group(self._group, SUMMARY)
        self._lines[SUMMARY] = {}, None
        for path, variable in self._variables.items():
            if not path.startswith(f"{SUMMARY}/"):
                continue
            if variable.name == "quantile":
                self._add_scale(group, path, coordinates(self._chain, self._rows)["quantile"])
            else:
                dataset = hdf.create_array(group, variable, summary[variable.name])
                hdf.attach(dataset, variable.axes, self._scales)
                self._note(path, summary[variable.name])
        attributes = cell_attributes(self._chain, self._chains, self.chains_done)
        hdf.write_attributes(self._group, attributes)
        for name, trajectories in self._trajectories.items():
            described = self._variables[name].attributes
            array = (self._variables[name].dtype, trajectories.shape, trajectories.digest.hexdigest())
            self._lines[name] = described, array
        root = self._group.name
        lines = {path: object_line(f"{root}/{path}", *line) for path, line in self._lines.items()}
        return cell_digest({"": object_line(root, attributes)} | lines)

    def _add_scale(self, group: h5py.Group, path: str, values: Array) -> None:
        variable = self._variables[path]
        dataset = hdf.create_array(group, variable, values)
        hdf.make_scale(dataset, variable.name)
        self._scales[variable.name] = dataset
        self._note(path, values)

    def _note(self, path: str, values: Array) -> None:
        """Take a small array into the cell's digest."""
        variable = self._variables[path]
        digest = RowDigest(self._check_stop)
        digest.add(0, values.astype(variable.dtype))
        self._lines[path] = variable.attributes, (variable.dtype, values.shape, digest.hexdigest())

    def _check(self, start: int, stop: int, arrays: Mapping[str, Array]) -> None:
        """Refuse a block that is none of this cell or was written before."""
        if not 0 <= start < stop <= self._chains:
            raise ValueError(f"a block of chains {start} to {stop} of {self._chains}")
        if start % 64 or (stop % 64 and stop != self._chains):
            raise ValueError(f"a block begins and ends on a multiple of 64 chains, not {start} to {stop}")
        if any(start < other_stop and other < stop for other, other_stop in self._covered):
            raise ValueError(f"chains {start} to {stop} were written before")
        for name, trajectories in self._trajectories.items():
            shape = (stop - start, trajectories.shape[1])
            if arrays[name].shape != shape or arrays[name].dtype != np.float32:
                found = f"{arrays[name].dtype} {arrays[name].shape}"
                raise ValueError(f"{name} is float32 {shape} here, not {found}")

    def _cover(self, start: int, stop: int) -> None:
        """Note that chains were written, joining runs that touch: in order there is only one."""
        apart = []
        for other, other_stop in self._covered:
            if other_stop == start:
                start = other
            elif other == stop:
                stop = other_stop
            else:
                apart.append((other, other_stop))
        self._covered = [*apart, (start, stop)]


class _Trajectories:
    """One array of trajectories, compressed once a whole band of chunks is there."""

    def __init__(self, group: h5py.Group, variable: Variable, shape: tuple[int, int], check: Check) -> None:
        self.variable = variable
        self.shape = shape
        self.dataset = hdf.create_chunked(group, variable, shape)
        self.digest = RowDigest(check)
        self._check = check
        self._chunks = chunk_shape(*shape)
        self.nbytes = 4 * shape[0] * shape[1]
        self._bands: dict[int, tuple[Array, int]] = {}

    def add(self, start: int, rows: Array) -> None:
        """Add rows from number `start` on."""
        self.digest.add(start, rows)
        height = self._chunks[0]
        done = 0
        while done < len(rows):
            band, offset = divmod(start + done, height)
            count = min(height - offset, len(rows) - done)
            self._fill(band, offset, rows[done : done + count])
            done += count

    def _fill(self, band: int, offset: int, rows: Array) -> None:
        """Put rows into a band, and write the band when it is full."""
        total, columns = self.shape
        height = min(self._chunks[0], total - band * self._chunks[0])
        values, filled = self._bands.pop(band, (None, 0))
        if values is None:
            values = rows if len(rows) == height else np.empty((height, columns), np.float32)
        if values is not rows:
            values[offset : offset + len(rows)] = rows
        filled += len(rows)
        if filled < height:
            self._bands[band] = values, filled
        else:
            self._write(band, values)

    def _write(self, band: int, values: Array) -> None:
        height, width = self._chunks
        for left in range(0, self.shape[1], width):
            chunk = np.zeros((height, width), dtype=self.variable.dtype)
            part = values[:, left : left + width]
            chunk[: part.shape[0], : part.shape[1]] = part
            self.dataset.id.write_direct_chunk((band * height, left), encode_chunk(chunk, len(part)))
            self._check()
