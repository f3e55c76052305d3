"""NumPy, torch and JAX on a batch through normalised layers: one draw of W for all inputs, batch norm before ReLU.

Every way keeps the matrices it drew for the pass back; the floor is one draw of each matrix
and the two products with it, nothing else.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.cases import Case, Make
from gradsim.timing import Work

#: Does one chain: returns ln||g_l||, shape (L + 1,).
Chain = Callable[[], Any]


def variants(case: Case) -> dict[str, Make]:
    """Ways to do the work, by name."""
    chains = {
        "numpy batch": _numpy(case),
        "torch autograd": _torch_autograd(case, fresh=False),
        "torch autograd randn": _torch_autograd(case, fresh=True),
        "torch manual": _torch_manual(case, columns=False),
        "torch manual columns": _torch_manual(case, columns=True),
        "jax vjp": _jax(case),
    }
    return {name: _make(case, chain) for name, chain in chains.items()}


def floor(case: Case) -> Make:
    """One draw of every matrix by our kernel, and two products with it by BLAS."""
    from gradsim.kernels import draws

    n, batch = case.width, case.chain.batch
    q = (n + 3) // 4
    w, spare = np.empty((n, n), np.float32), np.empty(2 * n, np.float32)
    x, z = np.ones((n, batch), np.float32), np.empty((n, batch), np.float32)
    key = np.zeros(4, np.uint32)

    def make(chains: int) -> Work:
        def run() -> None:
            for index in range(chains * case.depth):
                key[0] = index
                draws.rows_gaussian(key, False, 0, q, w, 0, q, n, spare, n)
                np.dot(w, x, z)
                np.dot(w.T, x, z)

        return Work(run, chains * case.weights)

    return make


def _make(case: Case, chain: Chain) -> Make:
    def make(chains: int) -> Work:
        def run() -> Any:
            return np.stack([np.asarray(chain()) for _ in range(chains)])

        return Work(run, chains * case.weights)

    return make


def _numpy(case: Case) -> Chain:
    """Units by batch; matrices drawn once and kept."""
    n, batch, depth, scale = case.width, case.chain.batch, case.depth, np.float32(case.scale)
    generator = np.random.Generator(np.random.SFC64(0))
    matrices = np.empty((depth, n, n), np.float32)

    def one() -> Any:
        h = generator.standard_normal((n, batch), np.float32)
        kept = []
        for w in matrices:
            generator.standard_normal(out=w, dtype=np.float32)
            z = w @ h
            z *= scale
            z -= z.mean(axis=1, keepdims=True)
            inverse = 1 / np.sqrt((z * z).mean(axis=1, keepdims=True))
            z *= inverse
            h = np.maximum(z, 0)
            kept.append((z, inverse))
        g = generator.standard_normal((n, batch), np.float32)
        g /= np.linalg.norm(g)
        norms = [np.linalg.norm(g)]
        for w, (y, inverse) in zip(matrices[::-1], kept[::-1], strict=True):
            d = np.where(y > 0, g, 0)
            d -= d.mean(axis=1, keepdims=True) + y * (d * y).mean(axis=1, keepdims=True)
            d *= inverse * scale
            g = w.T @ d
            norms.append(np.linalg.norm(g))
        return np.log(norms[::-1])

    return one


def _torch_autograd(case: Case, fresh: bool) -> Chain:
    """Inputs by units, the way back left to autograd; matrices into new memory or into buffers that are kept."""
    import torch
    from torch.nn import functional

    n, batch, depth, scale = case.width, case.chain.batch, case.depth, case.scale
    buffers = torch.empty(depth, n, n)

    def one() -> Any:
        with torch.no_grad():
            matrices = [torch.randn(n, n) for _ in range(depth)] if fresh else list(buffers.normal_())
        h = torch.randn(batch, n, requires_grad=True)
        states = [h]
        for w in matrices:
            z = (h @ w.T) * scale
            h = functional.batch_norm(z, None, None, training=True, eps=1e-12).relu()
            states.append(h)
        top = torch.randn(batch, n)
        top /= top.norm()
        gradients = torch.autograd.grad(h, states[:-1], top)
        return torch.stack([g.norm() for g in (*gradients, top)]).log()

    return one


def _torch_manual(case: Case, columns: bool) -> Chain:
    """The way back written out; inputs as rows or as columns."""
    import torch

    n, batch, depth, scale = case.width, case.chain.batch, case.depth, case.scale
    buffers = torch.empty(depth, n, n)
    axis = 1 if columns else 0
    shape = (n, batch) if columns else (batch, n)

    @torch.inference_mode()
    def one() -> Any:
        buffers.normal_()
        h = torch.randn(shape)
        kept = []
        for w in buffers:
            z = (w @ h if columns else h @ w.T).mul_(scale)
            variance, mean = torch.var_mean(z, dim=axis, correction=0, keepdim=True)
            inverse = variance.rsqrt_()
            y = z.sub_(mean).mul_(inverse)
            h = y.relu()
            kept.append((y, inverse))
        g = torch.randn(shape)
        g /= g.norm()
        norms = [g.norm()]
        for w, (y, inverse) in zip(reversed(buffers), reversed(kept), strict=True):
            d = g * (y > 0)
            d -= d.mean(dim=axis, keepdim=True) + y * (d * y).mean(dim=axis, keepdim=True)
            d *= inverse * scale
            g = w.T @ d if columns else d @ w
            norms.append(g.norm())
        return torch.stack(norms[::-1]).log()

    return one


def _jax(case: Case) -> Chain:
    """A scan over layers, its way back by jax.vjp: a dummy added to each h_l receives g_l."""
    import jax
    import jax.numpy as jnp

    n, batch, depth, scale = case.width, case.chain.batch, case.depth, case.scale

    def whole(key: Any) -> Any:
        first, second, rest = jax.random.split(key, 3)
        h0 = jax.random.normal(first, (n, batch))
        top = jax.random.normal(second, (n, batch))
        top = top / jnp.linalg.norm(top)
        matrices = jax.random.normal(rest, (depth, n, n))

        def network(dummies: Any) -> Any:
            def step(h: Any, own: Any) -> tuple[Any, None]:
                dummy, w = own
                z = (w @ (h + dummy)) * scale
                z = z - z.mean(axis=1, keepdims=True)
                z = z / jnp.sqrt((z * z).mean(axis=1, keepdims=True))
                return jax.nn.relu(z), None

            return jax.lax.scan(step, h0, (dummies, matrices))[0]

        _, pull = jax.vjp(network, jnp.zeros((depth, n, batch)))
        (gradients,) = pull(top)
        norms = jnp.sqrt((gradients**2).sum(axis=(1, 2)))
        return jnp.log(jnp.concatenate([norms, jnp.ones(1)]))

    jitted = jax.jit(whole)
    seeds = itertools.count()
    return lambda: np.asarray(jitted(jax.random.key(next(seeds))))
