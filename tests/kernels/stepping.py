"""A chain of the deferred engine, stopped after every step: its vectors, and what its matrices were asked."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from gradsim.kernels import dense, directions, gated, gated_layout, layout, reference
from gradsim.kernels.keys import cell_key


class Asked(NamedTuple):
    """What one matrix was asked, float64: queries u_i with answers W u_i, and v_j with W^T v_j, as rows."""

    queries: np.ndarray
    answers: np.ndarray
    back_queries: np.ndarray
    back_answers: np.ndarray


def stepped(chain, seed, index, dtype="float64"):
    """The engine's memory after each step of one chain, and at the end."""
    cell = np.array(cell_key(seed, chain.canonical()), np.uint32)
    kernel, make, rows = dense.advance, layout.make_memory, layout.QUANTITY_ROWS
    if chain.gates > 1:
        kernel, make, rows = gated.advance_gated, gated_layout.make_gated_memory, gated_layout.GATED_ROWS
    memory = make(chain, chain.quantities, dtype, "deferred")
    out = np.empty((len(rows), 1, chain.depth + 1), np.float32)
    spectra = np.empty((1, chain.probes), np.float32)
    complete = False
    while not complete:
        complete = kernel(memory, cell, index, 1, out, spectra, 1)
        yield memory


def vectors(chain, seed, index, dtype="float64"):
    """h_l and g_l, l = 0 .. L, by the general engine: each (n_l,), with a batch (n_l, B)."""
    cell = cell_key(seed, chain.canonical())
    h, g = {}, {}

    def taken(row, layer, exponent):
        n = chain.widths[layer]
        block = np.ldexp(row[: n * chain.batch].astype(float), int(exponent))
        return block.reshape(n, chain.batch) if chain.batch > 1 else block

    for memory in stepped(chain, seed, index, dtype):
        progress, layer = memory.progress, memory.progress.layer
        if progress.unit > 0:
            continue
        if progress.phase == layout.FORWARD:
            h[layer - 1] = taken(memory.rows[layout.H], layer - 1, progress.h_exponent)
        elif progress.phase == layout.TURN:
            h[chain.depth] = taken(memory.rows[layout.H], chain.depth, progress.h_exponent)
        elif progress.phase in (layout.BACKWARD, layout.CLOSE):
            own = layer if progress.phase == layout.BACKWARD else layer - 1
            g[own] = math.exp(progress.g_offset) * taken(memory.rows[layout.G], own, progress.g_exponent)
    # A call never stops between g_L and the step below it.
    top = h[chain.depth].reshape(chain.widths[-1], chain.batch)
    g[chain.depth] = reference.output_gradient(chain, cell, index, top).reshape(h[chain.depth].shape)
    return [h[layer] for layer in sorted(h)], [g[layer] for layer in sorted(g)]


def direction_vectors(chain, seed, index, dtype="float64"):
    """The same of a plain chain by its own kernel, which never writes them down."""
    cell = np.array(cell_key(seed, chain.canonical()), np.uint32)
    # Not the largest entry, for which x would become g_l.
    quantities = ("log_grad_norm", "log_activation_norm")
    memory = directions.make_directions(chain, quantities, dtype, "deferred")
    out = np.empty((4, 1, chain.depth + 1), np.float32)
    memory.spec.ahead = 1  # the state of each layer is looked at
    g, complete = {}, False

    def bent(layer):
        xi = memory.answers[layer, : chain.widths[layer]].astype(float)
        return xi if layer == 0 else np.where(xi > 0, xi, memory.spec.slope * xi)

    while not complete:
        complete = directions.advance_directions(memory, cell, index, 1, out, np.empty((1, 1), np.float32), 1)
        progress = memory.progress
        if progress.phase in (layout.BACKWARD, layout.CLOSE):
            x = memory.fresh[0, : chain.widths[progress.layer]].astype(float)
            w = x + progress.coefficient * bent(progress.layer)
            g[progress.layer] = math.sqrt(math.ldexp(progress.square, int(progress.power))) * w
    h = [math.exp(own["log_h"]) / own["length"] * bent(layer) for layer, own in enumerate(memory.layers)]
    g[chain.depth] = reference.output_gradient(chain, cell_key(seed, chain.canonical()), index, h[-1][:, np.newaxis])[
        :, 0
    ]
    return h, [g[layer] for layer in sorted(g)]


def asked(memory, chain):
    """What the one matrix of a tied chain was asked in all; of gates, all of them together."""
    if chain.gates > 1:
        forward, back, rows = memory.asked[0], memory.asked_back[0], chain.gates * chain.width
    else:
        forward, back, rows = memory.layers[0]["asked"], memory.layers[0]["asked_back"], chain.width
    return Asked(
        memory.queries[:forward, : chain.width].astype(float),
        memory.answers[:forward, :rows].astype(float),
        memory.back_queries[:back, :rows].astype(float),
        memory.back_answers[:back, : chain.width].astype(float),
    )
