"""The integers behind the weights of the CUDA kernels are the golden ones, whichever way they are drawn."""

from __future__ import annotations

import json

import pytest

from tests.kernels.cuda import golden_words


@pytest.fixture(scope="module")
def drawn(work):
    return json.loads(work.background.output("words"))


def test_keys_of_layers_are_golden(drawn):
    assert drawn["layers"] == golden_words.layers()


@pytest.mark.parametrize("way", golden_words.WAYS)
def test_matrices_are_golden(drawn, way):
    assert drawn[way] == golden_words.matrices()


def test_another_counter_is_seen(drawn):
    """Control: columns one further are other words."""
    assert drawn["rows"] != golden_words.matrices(first_column=1)
