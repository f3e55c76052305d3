"""The words: Threefry against its authors' vectors, our keys and layout against golden ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gradsim.kernels import keys, rng
from gradsim.kernels.reference import draw, stream_key, threefry4x32
from tests.kernels import compiled, golden

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())
ALL_ONES = "ffffffff ffffffff ffffffff ffffffff"
ZEROS = "00000000 00000000 00000000 00000000"
PI = "243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0 082efa98 ec4e6c89"
# Random123 (Salmon et al.), tests/kat_vectors: rounds, counter, key, result.
KNOWN_ANSWERS = [
    (13, ZEROS, ZEROS, "531c7e4f 39491ee5 2c855a92 3d6abf9a"),
    (13, ALL_ONES, ALL_ONES, "c4189358 1c9cc83a d5881c67 6a0a89e0"),
    (13, *PI, "4aa71d8f 734738c2 431fc6a8 ae6debf1"),
    (20, ZEROS, ZEROS, "9c6ca96a e17eae66 fc10ecd4 5256a7d8"),
    (20, ALL_ONES, ALL_ONES, "2a881696 57012287 f6c7446e a16a6732"),
    (20, *PI, "59cd1dbb b8879579 86b5d00c ac8b6d84"),
]


def words(text):
    """A column of words from hexadecimal text or a list of it."""
    digits = text.split() if isinstance(text, str) else text
    return np.array([int(word, 16) for word in digits], np.uint32).reshape(-1, 1)


def random_words(*shape, seed=0):
    """Words of NumPy's own."""
    return np.random.default_rng(seed).integers(0, 2**32, shape, dtype=np.uint32)


@pytest.mark.parametrize(("rounds", "counter", "key", "expected"), KNOWN_ANSWERS)
def test_reference_gives_the_published_answers(rounds, counter, key, expected):
    np.testing.assert_array_equal(threefry4x32(words(key), words(counter), rounds), words(expected))


@pytest.mark.parametrize(("counter", "key", "expected"), [known[1:] for known in KNOWN_ANSWERS if known[0] == 20])
def test_compiled_twenty_rounds_give_the_published_answers(counter, key, expected):
    np.testing.assert_array_equal(compiled.threefry20(words(key), words(counter)), words(expected))


def test_compiled_thirteen_rounds_give_the_published_answer_at_zero():
    np.testing.assert_array_equal(compiled.threefry13([0, 0, 0, 0], [0], [0]), words(KNOWN_ANSWERS[0][3]))


def test_compiled_thirteen_rounds_are_the_reference():
    x0, x1 = random_words(2, 500)
    zero = np.zeros_like(x0)
    for key in [*random_words(20, 4, seed=1), np.zeros(4, np.uint32), np.full(4, 2**32 - 1, np.uint32)]:
        expected = threefry4x32(key.reshape(4, 1), np.stack([x0, x1, zero, zero]), 13)
        np.testing.assert_array_equal(compiled.threefry13(key, x0, x1), expected)


def test_compiled_twenty_rounds_are_the_reference():
    key, counter = random_words(2, 4, 2000)
    np.testing.assert_array_equal(compiled.threefry20(key, counter), threefry4x32(key, counter, 20))


def test_a_missing_round_is_seen():
    key, counter = random_words(2, 4, 2000)
    assert not np.any(np.all(compiled.threefry20(key, counter) == threefry4x32(key, counter, 19), axis=0))


def test_golden_vectors_belong_to_this_version():
    assert GOLDEN["stream_version"] == keys.STREAM_VERSION
    assert golden.golden() == GOLDEN


@pytest.mark.parametrize("cell", GOLDEN["cells"], ids=str)
def test_cell_keys_are_golden(cell):
    key = keys.cell_key(cell["seed"], cell["canonical"], cell["streams"])
    assert golden.hexadecimal(key) == cell["key"]


def test_cell_keys_depend_on_what_they_should():
    independent = {keys.cell_key(seed, text) for seed in (0, 1, 10, 11) for text in ("{}", "0{}", '{"width": 8}')}
    assert len(independent) == 12
    assert keys.cell_key(3, "{}", "common") == keys.cell_key(3, '{"width": 8}', "common")
    assert keys.cell_key(3, "{}", "common") != keys.cell_key(4, "{}", "common")
    assert keys.cell_key(3, "{}", "common") != keys.cell_key(3, "{}")


def test_layer_keys_and_first_blocks_are_golden():
    cell = keys.cell_key(*golden.CELLS[0])
    chains, layers = ([entry[name] for entry in GOLDEN["layers"]] for name in ("chain", "layer"))
    purposes = [golden.PURPOSES[entry["purpose"]] for entry in GOLDEN["layers"]]
    found = compiled.layer_keys(cell, chains, layers, purposes)
    for key, entry in zip(found, GOLDEN["layers"], strict=True):
        assert golden.hexadecimal(key) == entry["key"]
        assert golden.hexadecimal(compiled.threefry13(key, [0], [0])) == entry["first_block"]


def test_layer_keys_are_the_reference():
    cell = keys.cell_key(5, "{}")
    for chain, layer, purpose in [(0, 0, 0), (3, 7, 2), (2**32, 1, 4), (2**62 + 5, 9_999, 1)]:
        expected = stream_key(cell, chain, layer, purpose)[:, 0]
        np.testing.assert_array_equal(compiled.layer_keys(cell, chain, layer, purpose), expected)


def test_layer_keys_are_distinct():
    chains = np.array([*range(100), 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**33, 2**62])
    found = compiled.layer_keys(
        keys.cell_key(0, "{}"), chains[:, None, None], np.arange(200)[:, None], np.arange(len(golden.PURPOSES))
    )
    assert len(np.unique(found.reshape(-1, 4), axis=0)) == found.size // 4
    # Not even half a key repeats: expected pairs among 2^64, 3e-10.
    assert len(np.unique(np.ascontiguousarray(found[..., :2]).view(np.uint64))) == found.size // 4


def as_words(x):
    """The words behind uniforms in float64, exactly."""
    return np.round(x / (rng.SQRT3 * 2.0**-31) - 0.5).astype(np.int64).astype(np.uint32)


@pytest.mark.parametrize("entry", GOLDEN["matrices"], ids=lambda entry: f"rows={entry['rows']}")
def test_layout_is_golden(entry):
    key = compiled.layer_keys(keys.cell_key(*golden.CELLS[0]), 0, 1, keys.WEIGHT)
    for j in range(golden.COLUMNS):
        found = as_words(compiled.column(key, j, entry["rows"], "float64", "uniform"))
        assert golden.hexadecimal(found) == [row[j] for row in entry["words"]]


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 63, 64, 65, 255, 257])
@pytest.mark.parametrize("law", ["gaussian", "uniform", "rademacher"])
def test_columns_are_the_reference(rows, law):
    key = compiled.layer_keys(keys.cell_key(8, "{}"), 2, 3, keys.WEIGHT)
    expected = draw(key.reshape(4, 1), rows, 3, law)
    for j in range(3):
        # float64: six units of rounding of the radius; float32: see test_laws.
        np.testing.assert_allclose(
            compiled.column(key, j, rows, "float64", law), expected[:, j], rtol=0, atol=2e-15 * 7
        )
        np.testing.assert_allclose(compiled.column(key, j, rows, "float32", law), expected[:, j], rtol=0, atol=3e-5)


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 7])
def test_another_layout_is_seen(rows):
    key = compiled.layer_keys(keys.cell_key(8, "{}"), 2, 3, keys.WEIGHT)
    other = draw(key.reshape(4, 1), rows + 4, 3, "uniform")[:rows]
    same = [np.array_equal(compiled.column(key, j, rows, "float64", "uniform"), other[:, j]) for j in range(3)]
    assert same == [rows == 1] * 3  # the first row is word 0 of block 0 in all layouts
