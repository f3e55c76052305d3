"""NumPy, torch and JAX on LSTM chains: the gates' matrices drawn once a chain, forward and backward.

Each in the ways that a user after speed would try: one fused product for the four gates, chain by chain and for
batches, backward by automatic differentiation and written out. Written out, all that the way back needs is worked out
for all steps at once, so that a step back is a product and four multiplications. g_l is dLoss/dh_l with c_l held,
gates stand as i, f, g, o.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.cases import Case, Make
from gradsim.timing import Work

#: Does one batch: returns ln||g_l||, shape (batch, L + 1).
Batch = Callable[[], Any]


def variants(case: Case) -> dict[str, Make]:
    """Ways to do the work, by name."""
    torch = {name: _make(case, *way) for name, way in _torch_ways(case).items()}
    return {**numpy_variants(case), **torch, **_jax_ways(case)}


def numpy_variants(case: Case) -> dict[str, Make]:
    """Those of NumPy: plain loops, by the generator of their weights."""
    generators = (np.random.PCG64, np.random.SFC64)
    return {f"numpy loop {bits.__name__}": _make(case, 1, _numpy(case, bits)) for bits in generators}


def _make(case: Case, batch: int, one: Batch) -> Make:
    def make(batches: int) -> Work:
        def run() -> Any:
            return np.concatenate([np.asarray(one()) for _ in range(batches)])

        return Work(run, batches * batch * case.weights)

    return make


def _numpy(case: Case, bits: Any) -> Batch:
    n, depth, scale = case.width, case.depth, np.float32(case.scale)
    generator = np.random.Generator(bits())
    w = np.empty((4 * n, n), np.float32)
    gates, slopes = np.empty((depth, 4 * n), np.float32), np.empty((depth, 4, n), np.float32)
    cells, bent = np.zeros((depth + 1, n), np.float32), np.empty((depth, n), np.float32)

    def one() -> Any:
        generator.standard_normal(out=w, dtype=np.float32)
        np.multiply(w, scale, out=w)
        h = generator.standard_normal(n, dtype=np.float32)
        for step in range(depth):
            a = gates[step]
            np.matmul(w, h, out=a)
            # sigmoid x = (1 + tanh(x / 2)) / 2: one transcendental function for all gates.
            a[: 2 * n] *= np.float32(0.5)
            a[3 * n :] *= np.float32(0.5)
            np.tanh(a, out=a)
            for own in (a[: 2 * n], a[3 * n :]):
                own += np.float32(1)
                own *= np.float32(0.5)
            np.multiply(a[n : 2 * n], cells[step], out=cells[step + 1])
            cells[step + 1] += a[:n] * a[2 * n : 3 * n]
            np.tanh(cells[step + 1], out=bent[step])
            h = a[3 * n :] * bent[step]
        i, f, g, o = (gates[:, k * n : (k + 1) * n] for k in range(4))
        slopes[:, 0], slopes[:, 1] = g * i * (1 - i), cells[:-1] * f * (1 - f)
        slopes[:, 2], slopes[:, 3] = i * (1 - g * g), bent * o * (1 - o)
        through = o * (1 - bent * bent)
        grad = generator.standard_normal(n, dtype=np.float32)
        grad /= np.linalg.norm(grad)
        cell, d = np.zeros(n, np.float32), np.empty((4, n), np.float32)
        norms = [np.linalg.norm(grad)]
        for step in range(depth - 1, -1, -1):
            cell += grad * through[step]
            np.multiply(slopes[step, :3], cell, out=d[:3])
            np.multiply(slopes[step, 3], grad, out=d[3])
            grad = d.reshape(-1) @ w
            cell *= f[step]
            norms.append(np.linalg.norm(grad))
        return np.log(np.array([norms[::-1]]))

    return one


def _torch_ways(case: Case) -> dict[str, tuple[int, Batch]]:
    import torch

    from bench.peer_torch import compiles

    torch.set_num_threads(1)
    torch.manual_seed(0)
    ways: dict[str, tuple[int, Batch]] = {
        "torch loop": (1, _torch_manual(case, 1, compiled=False)),
        "torch autograd loop": (1, _torch_autograd(case, 1)),
        "torch autograd lstm_cell": (1, _torch_cell(case)),
    }
    for batch in case.batches:
        ways[f"torch bmm {batch}"] = (batch, _torch_manual(case, batch, compiled=False))
    small = case.batches[0]
    ways[f"torch autograd bmm {small}"] = (small, _torch_autograd(case, small))
    if compiles():
        ways["torch compile loop"] = (1, _torch_manual(case, 1, compiled=True))
    return ways


def _torch_gates(a: Any, c: Any) -> tuple[Any, Any, Any, Any]:
    """h' and c' of pre-activations (batch, 4, n), with the gates and tanh c'."""
    import torch

    squashed, g = torch.sigmoid(a), torch.tanh(a[:, 2])
    c = torch.addcmul(squashed[:, 1] * c, squashed[:, 0], g)
    bent = torch.tanh(c)
    squashed[:, 2] = g
    return squashed[:, 3] * bent, c, squashed, bent


def _torch_manual(case: Case, batch: int, compiled: bool) -> Batch:
    import torch

    n, depth, scale = case.width, case.depth, case.scale
    w = torch.empty(batch, 4 * n, n)
    gates = torch.compile(_torch_gates, dynamic=False) if compiled else _torch_gates

    def times(h: Any) -> Any:
        return (w[0] @ h[0]).unsqueeze(0) if batch == 1 else torch.bmm(w, h.unsqueeze(2)).squeeze(2)

    def back(d: Any) -> Any:
        return (d[0] @ w[0]).unsqueeze(0) if batch == 1 else torch.bmm(d.unsqueeze(1), w).squeeze(1)

    @torch.inference_mode()
    def one() -> Any:
        w.normal_(0.0, scale)
        h, c = torch.randn(batch, n), torch.zeros(batch, n)
        all_gates, cells, bents = [], [c], []
        for _ in range(depth):
            h, c, own, bent = gates(times(h).view(batch, 4, n), c)
            all_gates.append(own)
            cells.append(c)
            bents.append(bent)
        stacked, bent = torch.stack(all_gates), torch.stack(bents)
        i, f, g, o = stacked.unbind(2)
        slopes = torch.stack([g * i * (1 - i), torch.stack(cells[:-1]) * f * (1 - f), i * (1 - g * g)], 2)
        output, through = bent * o * (1 - o), o * (1 - bent * bent)
        grad, cell = torch.randn(batch, n), torch.zeros(batch, n)
        grad /= grad.norm(dim=1, keepdim=True)
        d = torch.empty(batch, 4, n)
        grads = [grad]
        for inner, last, direct, kept in zip(*(x.flip(0) for x in (slopes, output, through, f)), strict=True):
            cell = torch.addcmul(cell, grad, direct)
            torch.mul(inner, cell.unsqueeze(1), out=d[:, :3])
            torch.mul(last, grad, out=d[:, 3])
            grad = back(d.view(batch, 4 * n))
            cell = cell * kept
            grads.append(grad)
        return torch.stack(grads[::-1], 1).norm(dim=2).log()

    return one


def _torch_autograd(case: Case, batch: int) -> Batch:
    """Forward written out, backward left to autograd."""
    import torch

    n, depth, scale = case.width, case.depth, case.scale
    w = torch.empty(batch, 4 * n, n)

    def one() -> Any:
        with torch.no_grad():
            w.normal_(0.0, scale)
        h, c = torch.randn(batch, n, requires_grad=True), torch.zeros(batch, n)
        states = [h]
        for _ in range(depth):
            a = (w[0] @ h[0]).unsqueeze(0) if batch == 1 else torch.bmm(w, h.unsqueeze(2)).squeeze(2)
            i, f, g, o = a.view(batch, 4, n).unbind(1)
            c = torch.addcmul(torch.sigmoid(f) * c, torch.sigmoid(i), torch.tanh(g))
            h = torch.sigmoid(o) * torch.tanh(c)
            states.append(h)
        return _torch_norms(states, batch, n)

    return one


def _torch_cell(case: Case) -> Batch:
    """torch's own cell, without input, backward left to autograd."""
    import torch

    n, depth, scale = case.width, case.depth, case.scale
    w, x, of_x = torch.empty(4 * n, n), torch.zeros(1, 1), torch.zeros(4 * n, 1)

    def one() -> Any:
        with torch.no_grad():
            w.normal_(0.0, scale)
        h, c = torch.randn(1, n, requires_grad=True), torch.zeros(1, n)
        states = [h]
        for _ in range(depth):
            h, c = torch.lstm_cell(x, (h, c), of_x, w)
            states.append(h)
        return _torch_norms(states, 1, n)

    return one


def _torch_norms(states: list[Any], batch: int, n: int) -> Any:
    import torch

    top = torch.randn(batch, n)
    top /= top.norm(dim=1, keepdim=True)
    gradients = torch.autograd.grad(states[-1], states[:-1], top)
    return torch.stack([*gradients, top], 1).norm(dim=2).log()


def _jax_ways(case: Case) -> dict[str, Make]:
    small, big = case.batches[0], case.batches[-1]
    manual, vjp = _jax_manual(case), _jax_vjp(case)
    return {
        "jax loop scan": _jax_make(case, manual, 0, "threefry2x32"),
        "jax loop vjp": _jax_make(case, vjp, 0, "threefry2x32"),
        "jax loop scan rbg": _jax_make(case, manual, 0, "rbg"),
        f"jax vmap {small} scan": _jax_make(case, manual, small, "threefry2x32"),
        f"jax vmap {big} scan": _jax_make(case, manual, big, "threefry2x32"),
        f"jax vmap {small} vjp": _jax_make(case, vjp, small, "threefry2x32"),
    }


def _jax_make(case: Case, chain: Callable[[Any], Any], batch: int, generator: str) -> Make:
    import jax

    jitted = jax.jit(jax.vmap(chain)) if batch else jax.jit(chain)
    seeds = itertools.count()

    def make(batches: int) -> Work:
        def run() -> Any:
            key = jax.random.key(next(seeds), impl=generator)
            keys = jax.random.split(key, (batches, max(batch, 1)))
            logs = [jitted(keys[i] if batch else keys[i, 0]) for i in range(batches)]
            return np.concatenate([np.atleast_2d(np.asarray(log)) for log in logs])

        return Work(run, batches * max(batch, 1) * case.weights)

    return make


def _jax_draw(case: Case, key: Any) -> tuple[Any, Any, Any]:
    """W, h_0 and a g_L on the unit sphere."""
    import jax
    import jax.numpy as jnp

    of_w, of_x = jax.random.split(key)
    x = jax.random.normal(of_x, (2, case.width))
    return jax.random.normal(of_w, (4 * case.width, case.width)) * case.scale, x[0], x[1] / jnp.linalg.norm(x[1])


def _jax_gates(a: Any) -> tuple[Any, Any, Any, Any]:
    import jax
    import jax.numpy as jnp

    i, f, g, o = jnp.split(a, 4)
    return jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)


def _jax_manual(case: Case) -> Callable[[Any], Any]:
    import jax
    import jax.numpy as jnp

    def chain(key: Any) -> Any:
        w, start, top = _jax_draw(case, key)

        def forward(state: Any, _: Any) -> tuple[Any, Any]:
            h, c = state
            i, f, g, o = _jax_gates(w @ h)
            later = f * c + i * g
            bent = jnp.tanh(later)
            of_cell = jnp.stack([g * i * (1 - i), c * f * (1 - f), i * (1 - g * g)])
            return (o * bent, later), (of_cell, bent * o * (1 - o), o * (1 - bent * bent), f)

        def backward(state: Any, kept: Any) -> tuple[Any, Any]:
            g, cell = state
            of_cell, of_output, through, f = kept
            cell = cell + g * through
            g = jnp.concatenate([(of_cell * cell).reshape(-1), of_output * g]) @ w
            return (g, cell * f), jnp.linalg.norm(g)

        zero = jnp.zeros(case.width)
        _, kept = jax.lax.scan(forward, (start, zero), None, length=case.depth)
        _, norms = jax.lax.scan(backward, (top, zero), kept, reverse=True)
        return jnp.log(jnp.append(norms, jnp.linalg.norm(top)))

    return chain


def _jax_vjp(case: Case) -> Callable[[Any], Any]:
    """Backward left to jax.vjp: a dummy added to each h_l receives g_l."""
    import jax
    import jax.numpy as jnp

    def chain(key: Any) -> Any:
        w, start, top = _jax_draw(case, key)

        def network(dummies: Any) -> Any:
            def step(state: Any, dummy: Any) -> tuple[Any, None]:
                h, c = state
                i, f, g, o = _jax_gates(w @ (h + dummy))
                c = f * c + i * g
                return (o * jnp.tanh(c), c), None

            return jax.lax.scan(step, (start, jnp.zeros(case.width)), dummies)[0][0]

        _, pull = jax.vjp(network, jnp.zeros((case.depth, case.width)))
        (gradients,) = pull(top)
        return jnp.log(jnp.append(jnp.linalg.norm(gradients, axis=1), jnp.linalg.norm(top)))

    return chain
