"""The two digests of a result file.

``file_sha256`` is the SHA-256 of the file's bytes with its own 64 hexadecimal digits replaced by 64 zeros. It
is found and checked on the raw bytes, without HDF5: the digits follow the attribute's name, and any flipped
bit shows.

``content_sha256`` is the SHA-256 of what the file says, however it is laid out. Each object is one line of
JSON with sorted keys (`object_line`): a group has ``path`` and ``attributes``; an array also ``dtype``,
``shape`` and ``sha256``, the digest over the digests of every 64 consecutive rows of its little-endian bytes.
The lines of a cell, sorted by path and each ended by a newline, give the cell's digest; the root's line,
without the attributes created, provenance and the digests, and one line ``path digest`` per cell in order
give ``content_sha256``.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from gradsim.errors import ResultFileError
from gradsim.interruption import Check, unchecked
from gradsim.store.schema import HDF5_SIGNATURE

__all__ = [
    "PLACEHOLDER",
    "RowDigest",
    "cell_digest",
    "check_bytes",
    "check_file_bytes",
    "check_size",
    "content_digest",
    "fill_file_digest",
    "object_line",
    "open_bytes",
]

#: Stands in the place of the digits of ``file_sha256`` while the file is hashed.
PLACEHOLDER: Final = "0" * 64
#: Rows of an array that are hashed together.
DIGEST_ROWS: Final = 64

# The attribute's name, its datatype and dataspace, its value.
_DIGITS: Final = re.compile(rb"file_sha256\x00[\x00-\xff]{0,64}?([0-9a-f]{64})")
_OVERLAP: Final = 12 + 64 + 64
_PIECE: Final = 1 << 22


# --- the bytes of the file


def fill_file_digest(path: Path) -> None:
    """Write the digits of ``file_sha256`` over the placeholder in a finished file, and sync it to disk."""
    with path.open("r+b") as file:
        at, digits, digest = _hash_bytes(file)
        if digits != PLACEHOLDER:
            raise AssertionError("a result file is written with the placeholder of its digest")
        file.seek(at)
        file.write(digest.encode())
        file.flush()
        os.fsync(file.fileno())


def check_file_bytes(path: Path) -> None:
    """Check a file's size and its ``file_sha256`` without opening it as HDF5.

    Raises
    ------
    ResultFileError
        With one line that says how the bytes are not those that were written.
    """
    with open_bytes(path) as file:
        problem = check_bytes(file)
    if problem:
        raise ResultFileError(f"{path} {problem}")


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file for its bytes; anything else is a `ResultFileError`."""
    try:
        if path.is_dir():
            raise ResultFileError(f"{path} is a folder, not a result file")
        if path.exists() and not path.is_file():
            raise ResultFileError(f"{path} is no regular file, so no result file")
        with path.open("rb") as file:
            yield file
    except FileNotFoundError:
        raise ResultFileError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ResultFileError(f"{path} cannot be read: {reason}") from None


def check_bytes(file: BinaryIO) -> str:
    """Return what is wrong with the bytes of a result file, to be read after its name; "" for nothing."""
    problem = check_size(file)
    if problem:
        return problem
    at, digits, digest = _hash_bytes(file)
    if at < 0:
        return "is an HDF5 file without gradsim's file_sha256: it is another program's, or it is damaged"
    if digits != digest:
        return "is damaged or was altered: its bytes do not match its file_sha256"
    return ""


def check_size(file: BinaryIO) -> str:
    """Return how a file's first bytes and size are not those of a whole HDF5 file; "" where they are."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(64)
    if head[:8] != HDF5_SIGNATURE:
        if size == 0:
            return "is empty: it is no gradsim result"
        return "is not an HDF5 file: it is no gradsim result, or its beginning is damaged"
    # Where the file should end: superblock version 0 and 1 hold it at different offsets than 2 and 3.
    offset = {0: 40, 1: 44, 2: 28, 3: 28}.get(head[8] if len(head) > 8 else 255)
    if offset is None or len(head) < offset + 8:
        return "is truncated or its beginning is damaged"
    end = int.from_bytes(head[offset : offset + 8], "little")
    if size < end:
        return f"is truncated: {size} of {end} bytes are there"
    return ""


def _hash_bytes(file: BinaryIO) -> tuple[int, str, str]:
    """Return where the digits of ``file_sha256`` are, what they are, and what they should be; -1 for nowhere.

    The file is read once, a piece at a time; until the digits are found, the end of each piece is looked at
    again with the next.
    """
    sha = hashlib.sha256()
    at, digits, tail = -1, "", b""
    file.seek(0)
    end = 0
    while piece := file.read(_PIECE):
        end += len(piece)
        if at >= 0:
            sha.update(piece)
            continue
        piece = tail + piece
        match = _DIGITS.search(piece)
        if match:
            at, digits = end - len(piece) + match.start(1), match.group(1).decode()
            sha.update(piece[: match.start(1)])
            sha.update(PLACEHOLDER.encode())
            sha.update(piece[match.end(1) :])
            tail = b""
        else:
            sha.update(piece[:-_OVERLAP])
            tail = piece[-_OVERLAP:]
    sha.update(tail)
    return at, digits, sha.hexdigest()


# --- the content of the file


class RowDigest:
    """The digest of an array whose rows arrive in blocks, in any order, each on a multiple of 64 rows."""

    def __init__(self, check: Check = unchecked) -> None:
        self._check = check
        self._blocks: dict[int, bytes] = {}

    def add(self, start: int, rows: NDArray[Any]) -> None:
        """Add the rows from number `start` on; all but the last rows of the array come in multiples of 64."""
        rows = np.ascontiguousarray(rows, dtype=rows.dtype.newbyteorder("<"))
        data = rows.reshape(-1).view(np.uint8).data
        size = DIGEST_ROWS * (len(data) // max(1, len(rows)))
        for at in range(0, len(data), size):
            self._blocks[start + at // size * DIGEST_ROWS] = self._hash(data[at : at + size])
        self._check()

    def _hash(self, block: memoryview) -> bytes:
        """Hash a block, a very long one a piece at a time."""
        sha = hashlib.sha256(block[:_PIECE])
        for at in range(_PIECE, len(block), _PIECE):
            self._check()
            sha.update(block[at : at + _PIECE])
        return sha.digest()

    def hexdigest(self) -> str:
        """Return the digest of the whole array."""
        return hashlib.sha256(b"".join(self._blocks[at] for at in sorted(self._blocks))).hexdigest()


def object_line(path: str, attributes: Mapping[str, Any], array: tuple[str, tuple[int, ...], str] | None = None) -> str:
    """Return the line of a group, or with `array` (dtype, shape, digest) of a dataset."""
    line: dict[str, Any] = {"path": path, "attributes": dict(attributes)}
    if array is not None:
        dtype, shape, digest = array
        line |= {"dtype": dtype, "shape": list(shape), "sha256": digest}
    return json.dumps(line, sort_keys=True, separators=(",", ":"))


def cell_digest(lines: Mapping[str, str]) -> str:
    """Return a cell's digest from the lines of its objects by path."""
    text = "".join(f"{lines[path]}\n" for path in sorted(lines))
    return hashlib.sha256(text.encode()).hexdigest()


def content_digest(root: Mapping[str, Any], cells: Iterable[tuple[str, str]]) -> str:
    """Return ``content_sha256`` from the root's attributes and the (path, digest) of each cell in order."""
    left_out = ("created", "provenance", "content_sha256", "file_sha256")
    kept = {name: value for name, value in root.items() if name not in left_out}
    sha = hashlib.sha256(f"{object_line('/', kept)}\n".encode())
    for path, digest in cells:
        sha.update(f"{path} {digest}\n".encode())
    return sha.hexdigest()
