"""The golden integers of `tests/kernels/golden.json` as `words` gives them."""

from __future__ import annotations

import json
from pathlib import Path

from gradsim.kernels import keys
from gradsim.kernels.reference import stream_key
from tests.kernels import golden

GOLDEN = json.loads((Path(__file__).parents[1] / "golden.json").read_text())
WAYS = ("rows", "forward", "backward")


def words(text):
    return [int(word, 16) for word in text]


def layers():
    """The key of each layer, in the order of the file."""
    return [words(row["key"]) for row in GOLDEN["layers"]]


def matrices(first_column=0):
    """The words behind the matrices; from another column on they are the reference's."""
    if first_column == 0:
        return [[words(row) for row in matrix["words"]] for matrix in GOLDEN["matrices"]]
    key = stream_key(keys.cell_key(*golden.CELLS[0]), 0, 1, keys.WEIGHT)
    return [
        [
            [int(golden.block(key, j + first_column, r % -(-rows // 4))[r // -(-rows // 4), 0]) for j in range(3)]
            for r in range(rows)
        ]
        for rows in golden.ROWS
    ]
