"""The HDF5 objects of a result file: made so that equal content gives equal bytes, read back as plain values.

No times are stored, and the format is bounded to what HDF5 1.10 reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5ds, h5f, h5fd, h5g, h5p, h5s, h5t
from numpy.typing import NDArray

from gradsim.quantities import Variable
from gradsim.store.disk import GuardedFile
from gradsim.store.encoding import GZIP_LEVEL
from gradsim.store.schema import chunk_shape

__all__ = [
    "attach",
    "create_array",
    "create_chunked",
    "create_file",
    "create_group",
    "make_scale",
    "read_attributes",
    "write_attributes",
]

_ORDER = h5p.CRT_ORDER_TRACKED | h5p.CRT_ORDER_INDEXED
_MOST_ATTRIBUTE_BYTES = 1 << 24
#: Attributes by which HDF5 and netCDF-4 tie arrays to their axes: addresses in the file, not content.
_INTERNAL = frozenset({"CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST"})


def create_file(target: GuardedFile) -> h5py.File:
    """Start a file in `target`."""
    # The root keeps the oldest kind of object header, the only one without a checksum of its own: the digits
    # of file_sha256 are written into it when HDF5 is done.
    creation = h5p.create(h5p.FILE_CREATE)
    creation.set_obj_track_times(False)
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_fclose_degree(h5f.CLOSE_STRONG)
    access.set_libver_bounds(h5f.LIBVER_EARLIEST, h5f.LIBVER_V110)
    access.set_fileobj_driver(h5fd.fileobj_driver, target)
    return h5py.File(h5f.create(b"result.h5", h5f.ACC_TRUNC, creation, access))


def create_group(parent: h5py.Group, name: str) -> h5py.Group:
    """Make a group that keeps the order of its members, as netCDF-4 does, and may hold long attributes."""
    creation = h5p.create(h5p.GROUP_CREATE)
    creation.set_link_creation_order(_ORDER)
    creation.set_attr_creation_order(_ORDER)
    creation.set_obj_track_times(False)
    return h5py.Group(h5g.create(parent.id, name.encode(), gcpl=creation))


def create_array(parent: h5py.Group, variable: Variable, values: NDArray[Any]) -> h5py.Dataset:
    """Make a small array, contiguous in the file, with its meaning."""
    values = np.ascontiguousarray(values, dtype=variable.dtype)
    dataset = _create(parent, variable, values.shape, h5p.create(h5p.DATASET_CREATE))
    dataset.id.write(h5s.ALL, h5s.ALL, values)
    return dataset


def create_chunked(parent: h5py.Group, variable: Variable, shape: tuple[int, int]) -> h5py.Dataset:
    """Make an array of trajectories, to be filled chunk by chunk; what is never written reads as NaN."""
    creation = h5p.create(h5p.DATASET_CREATE)
    creation.set_chunk(chunk_shape(*shape))
    creation.set_fill_value(np.array(np.nan, dtype=variable.dtype))
    creation.set_shuffle()
    creation.set_deflate(GZIP_LEVEL)
    creation.set_fletcher32()
    return _create(parent, variable, shape, creation)


def _create(parent: h5py.Group, variable: Variable, shape: tuple[int, ...], creation: h5p.PropDCID) -> h5py.Dataset:
    creation.set_obj_track_times(False)
    kind = h5t.py_create(np.dtype(variable.dtype))
    space = h5s.create_simple(shape)
    dataset = h5py.Dataset(h5d.create(parent.id, variable.name.encode(), kind, space, creation))
    write_attributes(dataset, variable.attributes)
    return dataset


def make_scale(dataset: h5py.Dataset, name: str) -> None:
    """Make an array the coordinates of an axis."""
    h5ds.set_scale(dataset.id, name.encode())


def attach(dataset: h5py.Dataset, axes: tuple[str, ...], scales: Mapping[str, h5py.Dataset]) -> None:
    """Tie the axes of an array to their coordinates."""
    for number, axis in enumerate(axes):
        h5ds.attach_scale(dataset.id, scales[axis].id, number)


def write_attributes(target: h5py.Group | h5py.Dataset, attributes: Mapping[str, Any]) -> None:
    """Write attributes: text as UTF-8 of fixed length, integers and floats in 64 bits, lists as arrays."""
    for name, value in attributes.items():
        if isinstance(value, str):
            text = value.encode()
            kind = h5t.C_S1.copy()
            # HDF5 has no text of length 0; one null byte reads as the empty text.
            kind.set_size(max(1, len(text)))
            kind.set_cset(h5t.CSET_UTF8)
            kind.set_strpad(h5t.STR_NULLPAD)
            array = np.array(text, dtype=f"S{kind.get_size()}")
        else:
            array = np.asarray(value)
            array = array.astype("<i8" if array.dtype.kind == "i" else "<f8")
            kind = h5t.py_create(array.dtype)
        space = h5s.create_simple(array.shape) if array.shape else h5s.create(h5s.SCALAR)
        h5a.create(target.id, name.encode(), kind, space).write(array, mtype=kind)


def read_attributes(source: h5py.Group | h5py.Dataset, only: Iterable[str] | None = None) -> dict[str, Any]:
    """Return attributes as text, numbers and lists of numbers, in alphabetical order.

    Parameters
    ----------
    source : h5py.Group or h5py.Dataset
    only : iterable of str, optional
        Names to read where they are there; by default all but those that HDF5 ties axes with.

    Raises
    ------
    TypeError, ValueError
        For an attribute that is none of these or of unlikely size.
    """
    names = set(source.attrs) - _INTERNAL if only is None else set(source.attrs) & set(only)
    return {name: _read_attribute(source, name) for name in sorted(names)}


def _read_attribute(source: h5py.Group | h5py.Dataset, name: str) -> Any:
    attribute = h5a.open(source.id, name.encode())
    if attribute.get_storage_size() > _MOST_ATTRIBUTE_BYTES:
        raise ValueError(f"attribute {name} is too large")
    kind, shape = attribute.dtype, attribute.shape
    if kind.kind not in "iufS" or shape is None or len(shape) > 1:
        raise TypeError(f"attribute {name} is of no type used here")
    array = np.empty(shape, kind)
    attribute.read(array)
    value = array.tolist()
    return value.decode() if isinstance(value, bytes) else value
