"""JAX on the work of a case, on the CPU: jitted whole, over batches and chain by chain, with each of its generators."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.cases import LINEAR, RECURRENT, Case, Make
from gradsim.timing import Work

#: From a key to ln||g_l||, shape (L + 1,), of one chain.
OneChain = Callable[[Any], Any]


def variants(case: Case) -> dict[str, Make]:
    """Ways to do the work, by name."""
    small, big = case.batches[0], case.batches[-1]
    if case.kind == LINEAR:
        scan, second, label = _linear_scan(case), _linear_fori(case), "fori"
    else:
        scan, second, label = _manual_scan(case), _vjp(case), "vjp"
    made = {"jax loop scan": _make(case, scan, 0, "threefry2x32")}
    for batch in case.batches:
        made[f"jax vmap {batch} scan"] = _make(case, scan, batch, "threefry2x32")
    made[f"jax vmap {small} {label}"] = _make(case, second, small, "threefry2x32")
    made[f"jax map {big} scan"] = _make(case, scan, big, "threefry2x32", mapped=True)
    made["jax loop scan rbg"] = _make(case, scan, 0, "rbg")
    made[f"jax vmap {small} scan unsafe_rbg"] = _make(case, scan, small, "unsafe_rbg")
    if case.kind not in (LINEAR, RECURRENT):
        made[f"jax vmap {small} redraw"] = _make(case, _manual_scan(case, redraws=True), small, "threefry2x32")
    return made


def _make(case: Case, chain: OneChain, batch: int, generator: str, mapped: bool = False) -> Make:
    """Jit a chain: one at a time where `batch` is 0, else a batch through vmap, or through lax.map."""
    import jax

    if batch == 0:
        jitted = jax.jit(chain)
    elif mapped:
        jitted = jax.jit(lambda keys: jax.lax.map(chain, keys))
    else:
        jitted = jax.jit(jax.vmap(chain))
    seeds = itertools.count()

    def make(batches: int) -> Work:
        def run() -> Any:
            key = jax.random.key(next(seeds), impl=generator)
            keys = jax.random.split(key, (batches, max(batch, 1)))
            logs = [jitted(keys[i, 0] if batch == 0 else keys[i]) for i in range(batches)]
            return np.concatenate([np.atleast_2d(np.asarray(log)) for log in logs])

        return Work(run, batches * max(batch, 1) * case.weights)

    return make


def _start(key: Any, n: int) -> tuple[Any, Any]:
    """h_0 and a g_L on the unit sphere."""
    import jax
    import jax.numpy as jnp

    x = jax.random.normal(key, (2, n))
    return x[0], x[1] / jnp.linalg.norm(x[1])


def _logs(top: Any, norms: Any) -> Any:
    """ln||g_l||, l = 0..L, from the norms of layers L - 1 .. 0."""
    import jax.numpy as jnp

    return jnp.log(jnp.concatenate([norms[::-1], jnp.linalg.norm(top)[None]]))


def _linear_scan(case: Case) -> OneChain:
    import jax
    import jax.numpy as jnp

    n, scale = case.width, case.scale

    def chain(key: Any) -> Any:
        first, rest = jax.random.split(key)
        _, top = _start(first, n)

        def step(g: Any, own: Any) -> tuple[Any, Any]:
            g = (g @ jax.random.normal(own, (n, n))) * scale
            return g, jnp.linalg.norm(g)

        _, norms = jax.lax.scan(step, top, jax.random.split(rest, case.depth))
        return _logs(top, norms)

    return chain


def _linear_fori(case: Case) -> OneChain:
    import jax
    import jax.numpy as jnp

    n, depth, scale = case.width, case.depth, case.scale

    def chain(key: Any) -> Any:
        first, rest = jax.random.split(key)
        _, top = _start(first, n)

        def step(layer: Any, carry: Any) -> Any:
            g, norms = carry
            g = (g @ jax.random.normal(jax.random.fold_in(rest, layer), (n, n))) * scale
            return g, norms.at[layer].set(jnp.linalg.norm(g))

        _, norms = jax.lax.fori_loop(0, depth, step, (top, jnp.zeros(depth)))
        return _logs(top, norms)

    return chain


def _weights(case: Case, key: Any) -> tuple[Any, Any]:
    """What a scan over layers goes through, and how a step makes its matrix of it."""
    import jax

    n = case.width
    if case.kind == RECURRENT:
        w = jax.random.normal(key, (n, n))
        return None, lambda _: w
    return jax.random.split(key, case.depth), lambda own: jax.random.normal(own, (n, n))


def _manual_scan(case: Case, redraws: bool = False) -> OneChain:
    """Forward and backward written out; the scan keeps what the backward pass needs, matrices or what draws them."""
    import jax
    import jax.numpy as jnp

    n, depth, scale = case.width, case.depth, case.scale
    redraws = redraws or case.kind == RECURRENT  # there the one matrix is at hand

    def chain(key: Any) -> Any:
        first, rest = jax.random.split(key)
        h, top = _start(first, n)
        keys, matrix = _weights(case, rest)

        def forward(h: Any, own: Any) -> tuple[Any, Any]:
            w = matrix(own)
            z = (w @ h) * scale
            return jax.nn.relu(z), (z > 0, own if redraws else w)

        def backward(g: Any, kept: Any) -> tuple[Any, Any]:
            slope, w = kept
            g = ((g * slope) @ (matrix(w) if redraws else w)) * scale
            return g, jnp.linalg.norm(g)

        _, kept = jax.lax.scan(forward, h, keys, length=depth)
        _, norms = jax.lax.scan(backward, top, kept, reverse=True)
        return _logs(top, norms[::-1])

    return chain


def _vjp(case: Case) -> OneChain:
    """Backward left to jax.vjp: a dummy added to each h_l receives g_l."""
    import jax
    import jax.numpy as jnp

    n, depth, scale = case.width, case.depth, case.scale

    def chain(key: Any) -> Any:
        first, rest = jax.random.split(key)
        h, top = _start(first, n)
        keys, matrix = _weights(case, rest)

        def network(dummies: Any) -> Any:
            def step(h: Any, own: Any) -> tuple[Any, None]:
                dummy, key = own
                return jax.nn.relu((matrix(key) @ (h + dummy)) * scale), None

            return jax.lax.scan(step, h, (dummies, keys))[0]

        _, pull = jax.vjp(network, jnp.zeros((depth, n)))
        (gradients,) = pull(top)
        return _logs(top, jnp.linalg.norm(gradients, axis=1)[::-1])

    return chain
