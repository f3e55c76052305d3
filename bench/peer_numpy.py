"""NumPy on the work of a case: bit generators, fresh and reused memory, one chain at a time and batches."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.cases import LINEAR, RECURRENT, Case, Make
from gradsim.numpy_peer import Draw, chain_norms, on_sphere
from gradsim.timing import Work

#: What the others' expected times are relative to: what is written without thinking of speed.
PLAIN = "numpy loop PCG64"


def variants(case: Case) -> dict[str, Make]:
    """Ways to do the work, by name."""
    made = {PLAIN: _loop(case, np.random.PCG64, reuse=False)}
    for bits in (np.random.PCG64, np.random.SFC64, np.random.Philox):
        made[f"numpy loop {bits.__name__} out="] = _loop(case, bits, reuse=True)
    batch = case.batches[0]
    made[f"numpy batch {batch} SFC64 out="] = _batched(case, np.random.SFC64, batch)
    return made


def plain(case: Case) -> Make:
    """Linear backward at this width, plainly written."""
    return _loop(Case(LINEAR, case.width, case.depth, case.batches, (), {}), np.random.PCG64, reuse=False)


def reusing(generator: np.random.Generator, buffers: int) -> Draw:
    """Draws matrices into so many buffers by turns."""
    kept: list[Any] = []
    drawn = 0

    def draw(shape: tuple[int, ...]) -> Any:
        nonlocal drawn
        if len(kept) < buffers:
            kept.append(np.empty(shape, np.float32))
        target = kept[drawn % buffers]
        drawn += 1
        generator.standard_normal(dtype=np.float32, out=target)
        return target

    return draw


def _loop(case: Case, bits: Any, reuse: bool) -> Make:
    """One chain after the other; weights are kept for the backward pass where there is a forward one."""
    forward = case.kind != LINEAR
    buffers = case.depth if forward and case.kind != RECURRENT else 1

    def make(chains: int) -> Work:
        generator = np.random.Generator(bits())
        draw = reusing(generator, buffers) if reuse else None
        chain = case.chain

        def run() -> Any:
            norms = [chain_norms(chain, "float32", generator, forward, draw) for _ in range(chains)]
            return np.array(norms)

        return Work(run, chains * case.weights)

    return make


def _batched(case: Case, bits: Any, batch: int) -> Make:
    """Batches of chains, np.matmul over the stack of their matrices."""
    n, depth, scale = case.width, case.depth, np.float32(case.scale)
    forward, tied = case.kind != LINEAR, case.kind == RECURRENT

    def make(batches: int) -> Work:
        generator = np.random.Generator(bits())
        draw = reusing(generator, depth if forward and not tied else 1)
        shape = (batch, n, n)

        def one() -> Any:
            slopes: list[Any] = []
            matrices: list[Any] = []
            if forward:
                h = generator.standard_normal((batch, n), dtype=np.float32)
                for layer in range(depth):
                    w = matrices[0] if tied and layer else draw(shape)
                    z = (w @ h[:, :, None])[:, :, 0]
                    z *= scale
                    h = np.maximum(z, np.float32(0))
                    slopes.append(z > 0)
                    matrices.append(w)
            g = on_sphere(generator, (batch, n), "float32")
            norms = [np.linalg.norm(g, axis=1)]
            for layer in range(depth - 1, -1, -1):
                d = g * slopes[layer] if forward else g
                w = matrices[layer] if forward else draw(shape)
                g = (d[:, None, :] @ w)[:, 0]
                g *= scale
                norms.append(np.linalg.norm(g, axis=1))
            return np.log(np.array(norms[::-1]).T)

        return Work(lambda: np.concatenate([one() for _ in range(batches)]), batches * batch * case.weights)

    return make
