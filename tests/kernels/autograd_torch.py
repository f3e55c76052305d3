"""One chain by torch's automatic differentiation in float64: the forward pass alone is written down here.

Only the drawn numbers are those of gradsim. Layers are torch's own functions and cells, with matrices, biases, masks
and noise copied into them; every gradient, of states, cells and weights, is what backward() finds. Clipping is a hook
on the state. Directions are pulled back through one layer at a time and orthonormalised by torch.linalg.qr.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from gradsim.kernels import reference
from gradsim.kernels.keys import cell_key

ACTIVATIONS = {
    "linear": lambda z: z,
    "relu": torch.relu,
    "tanh": torch.tanh,
    "erf": torch.erf,
    "sigmoid": torch.sigmoid,
    "gelu": F.gelu,
    "silu": F.silu,
}
# Errors of this size show how much a chain makes of errors.
DISTURBANCE = 1e-7


class Errors:
    """Multiplies what it is given by 1 + errors of a stated size; of size 0, does nothing."""

    def __init__(self, size=0.0, seed=0):
        self._size = size
        self._rng = np.random.default_rng(seed)

    def __call__(self, x):
        """A tensor or array with errors; whatever is differentiated sees them as constants."""
        if self._size == 0:
            return x
        factors = 1 + self._size * self._rng.standard_normal(tuple(x.shape))
        return x * (torch.from_numpy(factors) if isinstance(x, torch.Tensor) else factors)


class Layers:
    """The layers of a feedforward or recurrent chain; a state is one tensor (B, n_l)."""

    def __init__(self, chain, cell, index, errors):
        self._chain, self._errors = chain, errors
        self.weights = []
        self._biases, self._noise, self._masks = [], [], []
        for layer in range(1, chain.depth + 1):
            if layer == 1 or not chain.tied:
                w = tensor(errors(reference.weight_matrix(chain, cell, index, layer)))
                self.weights.append(w.requires_grad_())
                b = tensor(errors(reference.bias(chain, cell, index, layer)))
            self._biases.append(b)
            self._noise.append(tensor(errors(reference.noise(chain, cell, index, layer).T)))
            self._masks.append(tensor(reference.kept(chain, cell, index, layer).T))

    def __call__(self, state, layer):
        (h,) = state
        chain, w = self._chain, self.weights[0 if self._chain.tied else layer - 1]
        # Errors multiply what goes forward and the gradient that comes back.
        x = self._errors(self._norm("pre", h))
        z = self._errors(F.linear(x, w, self._biases[layer - 1]) + self._noise[layer - 1])
        y = self._errors(self._phi(self._errors(self._norm("before", z))))
        y = self._norm("after", y)
        if chain.dropout > 0:
            y = y * self._masks[layer - 1]
        alpha = {"rsqrt-depth": 1 / chain.depth**0.5, "inv-depth": 1 / chain.depth}.get(chain.skip, chain.skip)
        return (self._norm("post", chain.carry * h + alpha * y if alpha else y),)

    def _phi(self, z):
        if self._chain.activation == "leaky_relu":
            return F.leaky_relu(z, self._chain.negative_slope)
        return ACTIVATIONS[self._chain.activation](z)

    def _norm(self, position, x):
        chain, units = self._chain, x.shape[1:]
        if chain.norm == "none" or chain.norm_position != position:
            return x
        # The gradient of a group without variance is set by gradsim's interface, to 0: nothing to differentiate, NaN.
        axis = 0 if chain.norm == "batch" else 1
        centred = x if chain.norm == "rms" else x - x.mean(axis, keepdim=True)
        x = torch.where(centred.detach().abs().amax(axis, keepdim=True) > 0, x, torch.nan)
        if chain.norm == "layer":
            return F.layer_norm(x, units, eps=chain.norm_eps)
        if chain.norm == "rms":
            return F.rms_norm(x, units, eps=chain.norm_eps)
        if chain.norm_eps > 0:
            return F.batch_norm(x, None, None, training=True, eps=chain.norm_eps)
        # torch's own refuses eps = 0.
        return (x - x.mean(0)) / x.var(0, unbiased=False).sqrt()


class Cells:
    """torch.nn.LSTMCell or GRUCell with copied weights; a state is (h,) or (h, c).

    Each gate has an input of its own, the noise, through input weights that are the identity.
    """

    def __init__(self, chain, cell, index, errors):
        n, gates = chain.width, range(chain.gates)
        self._lstm = chain.kind == "lstm"
        self._cell = (torch.nn.LSTMCell if self._lstm else torch.nn.GRUCell)(len(gates) * n, n, dtype=torch.float64)
        matrices = [errors(reference.gate_matrix(chain, cell, index, k)) for k in gates]
        biases = [errors(reference.bias(chain, cell, index, 1, k)) for k in gates]
        constants = np.zeros(len(gates) * n)
        if self._lstm:
            constants[n : 2 * n] = chain.forget_bias
        with torch.no_grad():
            self._cell.weight_hh.copy_(tensor(np.concatenate(matrices)))
            self._cell.weight_ih.copy_(torch.eye(len(gates) * n))
            self._cell.bias_hh.copy_(tensor(np.concatenate(biases)))
            self._cell.bias_ih.copy_(tensor(constants))
        self.weights = [self._cell.weight_hh]
        self._noise = [
            tensor(errors(np.concatenate([reference.noise(chain, cell, index, step, k).T for k in gates], axis=1)))
            for step in range(1, chain.depth + 1)
        ]

    def __call__(self, state, layer):
        if self._lstm:
            return self._cell(self._noise[layer - 1], state)
        return (self._cell(self._noise[layer - 1], state[0]),)


def tensor(x):
    """A float64 tensor with the values of an array."""
    return torch.from_numpy(np.array(x, dtype=np.float64))


def differentiate(chain, seed, index, size=0.0, draw=0):
    """Every quantity of one chain that applies: float64 arrays by name; `size` adds errors everywhere."""
    cell, errors = cell_key(seed, chain.canonical()), Errors(size, draw)
    layers = (Cells if chain.gates > 1 else Layers)(chain, cell, index, errors)
    h0 = tensor(errors(reference.input_state(chain, cell, index)).T)
    starts = (h0, torch.zeros_like(h0)) if chain.kind == "lstm" else (h0,)
    states, found = run(chain, layers, starts, errors)
    top = states[-1][0]
    half_square = chain.output_gradient == "loss"
    loss = 0.5 * (top**2).sum() if half_square else (top * output(chain, cell, index, top)).sum()
    loss.backward()
    g = [found["g"].get(layer, torch.zeros(1)) for layer in range(chain.depth + 1)]
    quantities = {
        "log_grad_norm": [v.norm() for v in g],
        "log_activation_norm": [state[0].detach().norm() for state in states],
        "log_weight_grad_norm": [w.grad.norm() for w in layers.weights],
        "log_grad_max": [v.abs().max() for v in g],
    }
    if chain.kind == "lstm":
        cells = [found["c"].get(layer, torch.zeros(1)) for layer in range(chain.depth + 1)]
        quantities["log_cell_grad_norm"] = [v.norm() for v in cells]
    logs = {name: torch.stack(values).log().numpy() for name, values in quantities.items()}
    if chain.probes > 1:
        logs["lyapunov"] = exponents(layers, states, errors(reference.probe_gradients(chain, cell, index)), errors)
    return logs


def output(chain, cell, index, top):
    """The constant G of the loss <G, h_L>."""
    if chain.output_gradient != "random":
        return torch.ones_like(top)
    if chain.probes > 1:
        return tensor(reference.probe_gradients(chain, cell, index)[:, :1].T)
    return tensor(reference.output_gradient(chain, cell, index, top.detach().numpy().T).T)


def run(chain, layers, starts, errors):
    """The states of all layers, and what backward() will have found of the gradients at each: g, and c of an LSTM."""
    found = {"g": {}, "c": {}}

    def propagated(gradient, layer):
        gradient = errors(gradient)
        if chain.clip > 0 and gradient.norm() > chain.clip:
            gradient = gradient * (chain.clip / gradient.norm())
        if chain.clip_value > 0:
            gradient = gradient.clamp(-chain.clip_value, chain.clip_value)
        found["g"][layer] = gradient
        return gradient

    def watched(state, layer):
        # Copies: the gradient at h, or at c, with the other held, and not what flows from h to c within a layer.
        copies = tuple(errors(x.clone()) for x in state)
        if not copies[0].requires_grad:
            copies = tuple(x.requires_grad_() for x in copies)
        copies[0].register_hook(lambda gradient: propagated(gradient, layer))
        if len(copies) > 1:
            copies[1].register_hook(lambda gradient: found["c"].__setitem__(layer, gradient))
        return copies

    states = [watched(starts, 0)]
    for layer in range(1, chain.depth + 1):
        states.append(watched(layers(states[-1], layer), layer))
    return states, found


def exponents(layers, states, probes, errors):
    """Lyapunov exponents of the way back, descending."""
    start = [tensor(probes.T), *(torch.zeros(probes.T.shape, dtype=torch.float64) for _ in states[0][1:])]
    frame, _ = orthonormal(torch.cat(start, dim=1))
    logs = torch.zeros(len(frame), dtype=torch.float64)
    for layer in range(len(states) - 1, 0, -1):
        below = tuple(x.detach().requires_grad_() for x in states[layer - 1])
        above = layers(below, layer)
        pulled = []
        for q in frame:
            parts = torch.split(q[None, :], [x.shape[1] for x in above], dim=1)
            gradients = torch.autograd.grad(above, below, parts, retain_graph=True)
            pulled.append(errors(torch.cat(gradients, dim=1)[0]))
        frame, diagonal = orthonormal(torch.stack(pulled))
        logs += diagonal.log()
    return np.sort((logs / (len(states) - 1)).numpy())[::-1]


def orthonormal(rows):
    """Rows orthonormalised from the first on, and the positive diagonal of R."""
    q, r = torch.linalg.qr(rows.T)
    signs = torch.where(r.diagonal() < 0, -1.0, 1.0).to(r.dtype)
    return (q * signs).T, r.diagonal().abs()


def conditions(chain, seed, index, exact, limit=np.inf, replicas=16):
    """By quantity, the factor by which errors everywhere show in it, at least 1; infinite where they decide.

    So many replicas that a unit at a kink, where a coin decides, does not fall the same way in all. Ends early once a
    factor is above the limit.
    """
    largest = {name: np.ones(values.shape) for name, values in exact.items()}
    for draw in range(1, replicas + 1):
        disturbed = differentiate(chain, seed, index, DISTURBANCE, draw)
        for name, values in exact.items():
            with np.errstate(invalid="ignore"):
                change = np.where(values == disturbed[name], 0.0, np.abs(values - disturbed[name])) / DISTURBANCE
            largest[name] = np.fmax(largest[name], np.where(np.isnan(change), np.inf, change))
        if max(values.max() for values in largest.values()) > limit:
            break
    return largest
