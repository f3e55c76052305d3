"""The CPU engine of chains without gates: forward and backward, in a loop that can stop anywhere.

One call of `advance` works through a piece of a cell until its budget of weights is spent, then returns, so that the
caller hears a signal at least once a second even in a chain that takes minutes; `progress` says where to go on. A
feedforward chain regenerates each matrix from its key; a tied one draws its matrix once and keeps it. The deferred
engine is this one as well: its matrices are asked where others are multiplied (see `actions`).

Vectors live as x 2^e (see `vectors`); logarithms are taken in float64. For the homogeneous activations this is exact
at any scale; the others work on the true value, except where it is so small that they are linear to rounding. A layer
of several columns, a batch or probes, is one block n x columns.
"""

from __future__ import annotations

import math

from .actions import (
    backward_cost,
    backward_part,
    begin_backward,
    begin_forward,
    forward_cost,
    forward_part,
    point_at_weights,
)
from .chain_ends import step_close, step_draw, step_start, step_turn
from .compiling import kernel, part
from .layer_ends import begin_layer, begin_step, branch_input, end_backward, end_forward
from .layout import (
    BACKWARD,
    DRAW,
    FORWARD,
    POST,
    START,
    TURN,
)
from .local_gradient import is_blurred, take_slopes
from .tied_gradient import add_step
from .walk import LAYER_COST, close, enter, next_units, unit_cost
from .weight_gradient import note_weight_gradient


@part
def step_forward(m, cell, chain, out, budget):
    """Part of one layer's forward pass; returns its cost."""
    spec, layers, progress = m.spec, m.layers, m.progress
    layer = progress.layer
    rows, columns = layers[layer].width, layers[layer - 1].width
    x = m.rows[branch_input(spec)]
    if progress.unit == 0:
        begin_layer(m, layer)
        progress.units = begin_forward(m, x, layer, rows, columns)
    cost = forward_cost(m, layer, rows, columns)
    first, last = next_units(progress, cost, budget)
    point_at_weights(m, cell, chain, layer, False)
    forward_part(m, x, layer, rows, columns, first, last)
    if last == progress.units:
        end_forward(m, cell, chain, out, layer)
        if layer < spec.depth:
            enter(progress, FORWARD, layer + 1)
        else:
            enter(progress, TURN, layer)
    return (last - first) * cost + unit_cost(spec.batch, rows) + LAYER_COST


@part
def step_backward(m, cell, chain, out, budget):
    """Part of one layer's backward pass; returns its cost."""
    spec, layers, progress = m.spec, m.layers, m.progress
    layer = progress.layer
    rows, columns = layers[layer].width, layers[layer - 1].width
    ended = False
    if progress.unit == 0:
        if spec.skip or spec.norm_position == POST:
            begin_step(m, layer)
        log_d = take_slopes(m, cell, chain, layer)
        ended = (math.isnan(log_d) and not is_blurred(m, layer)) or (log_d == -math.inf and not spec.skip)
        if ended:
            close(progress, layer + 1, log_d)
        else:
            if spec.wants_weight:
                note_weight_gradient(m, out, layer, log_d)
            progress.units = begin_backward(m, layer, rows, columns)
    if ended:
        return rows
    cost = backward_cost(m, layer, rows, columns)
    first, last = next_units(progress, cost, budget)
    point_at_weights(m, cell, chain, layer, True)
    backward_part(m, layer, rows, columns, first, last)
    if last == progress.units:
        if spec.tied_gradient:
            add_step(m, layer)
        end_backward(m, out, layer)
    outer = rows * columns // 8 if spec.tied_gradient else 0
    return (last - first) * cost + unit_cost(spec.columns, columns) + outer + LAYER_COST


@kernel
def advance(m, cell, first_chain, count, out, spectra, budget):
    """Work through chains first_chain .. first_chain + count - 1 until they are done or the budget is spent.

    `out` is (4, count, L + 1) float32, `spectra` (count, probes) float32; `budget` counts weights (about a nanosecond
    each in float32). Returns True when the piece is complete. What was not asked for is left without meaning.
    """
    progress = m.progress
    while progress.chain < count and budget > 0:
        chain = first_chain + progress.chain
        if progress.phase == FORWARD:
            budget -= step_forward(m, cell, chain, out, budget)
        elif progress.phase == BACKWARD:
            budget -= step_backward(m, cell, chain, out, budget)
        elif progress.phase == DRAW:
            budget -= step_draw(m, cell, chain, budget)
        elif progress.phase == START:
            step_start(m, cell, chain, out)
            budget -= unit_cost(m.spec.batch, m.layers[0].width)
        elif progress.phase == TURN:
            step_turn(m, cell, chain, out)
        else:
            step_close(m, out, spectra)
    return progress.chain == count
