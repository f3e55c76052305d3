"""The answers of the deferred engine are those of one matrix, however long it is asked."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from gradsim import Chain
from gradsim.kernels import layout
from tests.kernels import stepping
from tests.kernels.compare import EPS

#: Units of rounding, times the root of the width, that products of unit vectors and answers may be off.
UNITS = 64

TIED = {"kind": "recurrent", "activation": "tanh", "gain": 1.5}
CHAINS = [
    {**TIED, "width": 64, "depth": 30},
    {**TIED, "width": 33, "depth": 12, "batch": 2},
    {**TIED, "width": 64, "depth": 300},
    {**TIED, "width": 512, "depth": 300},
    {**TIED, "width": 200, "depth": 150, "gain": 1.0, "bias": 0.05},
    {"kind": "recurrent", "activation": "relu", "width": 128, "depth": 300},
    {"kind": "lstm", "width": 40, "depth": 60, "gain": 1.5},
    {"kind": "gru", "width": 40, "depth": 30, "gain": 1.5, "bias": 0.1},
]


def last(fields, dtype="float64"):
    """What the matrix of a tied chain was asked."""
    chain = Chain(**fields)
    *_, memory = stepping.stepped(chain, 3, 1, dtype)
    return stepping.asked(memory, chain)


def loss_of_orthogonality(basis):
    return np.abs(basis @ basis.T - np.eye(len(basis))).max()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("fields", CHAINS, ids=str)
def test_the_answers_are_those_of_one_matrix(fields, dtype):
    """<v_j, W u_i> = <W^T v_j, u_i> for all queries, and queries are orthonormal."""
    check_one_matrix(last(fields, dtype), dtype)


def check_one_matrix(found, dtype):
    assert min(len(found.queries), len(found.back_queries)) > 10
    rounding = UNITS * EPS[dtype] * np.sqrt(found.answers.shape[1])
    assert loss_of_orthogonality(found.queries) < rounding
    assert loss_of_orthogonality(found.back_queries) < rounding
    forward, back = found.back_queries @ found.answers.T, found.back_answers @ found.queries.T
    assert np.abs(forward - back).max() < rounding * np.abs(forward).max(), "the two sides disagree"


@pytest.mark.parametrize("fields", CHAINS, ids=str)
def test_an_answer_that_forgot_one_query_is_of_no_matrix(fields):
    """Control: the engine's own answers, less what the last of them owes to one query from the other side."""
    found = last(fields)
    answers = found.back_answers.copy()
    answers[-1] -= (answers[-1] @ found.queries[3]) * found.queries[3]
    with pytest.raises(AssertionError, match="the two sides disagree"):
        check_one_matrix(found._replace(back_answers=answers), "float64")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("fields", [{**TIED, "width": 48, "depth": 100}, {**TIED, "width": 64, "depth": 15}], ids=str)
def test_an_orthogonal_matrix_keeps_lengths_and_angles(fields, dtype):
    chain = Chain(**fields, init="orthogonal")
    *_, memory = stepping.stepped(chain, 3, 1, dtype)
    pairs = memory.layers[0]["asked"]
    assert pairs == min(chain.width, 2 * chain.depth)
    for basis in (memory.queries, memory.answers):
        unit = basis[:pairs, : chain.width].astype(float)
        assert loss_of_orthogonality(unit) < UNITS * EPS[dtype] * np.sqrt(chain.width)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_matrix_asked_often_enough_is_known_in_full(dtype):
    """More steps than units: W = A U^T from the right and V B^T from the left are one matrix, of standard normals."""
    found = last({**TIED, "width": 24, "depth": 90}, dtype)
    assert len(found.queries) == len(found.back_queries) == 24
    right, left = found.answers.T @ found.queries, found.back_queries.T @ found.back_answers
    np.testing.assert_allclose(right, left, atol=UNITS * EPS[dtype] * 24)
    assert right.std() == pytest.approx(1.0, abs=4 / np.sqrt(2 * 24**2))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_chain_takes_the_matrix_it_was_told(dtype):
    """Once W is known in full, all its states follow from it: h_l = tanh(W h_{l-1}), from the first to the last."""
    chain = Chain(**TIED, width=24, depth=40)
    h, _ = stepping.vectors(chain, 3, 1, dtype)
    found = last({**TIED, "width": 24, "depth": 40}, dtype)
    w = 1.5 / np.sqrt(24) * found.answers.T @ found.queries
    steps = [np.abs(np.tanh(w @ below) - above).max() for below, above in pairwise(h)]
    assert max(steps) < 32 * EPS[dtype] * np.sqrt(24)


@pytest.mark.parametrize(("dtype", "most"), [("float32", 70), ("float64", 160)])
def test_a_fixed_point_is_recognised(dtype, most):
    """Each step to it is about gain times the last: as many queries as it takes to reach rounding, and no more."""
    chain = {"kind": "recurrent", "activation": "tanh", "gain": 0.7, "bias": 0.3, "width": 256, "depth": 400}
    found = last(chain, dtype)
    assert 10 < len(found.queries) < most
    assert loss_of_orthogonality(found.queries) < UNITS * EPS[dtype] * 16


def once_orthogonalised(states):
    """Queries of these states by one projection each, as Gram and Schmidt would leave them in float32."""
    basis = np.zeros((0, states.shape[1]), np.float32)
    for x in states.astype(np.float32):
        rest = x - (basis @ x) @ basis
        length = np.linalg.norm(rest)
        if length > 2.0**-18 * np.linalg.norm(x) and len(basis) < states.shape[1]:
            basis = np.vstack([basis, rest / length])
    return basis


@pytest.mark.parametrize("fields", [{"width": 64}, {"width": 512}], ids=str)
def test_one_projection_is_not_enough(fields):
    """Control: the same states, orthogonalised once, lose what the engine keeps."""
    fields = {"kind": "recurrent", "activation": "tanh", "gain": 1.05, "bias": 0.02, "depth": 300, **fields}
    states, _ = stepping.vectors(Chain(**fields), 3, 1, "float32")
    allowed = UNITS * EPS["float32"] * np.sqrt(fields["width"])
    assert loss_of_orthogonality(last(fields, "float32").queries) < allowed
    assert loss_of_orthogonality(once_orthogonalised(np.array(states[:-1])).astype(float)) > 100 * allowed


UNTIED = [
    {"activation": "tanh", "gain": 1.2, "batch": 3},
    {"activation": "linear", "probes": 2, "bias": 0.1},
    {"activation": "gelu", "skip": 0.5, "norm": "layer"},
]


@pytest.mark.parametrize("fields", UNTIED, ids=str)
def test_the_matrices_of_layers_are_matrices(fields):
    shape = {"width": 9, "depth": 3} if "skip" in fields else {"profile": [9, 20, 6, 30]}
    chain, checked = Chain(**shape, **fields), 0
    for memory in stepping.stepped(chain, 3, 1):
        # Of the layer whose backward pass has just ended: the next one writes its own over it.
        progress = memory.progress
        layer = progress.layer + 1 if progress.phase == layout.BACKWARD else progress.layer
        ended = progress.phase in (layout.BACKWARD, layout.CLOSE) and progress.unit == 0 and layer <= chain.depth
        if not ended:
            continue
        own, top = memory.layers[layer], (layer - 1) * memory.spec.asked_a_layer
        rows, columns = chain.widths[layer], chain.widths[layer - 1]
        mine, back = slice(top, top + own["asked"]), slice(0, own["asked_back"])
        left = memory.back_queries[back, :rows] @ memory.answers[mine, :rows].T
        right = memory.back_answers[back, :columns] @ memory.queries[mine, :columns].T
        np.testing.assert_allclose(left, right, atol=1e-12)
        checked += 1
    assert checked == chain.depth
