"""What is written down of a vector as soon as it is there: norms of h_l, and of g_l after it was clipped."""

from __future__ import annotations

import math

from .bits import keep_out_of_line
from .compiling import kernel
from .layout import ACTIVATION, GRAD, GRAD_MAX
from .probes import orthonormalise
from .team import each, max_over
from .vectors import LN2, clear, normalise, scale


@kernel
def record_state(spec, layers, progress, h, out, layer):
    """Normalise h_l and write down its norm."""
    keep_out_of_line()
    size = layers[layer].width * spec.batch
    e, _, log_norm = normalise(h, size, progress.h_exponent)
    clear(h, size)
    progress.h_exponent = e
    progress.log_h = log_norm
    out[ACTIVATION, progress.chain, layer] = log_norm


@kernel
def clamp(g, n, log_bound):
    """Hold all |g_i| to exp(log_bound); returns the power of two that g is to be multiplied by afterwards."""
    keep_out_of_line()
    power = math.floor(log_bound / LN2)
    bound = math.exp(log_bound - power * LN2)
    for i in each(n):
        g[i] = math.copysign(min(math.ldexp(abs(float(g[i])), -power), bound), g[i])
    return power


@kernel
def record_gradient(spec, layers, progress, g, out, layer):
    """Normalise and clip g_l, write down its norm and largest entry; returns ln ||g_l|| as held."""
    keep_out_of_line()
    size = layers[layer].width * spec.columns
    e, largest, log_norm = normalise(g, size, progress.g_exponent)
    clear(g, size)
    log_max = -math.inf
    if largest != 0.0 and (spec.wants_maximum or spec.log_clip_value < math.inf):
        log_max = math.log(largest) + e * LN2
    if log_max + progress.g_offset > spec.log_clip_value:
        e += clamp(g, size, spec.log_clip_value - progress.g_offset - e * LN2)
        e, largest, log_norm = normalise(g, size, e)
        log_max = math.log(largest) + e * LN2
    over = log_norm + progress.g_offset - spec.log_clip
    if over > 0.0:
        power = math.floor(-over / LN2)
        scale(g, size, math.exp(-over - power * LN2))
        e += power
        log_norm -= over
        log_max -= over
    progress.g_exponent = e
    out[GRAD, progress.chain, layer] = log_norm + progress.g_offset
    out[GRAD_MAX, progress.chain, layer] = log_max + progress.g_offset
    return log_norm


@kernel
def record_probes(spec, layers, progress, g, spare, logs, first, out, layer):
    """Make the probes orthonormal and write down the first; returns ln ||g_l|| of it."""
    keep_out_of_line()
    n, k = layers[layer].width, spec.probes
    clear(g, n * k)
    if first:
        for p in range(k):
            logs[0, p] = 0.0
    orthonormalise(g, n, k, progress.g_exponent, progress.rank, logs[0], logs[1], spare)
    if first:
        for p in range(k):
            logs[0, p] = 0.0
    largest = 0.0
    for i in each(n):
        largest = max(largest, abs(float(g[i * k])))
    largest = max_over(largest)
    progress.g_exponent = 0
    progress.rank = n
    out[GRAD, progress.chain, layer] = logs[0, 0]
    out[GRAD_MAX, progress.chain, layer] = math.log(largest) + logs[0, 0] if largest > 0.0 else logs[0, 0]
    return logs[0, 0]
