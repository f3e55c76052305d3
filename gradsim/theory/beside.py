"""What theory says about other quantities of a chain than ln||g_l||: activations, weight gradients, Lyapunov exponents.

Exact, at every finite width, for linear and rectifier chains without bias, skip and norm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import special as sp

from gradsim.chain import Chain
from gradsim.theory import lyapunov
from gradsim.theory.dropout import masked
from gradsim.theory.law import (
    EXACT,
    LEADING_ORDER,
    Increment,
    Law,
    Layers,
    adds_nothing,
    draws_fresh_weights,
    each,
    is_uniform,
    squared_gains,
    sum_above,
)
from gradsim.theory.relu import through
from gradsim.theory.special import FloatArray, LogBeta, LogChiSquared

_SLOPES = {"linear": 1.0, "relu": 0.0}
_UNSORTED = (
    "the recorded ones are sorted in each chain, which moves their means by up to two standard deviations where "
    "neighbours lie nearer than that, and makes variances many times smaller; by nothing as depth goes to infinity"
)
_NORMAL = "all but those of fewest degrees of freedom taken to be normal"


@dataclass(frozen=True)
class Beside:
    """Predictions for one quantity, a row of ``gradsim theory --json``.

    Attributes
    ----------
    quantity : str
    layer : list of int or None
        Layers that the arrays are about; None for Lyapunov exponents.
    mean, var : array
        Of the quantity given survival; `var` may be None.
    log_second_moment : array or None
        ln of the mean square of the norm, dead chains counting as 0.
    p_dead : float
        Largest probability, over the layers, that the norm is exactly zero.
    rate : float
        Growth of the quantity per layer in the direction in which it is computed; NaN where it has none.
    validity, source : str
    """

    quantity: str
    layer: list[int] | None
    mean: FloatArray
    var: FloatArray | None
    log_second_moment: FloatArray | None
    p_dead: float
    rate: float
    validity: str
    source: str


def beside(chain: Chain, law: Law | None) -> list[Beside]:
    """Predictions for the other quantities of a chain, as far as there are laws.

    Parameters
    ----------
    chain : Chain
    law : Law or None
        That of ln||g_l||.
    """
    rows = []
    if _is_plain(chain) and adds_nothing(chain):
        rows.append(_activations(chain))
        if law is not None and law.layers is not None:
            rows.append(_weight_gradients(chain, law))
    gaussian = _is_plain(chain) and chain.activation == "linear" and chain.init == "gaussian"
    if gaussian and not chain.dropout and chain.probes > 1:
        rows.append(_lyapunov(chain))
    if _is_one_gaussian_matrix(chain):
        rows.append(_spectral_radius(chain))
    return rows


def _activations(chain: Chain) -> Beside:
    """ln||h_l||: ||h_0||^2 = input_scale^2 chi2_{n_0}, and independent factors per layer."""
    moments = _halved(_forward(chain))
    alive = _log_alive(chain)
    return Beside(
        quantity="log_activation_norm",
        layer=list(range(chain.depth + 1)),
        mean=np.cumsum(moments[0]),
        var=np.cumsum(moments[1]),
        log_second_moment=np.cumsum(moments[2]) + np.concatenate([[0.0], np.cumsum(alive)]),
        p_dead=0.0 - math.expm1(alive.sum()),
        rate=float(moments[0, 1]) if is_uniform(chain) else math.nan,
        validity=EXACT,
        source="product of independent factors: W h is Gaussian, or of uniform direction, given h",
    )


def _weight_gradients(chain: Chain, law: Law) -> Beside:
    """ln||dLoss/dW_l||_F = ln||h_{l-1}|| + ln||phi' * g_l||, which are independent.

    h_{l-1} is made of the layers below l. By the rotation invariance of W_l, what lies above depends on its length
    alone, by a factor which phi' and the masks do not see.
    """
    assert law.layers is not None
    below = np.cumsum(_halved(_forward(chain)), axis=1)[:, :-1]
    passed = _halved(Layers.of(each(partial(_through, chain, Increment(0.0)), zip(chain.widths[1:], strict=True))))
    above = sum_above(_halved(law.layers))[:, 1:]
    above[0] += law.start
    above[2] += 2.0 * law.start
    mean, var, second = below + passed + above
    alive = float(_log_alive(chain).sum())
    return Beside(
        quantity="log_weight_grad_norm",
        layer=list(range(1, chain.depth + 1)),
        mean=mean,
        var=var,
        log_second_moment=second + alive,
        p_dead=0.0 - math.expm1(alive),
        rate=math.nan,
        validity=EXACT,
        source="||h_{l-1}|| and ||phi' * g_l||, independent; in square chains the same law for every layer",
    )


def _lyapunov(chain: Chain) -> Beside:
    """Exponents as they are recorded, in descending order; see `gradsim.theory.lyapunov`."""
    source = "diagonals of QR, independent sums over the layers (Newman 1986)"
    law = lyapunov.descending(chain)
    if law is None:
        (mean, var), source = (lyapunov.in_order(chain)[0], None), f"{source}, unsorted: {_UNSORTED}"
    else:
        (mean, var), source = law, f"{source}, sorted in each chain"
    exact = law is not None and lyapunov.is_sorted_law_exact(chain)
    return Beside(
        quantity="lyapunov",
        layer=None,
        mean=mean,
        var=var,
        log_second_moment=None,
        p_dead=0.0,
        rate=math.nan,
        validity=EXACT if exact else LEADING_ORDER,
        source=source if exact or law is None else f"{source}; {_NORMAL}",
    )


def _spectral_radius(chain: Chain) -> Beside:
    """E ln of the spectral radius: the rate of ln||g|| as the number of steps goes to infinity.

    For complex Gaussian entries P(radius <= x) = prod_k P(Gamma(k) <= n x^2/s2) exactly (Kostlan 1992). Real matrices
    have conjugate pairs of eigenvalues, and real ones: their radius is smaller, by 0.04 at n = 8, 0.01 at n = 64.
    """
    n = chain.widths[0]
    root = math.sqrt(n)
    log_square = np.linspace(-40.0 / n - 10.0 / root, math.log1p(9.0 / root + 40.0 / n), 400 if n > 8 else 4000)
    k = np.arange(max(1, n - int(13.0 * root)), n + 1)
    inside = np.prod(sp.gammainc(k[:, None], n * np.exp(log_square)), axis=0)
    mean = (log_square[0] + np.trapezoid(1.0 - inside, log_square)) / 2.0 + math.log(float(chain.gains[0]))
    return Beside(
        quantity="log_spectral_radius",
        layer=None,
        mean=np.array([mean]),
        var=None,
        log_second_moment=None,
        p_dead=0.0,
        rate=float(mean),
        validity=LEADING_ORDER,
        source="rate of ||g|| over very many steps: Kostlan's law of complex matrices; real ones are smaller",
    )


def _forward(chain: Chain) -> Layers:
    """ln||h_0||^2, and what each layer adds to ln||h||^2 given survival."""
    start = Increment(2.0 * math.log(chain.input_scale), (LogChiSquared(chain.widths[0]),))

    def layer(s2: float, m: int, n: int) -> Increment:
        if chain.init == "gaussian":
            product = Increment(math.log(s2 / m), (LogChiSquared(n),))
        else:
            product = Increment(math.log(s2), (LogBeta(n, m - n),) if n < m else ())
        return _through(chain, product, n)

    sizes = zip(squared_gains(chain), chain.widths[:-1], chain.widths[1:], strict=True)
    return Layers.of([start, *each(layer, sizes)])


def _through(chain: Chain, weight: Increment, width: int) -> Increment:
    """With the fraction of the squared norm that phi' and dropout let through."""
    if chain.dropout:
        kept = 1.0 - chain.dropout
        return masked(weight, width, kept / 2.0 if chain.activation == "relu" else kept, kept)
    return through(weight, width, _SLOPES.get(chain.activation, chain.negative_slope))


def _halved(layers: Layers) -> FloatArray:
    """Mean and variance of the increments of the norm, and ln of the mean of its square; shape (3, layers)."""
    columns = [(kind.cumulants[0] / 2.0, kind.cumulants[1] / 4.0, kind.log_mean) for kind in layers.kinds]
    return layers.by_layer(np.array(columns).T)


def _log_alive(chain: Chain) -> FloatArray:
    """ln of the probability that a layer lets any unit through, shape (L,)."""
    blocked = {"linear": 0.0, "relu": 0.5}.get(chain.activation, 0.0)
    dropped = blocked + (1.0 - blocked) * chain.dropout
    return np.log1p(-(dropped ** np.array(chain.widths[1:], dtype=np.float64)))


def _is_plain(chain: Chain) -> bool:
    """Whether forward factors are independent: nothing but W, a homogeneous phi and dropout."""
    homogeneous = chain.activation in ("linear", "relu") or (chain.activation == "leaky_relu" and not chain.dropout)
    drawn = chain.init in ("gaussian", "orthogonal") and draws_fresh_weights(chain) and bool(chain.gains.all())
    nothing_else = not chain.skip_factor and chain.norm == "none" and chain.batch == 1 and not chain.input_noise
    return homogeneous and drawn and nothing_else


def _is_one_gaussian_matrix(chain: Chain) -> bool:
    plain = chain.kind == "recurrent" and chain.activation == "linear" and chain.init == "gaussian"
    clipped = chain.clip or chain.clip_value
    unmasked = not chain.skip_factor and chain.norm == "none" and not chain.dropout
    return plain and unmasked and not clipped and chain.depth > 1 and bool(chain.gains.all())
