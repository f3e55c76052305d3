"""Which functions a kind of chain never calls: its kernel is compiled without them, in a fraction of the time.

What is left out stops the kernel if it is called after all (`target.Translation`): a mistake here can end a run
and never change a number.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gradsim.kernels.gated_layout import GatedMemory
from gradsim.kernels.layout import (
    BEFORE,
    DEFERRED,
    DRAWN,
    GAUSSIAN,
    IDENTITY,
    ORTHOGONAL,
    POST,
    PRE,
    REFLECTED,
    STORED,
    Memory,
)


def _matrices(spec: Any) -> Iterator[tuple[bool, str]]:
    """How the matrices of a chain without gates act."""
    drawn, reflected, stored = spec.action == DRAWN, spec.action == REFLECTED, spec.action == STORED
    gaussian, several = spec.init == GAUSSIAN, spec.columns > 1
    one_forward, one_back = drawn and spec.batch == 1, drawn and not several
    yield one_forward and gaussian, "links.forward_gaussian links.forward_narrow_gaussian"
    yield one_forward and not gaussian, "links.forward_bounded links.forward_narrow_bounded"
    yield one_back and gaussian, "links.backward_gaussian"
    yield one_back and not gaussian, "links.backward_bounded"
    yield drawn and several, "links.multiply_drawn"
    yield reflected, "links.apply_q links.apply_q_transposed"
    yield reflected and several, "links.apply_q_columns links.apply_q_transposed_columns"
    yield stored, "links.combine links.transpose chain_ends.step_draw"
    yield stored and several, "links.apply_kept"
    yield stored and gaussian, "links.rows_gaussian"
    yield stored and spec.init == ORTHOGONAL, "links.build_q"
    yield stored and not gaussian and spec.init != ORTHOGONAL, "links.rows_bounded"
    asks = spec.action == DEFERRED
    yield asks, "asked.ask_forward asked.ask_back"
    yield asks and gaussian, "links.ask_gaussian"
    yield asks and not gaussian, "links.ask_haar"
    yield bool(spec.asks_blocks), "asked.ask_block_forward asked.ask_block_back"
    yield bool(spec.asks_blocks), "links.ask_block links.ask_block_back"


def _passes(spec: Any) -> Iterator[tuple[bool, str]]:
    """What a layer of a chain without gates does beside its matrix."""
    branches = bool(spec.skip or spec.drops or spec.norm_position > BEFORE)
    yield bool(spec.norm), "links.norm_forward links.norm_backward local_gradient.drop_cancelled"
    yield spec.norm_position == PRE, "layer_ends.norm_input"
    yield branches, "layer_ends.finish_branch local_gradient.undo_branch"
    yield bool(spec.drops), "links.drop"
    yield bool(spec.skip), "links.add_vectors layer_ends.join_branches"
    yield bool(spec.skip) or spec.norm_position == POST, "layer_ends.begin_step"
    yield bool(spec.unmixed), "links.note_lost layer_ends.bound_lost"
    yield bool(spec.forgives), "layer_ends.bound_blur"
    probes = spec.probes > 1
    yield probes, "links.record_probes links.column_square links.nonzero_rows links.write_spectrum"
    yield probes, "local_gradient.shed_slopes"
    tied = bool(spec.tied_gradient)
    yield bool(spec.wants_weight) and spec.batch > 1 and not tied, "weight_gradient.log_product_norm"
    yield tied and spec.batch == 1, "tied_gradient.add_outer"
    yield tied and spec.batch > 1, "tied_gradient.add_product"
    yield tied and probes, "tied_gradient.first_column"


def _gates(spec: Any) -> Iterator[tuple[bool, str]]:
    """Chains with gates."""
    lstm, asks = bool(spec.lstm), bool(spec.deferred)
    yield lstm, "gated_cells.lstm_forward gated_cells.lstm_backward"
    yield not lstm, "gated_cells.gru_forward gated_cells.gru_backward"
    yield asks and spec.init == GAUSSIAN, "links.ask_gaussian"
    yield asks and spec.init == ORTHOGONAL, "links.ask_haar"
    yield not asks, "gated_products.forward_product gated_products.backward_product"
    drawn = not asks and spec.init != IDENTITY
    yield drawn and spec.init == ORTHOGONAL, "orthogonal.build_q"
    yield drawn and spec.init == GAUSSIAN, "draws.rows_gaussian"
    yield drawn and spec.init not in (ORTHOGONAL, GAUSSIAN), "draws.rows_bounded"
    yield spec.probes > 1, "gated_recording.record_probes gated_products.take_first probes.write_spectrum"
    yield bool(spec.wants_weight), "gated_products.add_outer"
    yield bool(spec.unmixed), "gated_recording.let_go gated_recording.falls_out gated_recording.grow_lost"


# What functions that are left out return, where that is not nothing and no signature says it.
RETURNS = {
    "gated_recording.falls_out": "False",
    "gated_recording.record_probes": "0.0",
    "gated_products.take_first": "0",
}


def _uses(one: Any) -> tuple[tuple[bool, str], ...]:
    """For chains with this memory: whether they call some functions, and their names."""
    if isinstance(one, Memory):
        return (*_matrices(one.spec), *_passes(one.spec))
    return tuple(_gates(one.spec)) if isinstance(one, GatedMemory) else ()


def optional(one: Any) -> frozenset[str]:
    """Names of all functions that may be left out of a kernel that works in such memory."""
    return frozenset(name for _, names in _uses(one) for name in names.split())


def left_out(one: Any) -> frozenset[str]:
    """Names of functions that chains with this memory never call."""
    return optional(one) - {name for used, names in _uses(one) if used for name in names.split()}
