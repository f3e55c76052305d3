"""Names of the random streams: which 128-bit key a cell draws under, and what each purpose is called.

The scheme, written down in docs/rng.md, is versioned: files carry `STREAM_VERSION`, and a change of any rule
here or in `rng` changes it.
"""

from __future__ import annotations

import hashlib

STREAM_VERSION = 1

# What a layer's stream is for; part of the counter from which the layer key is derived.
# ANSWER and ANSWER_BACK: what a matrix that is never formed answers to W x and W^T d, beside what is known of it.
WEIGHT, BIAS, INPUT, OUTPUT, NOISE, DROPOUT, ANSWER, ANSWER_BACK = range(8)


def cell_key(seed: int, canonical: str, streams: str = "independent") -> tuple[int, int, int, int]:
    """Key of all draws of one cell.

    Parameters
    ----------
    seed
        The experiment's seed, 0 .. 2**64 - 1.
    canonical
        ``Chain.canonical()``: the chain's fields that differ from their defaults, as JSON.
    streams
        "independent": the key depends on the chain's fields; "common": on the seed alone, so that cells of the same
        shape draw the same weights.

    Returns
    -------
    tuple of int
        Four 32-bit words, the first 128 bits of a SHA-256 digest, little endian.
    """
    cell = canonical if streams == "independent" else "common"
    text = f"gradsim stream {STREAM_VERSION}\n{seed}\n{cell}"
    digest = hashlib.sha256(text.encode()).digest()
    k0, k1, k2, k3 = (int.from_bytes(digest[i : i + 4], "little") for i in range(0, 16, 4))
    return k0, k1, k2, k3
