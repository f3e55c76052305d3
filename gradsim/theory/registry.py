"""The one place that finds a law from a chain's fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from gradsim.chain import Chain
from gradsim.errors import ExperimentError
from gradsim.theory import linear, mean_field, recurrent, relu
from gradsim.theory.law import Law
from gradsim.theory.prediction import Prediction
from gradsim.vocabulary import DEFAULTS

LAWS: Mapping[str, Callable[[Chain], Law | None]] = MappingProxyType(
    {
        "gaussian-linear": linear.gaussian_linear,
        "orthogonal-linear": linear.orthogonal_linear,
        "identity-linear": linear.identity_linear,
        "symmetric-linear": linear.symmetric_linear,
        "gaussian-relu": relu.gaussian_relu,
        "orthogonal-relu": relu.orthogonal_relu,
        "gaussian-leaky": relu.gaussian_leaky,
        "orthogonal-leaky": relu.orthogonal_leaky,
        "symmetric-rectifier": relu.symmetric_rectifier,
        "identity-relu": relu.identity_relu,
        "recurrent-gaussian-linear": recurrent.gaussian_linear,
        "recurrent-orthogonal-linear": recurrent.orthogonal_linear,
        "mean-field-tanh": mean_field.mean_field_tanh,
    }
)
"""Every law by name; each returns None for a chain it does not hold for, and at most one holds for any chain.
"""


#: Fields that the laws look at themselves, or that change nothing about ln||g||. A chain in which any other field is
#: away from its default has no law, whatever the laws say.
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
#: Kinds that some law is about.
KINDS = ("feedforward", "recurrent")


def find(chain: Chain) -> Law | None:
    """The law of a chain's backpropagated gradient, or None where none is known.

    Parameters
    ----------
    chain : Chain
    """
    # A loss gradient depends on the weights, and a gain of 0 leaves nothing to predict.
    if chain.output_gradient == "loss" or not chain.gains.all():
        return None
    if chain.kind not in KINDS or any(getattr(chain, name) != DEFAULTS[name] for name in DEFAULTS.keys() - COVERED):
        return None
    for law_of in LAWS.values():
        law = law_of(chain)
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
        Its ``validity`` is None, and its numbers are NaN or None, where no law is known.

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
    return Prediction(chain, find(chain))
