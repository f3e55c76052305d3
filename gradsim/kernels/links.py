"""The kernels that the engine calls by address (see `linking`): what draws, multiplies and asks, and every feature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import (
    activation,
    addition,
    batched,
    deferred,
    deferred_block,
    draws,
    dropout,
    lost,
    matrices,
    normalisation,
    orthogonal,
    probes,
    recording,
)
from .compiling import kernel
from .kinds import (
    DOUBLE_ROWS,
    DOUBLES,
    FLAG,
    INDICES,
    INT,
    KEY,
    LAYER_RECORD,
    LAYERS,
    OUT,
    PROGRESS_RECORD,
    REAL,
    SPEC_RECORD,
    SPECTRUM,
    VOID,
    matrix,
    memory,
    vector,
)
from .linking import linked

Kinds = tuple[Any, ...]


def step(returns: Any, *kinds: Any) -> Callable[[Any], Any]:
    """Compile a function of the engine's memory and arguments of these types, to be called by address."""

    def link(function: Callable[..., Any]) -> Any:
        return linked(kernel(function), returns, lambda r: (memory(r), *kinds), takes_memory=True)

    return link


def _forward(r: Any) -> Kinds:
    return (KEY, FLAG, vector(r), INDICES, INT, INT, vector(r), INT)


def _forward_narrow(r: Any) -> Kinds:
    return (KEY, FLAG, vector(r), INT, INT, INT, vector(r), INT, vector(r))


def _backward(r: Any) -> Kinds:
    return (KEY, FLAG, vector(r), INT, INT, vector(r), INT, INT)


def _rows(r: Any) -> Kinds:
    return (KEY, FLAG, INT, INT, matrix(r), INT, INT, INT, vector(r), INT)


def _norm(r: Any) -> Kinds:
    return (SPEC_RECORD, LAYER_RECORD, vector(r), INT, INT, vector(r), DOUBLES, DOUBLE_ROWS)


forward_gaussian = linked(draws.forward_gaussian, VOID, _forward)
forward_bounded = linked(draws.forward_bounded, VOID, _forward)
forward_narrow_gaussian = linked(draws.forward_narrow_gaussian, VOID, _forward_narrow)
forward_narrow_bounded = linked(draws.forward_narrow_bounded, VOID, _forward_narrow)
backward_gaussian = linked(draws.backward_gaussian, VOID, _backward)
backward_bounded = linked(draws.backward_bounded, VOID, _backward)
rows_gaussian = linked(draws.rows_gaussian, VOID, _rows)
rows_bounded = linked(draws.rows_bounded, VOID, _rows)
fill_columns = linked(draws.fill_columns, VOID, lambda r: (KEY, INT, INT, vector(r), INT, vector(r)))
fill_bounded = linked(draws.fill_bounded, VOID, lambda r: (KEY, FLAG, INT, vector(r), INT))

apply_q = linked(orthogonal.apply_q, VOID, lambda r: (KEY, vector(r), INT, INT, INT, vector(r), vector(r)))
apply_q_transposed = linked(orthogonal.apply_q_transposed, VOID, lambda r: (KEY, INT, INT, INT, vector(r), vector(r)))
build_q = linked(orthogonal.build_q, VOID, lambda r: (KEY, INT, INT, matrix(r), vector(r), vector(r)))
combine = linked(matrices.combine, VOID, lambda r: (matrix(r), vector(r), INDICES, INT, vector(r), INT))
transpose = linked(matrices.transpose, VOID, lambda r: (matrix(r), matrix(r)))

multiply_drawn = linked(
    batched.multiply_drawn,
    VOID,
    lambda r: (
        *(SPEC_RECORD, KEY, matrix(r), vector(r), INT, INT, INT, INT),
        *(vector(r), vector(r), INT, FLAG),
    ),
)
apply_kept = linked(batched.apply_kept, VOID, lambda r: (matrix(r), FLAG, vector(r), vector(r), INT, INT))
apply_q_columns = linked(
    batched.apply_q_columns,
    VOID,
    lambda r: (KEY, vector(r), INT, INT, INT, INT, vector(r), vector(r), INT, vector(r)),
)
apply_q_transposed_columns = linked(
    batched.apply_q_transposed_columns,
    VOID,
    lambda r: (KEY, INT, INT, INT, vector(r), vector(r), INT, vector(r)),
)

ask_gaussian = linked(
    deferred.ask_gaussian,
    INT,
    lambda r: (
        *(KEY, INT, vector(r), INT, REAL, vector(r), INT),
        *(matrix(r), matrix(r), INT, INT),
        *(matrix(r), matrix(r), INT, INT),
        *(INDICES, matrix(r)),
    ),
)
ask_haar = linked(
    deferred.ask_haar,
    INT,
    lambda r: (
        *(KEY, INT, vector(r), INT, REAL, vector(r), INT, INT),
        *(matrix(r), matrix(r), INT, INT),
        *(INDICES, matrix(r)),
    ),
)
ask_block = linked(
    deferred_block.ask_block,
    VOID,
    lambda r: (
        *(KEY, vector(r), INT, INT, REAL, vector(r), INT),
        *(matrix(r), matrix(r), INT),
        *(DOUBLE_ROWS, matrix(r), DOUBLE_ROWS),
    ),
)
ask_block_back = linked(
    deferred_block.ask_block_back,
    VOID,
    lambda r: (
        *(KEY, vector(r), INT, INT, REAL, vector(r), INT),
        *(matrix(r), matrix(r), INT, INT, matrix(r)),
        *(DOUBLE_ROWS, matrix(r), DOUBLE_ROWS),
    ),
)

activate = linked(activation.activate, INT, lambda r: (SPEC_RECORD, vector(r), vector(r), vector(r), INT, INT))
norm_forward = linked(normalisation.norm_forward, INT, _norm)
norm_backward = linked(normalisation.norm_backward, INT, _norm)
drop = linked(dropout.drop, VOID, lambda r: (KEY, INT, REAL, vector(r), INT, INT, INT))
add_scaled = linked(addition.add_scaled, INT, lambda r: (vector(r), vector(r), INT, INT, REAL, INT))
add_vectors = linked(addition.add_vectors, INT, lambda r: (vector(r), REAL, INT, vector(r), REAL, INT, INT))

record_state = linked(
    recording.record_state, VOID, lambda r: (SPEC_RECORD, LAYERS, PROGRESS_RECORD, vector(r), OUT, INT)
)
record_gradient = linked(
    recording.record_gradient, REAL, lambda r: (SPEC_RECORD, LAYERS, PROGRESS_RECORD, vector(r), OUT, INT)
)
record_probes = linked(
    recording.record_probes,
    REAL,
    lambda r: (SPEC_RECORD, LAYERS, PROGRESS_RECORD, vector(r), vector(r), DOUBLE_ROWS, INT, OUT, INT),
)
note_lost = linked(lost.note_lost, VOID, lambda r: (SPEC_RECORD, PROGRESS_RECORD, vector(r), vector(r), vector(r), INT))
column_square = linked(probes.column_square, REAL, lambda r: (vector(r), INT, INT, INT))
nonzero_rows = linked(probes.nonzero_rows, INT, lambda r: (vector(r), INT, INT))
write_spectrum = linked(probes.write_spectrum, VOID, lambda r: (DOUBLES, INT, INT, SPECTRUM))
