"""`ResultWriter`: a result file, built out of sight and published whole."""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

import h5py
from numpy.typing import NDArray

from gradsim import __version__
from gradsim.errors import OutputExistsError
from gradsim.interruption import Check, unchecked
from gradsim.kernels.keys import STREAM_VERSION
from gradsim.store import hdf
from gradsim.store.cells import CellWriter
from gradsim.store.digest import PLACEHOLDER, content_digest, fill_file_digest
from gradsim.store.disk import GuardedFile, storage_errors
from gradsim.store.parts import PartsFolder
from gradsim.store.reader import is_complete
from gradsim.store.schema import CELLS, PROVENANCE_BYTES, ROOT_ATTRIBUTES, cell_name, root_attributes
from gradsim.store.unfinished import ProgressNote

if TYPE_CHECKING:
    from gradsim.experiment import Experiment

__all__ = ["ResultWriter"]


class Block(Protocol):
    """Chains `start` to `stop` - 1 of cell number `cell`."""

    @property
    def cell(self) -> int: ...
    @property
    def start(self) -> int: ...
    @property
    def stop(self) -> int: ...


class ResultWriter:
    """Writes a result file block by block.

    The work goes on in ``FILE.parts``; `finish` gives FILE its name, whole and at once. As a context manager
    the writer leaves nothing behind where it was not finished. To be used by one thread at a time.

    Parameters
    ----------
    path : path
        The result file.
    experiment : Experiment
    overwrite : bool
        Replace an existing result, when this one is finished.
    resume : bool
        Take over what an ended run of the same experiment left, starting anew in it. A result that is
        complete is not touched: ask `is_complete` first.
    check : callable
        Called several times a second while a block is written; what it raises ends the writing, and nothing is
        left of it.

    Raises
    ------
    OutputExistsError
        Where a result or the parts of one are in the way, another process is writing it, or with `resume`
        they belong to another experiment or are complete.
    StorageError
        Where the folder is missing, the path is a folder, or writing fails; here and in every method.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        experiment: Experiment,
        overwrite: bool = False,
        resume: bool = False,
        check: Check = unchecked,
    ) -> None:
        self.path = Path(path)
        self._check = check
        self.experiment = experiment
        if resume and not overwrite and is_complete(self.path, experiment):
            raise OutputExistsError(f"{self.path} is complete: there is nothing to resume")
        self._parts = PartsFolder(self.path, experiment, overwrite=overwrite, resume=resume)
        try:
            with storage_errors(self.path):
                self._target = GuardedFile(self._parts.result)
        except BaseException:
            self._parts.remove()
            raise
        self._file = hdf.create_file(self._target)
        # Also where a writer is forgotten or the interpreter ends: HDF5 must not close a file that is gone.
        self._finalizer = weakref.finalize(self, _discard, self._file, self._target, self._parts, os.getpid())
        self._open: dict[int, CellWriter] = {}
        self._digests: dict[int, str] = {}
        self._note = ProgressNote(self._parts.folder, len(experiment.cells))
        with self._aborting():
            cells = hdf.create_group(self._file, CELLS)
            self._groups = [hdf.create_group(cells, cell_name(index)) for index in range(len(experiment.cells))]

    def write(self, block: Block, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write a block of chains.

        Blocks may come in any order; in that of the chains the least is buffered.

        Parameters
        ----------
        block : Block
            Begins and ends on multiples of 64 chains, but for a cell's end.
        arrays : mapping of str to ndarray of float32, shape (chains of the block, columns)
            One array per recorded quantity.
        """
        if not self._finalizer.alive:
            raise ValueError(f"{self.path} is finished or aborted")
        with self._aborting():
            if block.cell in self._digests:
                raise ValueError(f"cell {block.cell} is complete")
            if block.cell not in self._open:
                chain = self.experiment.cells[block.cell]
                self._open[block.cell] = CellWriter(self._groups[block.cell], chain, self.experiment, self._check)
            cell = self._open[block.cell]
            cell.add(block.start, block.stop, arrays)
            if cell.chains_done == self.experiment.chains:
                self._digests[block.cell] = cell.finish()
                del self._open[block.cell]
            self._target.check()
        self._note.add(block.cell, block.stop - block.start)

    def finish(self, provenance: Mapping[str, Any], created: datetime | None = None) -> None:
        """Complete the file and give it its name.

        Parameters
        ----------
        provenance : mapping
            Where the result comes from, ready for JSON: versions, processor, threads, wall seconds.
        created : datetime, optional
            The time to note; by default now.

        Raises
        ------
        ValueError
            Where chains are missing.
        OutputExistsError
            Where another file appeared under the name meanwhile; it is left alone and the result beside it.
        """
        if not self._finalizer.alive:
            raise ValueError(f"{self.path} is finished or aborted")
        missing = len(self.experiment.cells) - len(self._digests)
        if missing:
            raise ValueError(f"{self.path} lacks chains in {missing} of {len(self.experiment.cells)} cells")
        with self._aborting():
            hdf.write_attributes(self._file, self._root(provenance, created or datetime.now(UTC)))
            self._file.close()
            self._target.check()
            self._target.close()
            fill_file_digest(self._parts.result)
        # From here on the file is whole: what goes wrong now must not remove it.
        self._finalizer.detach()
        self._parts.publish()

    def abort(self) -> None:
        """Drop the unfinished file and everything beside it; without effect once it is finished."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def _root(self, provenance: Mapping[str, Any], created: datetime) -> dict[str, Any]:
        """Return all root attributes, in order."""
        versions = {"stream_version": STREAM_VERSION, "gradsim_version": __version__}
        known = root_attributes(self.experiment, versions) | {"complete": 1}
        cells = ((self._groups[index].name, self._digests[index]) for index in range(len(self._groups)))
        known["content_sha256"] = content_digest(known, cells)
        text = json.dumps({**provenance, "hdf5": h5py.version.hdf5_version}, ensure_ascii=False)
        padding = -len(text.encode()) % PROVENANCE_BYTES
        known["provenance"] = text + " " * padding
        known["created"] = created.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        known["file_sha256"] = PLACEHOLDER
        return {name: known[name] for name in ROOT_ATTRIBUTES}

    @contextmanager
    def _aborting(self) -> Iterator[None]:
        """Abort on any exception; what the file system refused becomes a `StorageError`."""
        try:
            yield
        except BaseException as error:
            failure = self._target.error
            self.abort()
            with storage_errors(self.path):
                # A failed write may surface as a later complaint of HDF5: its cause is what to report.
                if failure is not None:
                    raise failure from error
                raise


def _discard(file: h5py.File, target: GuardedFile, parts: PartsFolder, owner: int) -> None:
    """Drop an unfinished file, in the process that began it."""
    if os.getpid() != owner:
        return
    target.abandon()
    with suppress(Exception):
        file.close()
    target.close()
    parts.remove()
