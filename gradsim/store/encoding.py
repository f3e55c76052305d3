"""A chunk of an HDF5 dataset, encoded as HDF5's own filters shuffle, deflate (gzip) and fletcher32 would.

Any HDF5 library reads such chunks back. They are encoded here because the logarithms stored are noise in
their lower mantissa bytes: those are put into stored deflate blocks without looking for matches, the others
are run-length and Huffman coded, which is several times faster than the filters and as small, and zlib does
its part outside Python's lock.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["GZIP_LEVEL", "encode_chunk", "fletcher32"]

GZIP_LEVEL: Final = 1

_HEADER: Final = b"\x78\x01"  # zlib: deflate, window of 32 KiB, fastest
_END: Final = b"\x01\x00\x00\xff\xff"  # a last stored block, empty
_STORED: Final = 65535  # most bytes in a stored block
_SAMPLE: Final = 4096
_NOISE: Final = 6.8  # bits per byte from which coding is not worth it: its 3 % would cost half of the time

Bytes = NDArray[np.uint8]


def encode_chunk(chunk: NDArray[Any], used: int) -> bytes:
    """Return the bytes in the file of a C-contiguous chunk of which the first `used` rows hold data."""
    planes = np.ascontiguousarray(chunk.reshape(-1).view(np.uint8).reshape(-1, chunk.itemsize).T)
    parts: list[bytes | memoryview] = [_HEADER]
    used_bytes = used * (chunk.size // len(chunk))
    for plane in planes:
        parts += _deflate(plane[:used_bytes])
        if used < len(chunk):
            parts.append(_run_length(plane[used_bytes:]))
    parts += [_END, struct.pack(">I", zlib.adler32(planes.data))]
    data = b"".join(parts)
    return data + struct.pack("<I", fletcher32(data))


def _deflate(plane: Bytes) -> list[bytes | memoryview]:
    """Return deflate blocks, none of them the last, that end on a byte."""
    if _entropy(plane[:_SAMPLE]) > _NOISE:
        return _stored(plane.data)
    return [_run_length(plane)]


def _entropy(data: Bytes) -> float:
    """Return the bits per byte that a code for single bytes needs."""
    counts = np.bincount(data)
    shares = counts[counts > 0] / len(data)
    return float(-(shares * np.log2(shares)).sum())


def _run_length(plane: Bytes) -> bytes:
    coder = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
    return coder.compress(plane.data) + coder.flush(zlib.Z_FULL_FLUSH)


def _stored(data: memoryview) -> list[bytes | memoryview]:
    parts: list[bytes | memoryview] = []
    for start in range(0, len(data), _STORED):
        part = data[start : start + _STORED]
        parts += [struct.pack("<BHH", 0, len(part), len(part) ^ 0xFFFF), part]
    return parts


def fletcher32(data: bytes) -> int:
    """Return HDF5's Fletcher-32 checksum: sums modulo 65535 over big-endian 16-bit words.

    The sums are congruent to those of the loop in HDF5's ``H5checksum.c``, which never gives 0 but for zeros.
    """
    if len(data) % 2:
        data += b"\x00"
    words = np.frombuffer(data, dtype=">u2").astype(np.uint64)
    # (count + 1) count / 2 words of 16 bits: 64 bits suffice to beyond 2^24 words, a chunk of 32 MiB.
    first = int(words.sum())
    second = int(np.dot(words, np.arange(len(words), 0, -1, dtype=np.uint64)))
    return _fold(second) << 16 | _fold(first)


def _fold(total: int) -> int:
    return total % 65535 or (65535 if total else 0)
