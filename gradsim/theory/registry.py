"""The one place that finds a law from a chain's fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from gradsim.chain import Chain
from gradsim.errors import ExperimentError
from gradsim.theory import (
    batch_norm,
    clipping,
    dropout,
    gated,
    linear,
    loss,
    mean_field,
    normalised,
    norms,
    recurrent,
    relu,
    residual,
    skip,
)
from gradsim.theory.law import Law
from gradsim.theory.prediction import Prediction
from gradsim.vocabulary import DEFAULTS

#: Fields that every law looks at itself, or that change nothing about ln||g||.
COVERED = frozenset(
    {
        "kind",
        "activation",
        "negative_slope",
        "depth",
        "width",
        "profile",
        "init",
        "gain",
        "bias",
        "input_scale",
        "input_noise",
        "output_gradient",
        "probes",  # log_grad_norm is that of the first, drawn as ever
    }
)


@dataclass(frozen=True)
class Entry:
    """A law, and how far beyond plain chains it reaches.

    Attributes
    ----------
    law_of : callable
        The law of a chain, or None where it does not hold for it.
    fields : frozenset of str
        Fields it looks at besides COVERED: a chain with any other field away from its default has not this law.
    kinds : tuple of str
        Kinds it is about.
    gradients : tuple of str
        Values of output_gradient it is about. A loss gradient depends on the weights.
    """

    law_of: Callable[[Chain], Law | None]
    fields: frozenset[str] = frozenset()
    kinds: tuple[str, ...] = ("feedforward", "recurrent")
    gradients: tuple[str, ...] = ("random", "ones")

    def __call__(self, chain: Chain) -> Law | None:
        """The law of a chain, or None where it does not hold for it or was not derived for one of its fields."""
        if chain.kind not in self.kinds or chain.output_gradient not in self.gradients or not chain.gains.all():
            return None
        beyond = DEFAULTS.keys() - COVERED - self.fields
        if any(getattr(chain, name) != DEFAULTS[name] for name in beyond):
            return None
        return self.law_of(chain)


# Chains whose laws are kept for the next prediction of them: the largest clipped ones take 100 MB.
_KEPT = 4

_NORM = frozenset({"norm", "norm_position", "norm_eps"})
_SKIP = frozenset({"skip", "carry"})


def _clipped(chain: Chain) -> Law | None:
    """The law of the chain without clipping, clipped."""
    base = find(chain.replace(clip=0.0)) if chain.clip else None
    return None if base is None else clipping.clipped(chain.clip, base)


LAWS: Mapping[str, Entry] = MappingProxyType(
    {
        "gaussian-linear": Entry(linear.gaussian_linear),
        "orthogonal-linear": Entry(linear.orthogonal_linear),
        "identity-linear": Entry(linear.identity_linear),
        "symmetric-linear": Entry(linear.symmetric_linear),
        "gaussian-relu": Entry(relu.gaussian_relu),
        "orthogonal-relu": Entry(relu.orthogonal_relu),
        "gaussian-leaky": Entry(relu.gaussian_leaky),
        "orthogonal-leaky": Entry(relu.orthogonal_leaky),
        "symmetric-rectifier": Entry(relu.symmetric_rectifier),
        "identity-relu": Entry(relu.identity_relu),
        "recurrent-gaussian-linear": Entry(recurrent.gaussian_linear, _SKIP),
        "recurrent-orthogonal-linear": Entry(recurrent.orthogonal_linear),
        "dropout-linear": Entry(dropout.dropout_linear, frozenset({"dropout"}), gradients=("random",)),
        "dropout-relu": Entry(dropout.dropout_relu, frozenset({"dropout"}), gradients=("random",)),
        "gaussian-skip-linear": Entry(skip.gaussian_skip, _SKIP),
        "orthogonal-skip-linear": Entry(skip.orthogonal_skip, _SKIP),
        "identity-skip-linear": Entry(skip.identity_skip, _SKIP),
        "rms-linear": Entry(norms.rms_linear, _NORM),
        "layer-linear": Entry(norms.layer_linear, _NORM),
        "rms-post-linear": Entry(norms.rms_post_linear, _NORM | _SKIP),
        "loss-rectifier": Entry(loss.loss_gradient, gradients=("loss",)),
        "ones-rectifier": Entry(loss.ones_gradient, gradients=("ones",)),
        "clipped": Entry(_clipped, _NORM | _SKIP | {"clip", "dropout"}),
    }
)
"""Every law of finite width by name; each returns None for a chain it does not hold for, and at most one holds for
any chain.
"""

LIMITS: Mapping[str, Entry] = MappingProxyType(
    {
        "mean-field": Entry(mean_field.plain, frozenset({"batch", "dropout"})),
        "mean-field-norm": Entry(
            normalised.layer_or_rms,
            frozenset({"batch", "dropout", "norm", "norm_position", "norm_eps", "skip", "carry"}),
            gradients=("random",),
        ),
        "batch-norm": Entry(
            batch_norm.before_activation,
            frozenset({"batch", "dropout", "norm", "norm_position"}),
            kinds=("feedforward",),
            gradients=("random",),
        ),
        "mean-field-skip": Entry(residual.one_matrix, frozenset({"batch", "dropout", "skip", "carry"})),
        "gated-near-zero": Entry(gated.near_zero, frozenset({"forget_bias", "batch"}), kinds=("lstm", "gru")),
    }
)
"""Laws of infinite width by name, for chains that have none of finite width; again at most one for any chain."""


def find(chain: Chain) -> Law | None:
    """The law of a chain's backpropagated gradient, one of finite width where there is one; None where none is known.

    Parameters
    ----------
    chain : Chain
    """
    for entry in (*LAWS.values(), *LIMITS.values()):
        law = entry(chain)
        if law is not None:
            return law
    return None


def predict(chain: Chain) -> Prediction:
    """What theory says about the backpropagated gradient of a chain.

    Parameters
    ----------
    chain : Chain

    Returns
    -------
    Prediction
        Its ``validity`` is None, and its numbers are NaN or None, where no law is known. Arrays are read-only.

    Raises
    ------
    ExperimentError
        For anything but a Chain.

    Examples
    --------
    >>> import gradsim
    >>> prediction = gradsim.predict(gradsim.Chain(activation="linear", width=64, depth=50, gain=1.0))
    >>> prediction.validity, round(float(prediction.mean[0]), 4)
    ('exact', -0.3927)
    """
    if not isinstance(chain, Chain):
        raise ExperimentError(f"predict takes a Chain, not {type(chain).__name__}: gradsim.Chain(width=64, ...)")
    return Prediction(chain, _kept(chain))


@lru_cache(maxsize=_KEPT)
def _kept(chain: Chain) -> Law | None:
    """`find`, with arrays that are read-only, since others are given the same."""
    law = find(chain)
    for array in () if law is None else (law.mean, law.var, law.log_second_moment, law.p_dead):
        if array is not None:
            array.flags.writeable = False
    return law
