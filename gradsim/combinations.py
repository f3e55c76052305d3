"""Which fields of a chain exclude each other, need each other or do not apply, each refused with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from gradsim.errors import ExperimentError
from gradsim.fields import Value, show

if TYPE_CHECKING:
    from gradsim.chain import Chain

__all__ = ["check_together"]


def check_together(chain: Chain, given: Mapping[str, Value]) -> None:
    """Refuse a chain whose fields make no sense together.

    Parameters
    ----------
    chain : Chain
        With its defaults filled in.
    given : mapping
        The fields that were given: one that does not apply is refused whatever its value.

    Raises
    ------
    ExperimentError
        Naming the two fields and why.
    """
    _check_shape(chain, given)
    _check_kind(chain, given)
    _check_skip(chain, given)
    _check_norm(chain, given)
    _check_gradient(chain)
    _check_loss(chain)
    _check_probes(chain)


def _check_shape(chain: Chain, given: Mapping[str, Value]) -> None:
    if chain.profile is None:
        return
    if chain.tied:
        text = f'profile applies to kind = "feedforward" only, not to "{chain.kind}"'
        raise ExperimentError(f"{text}: give width and depth instead")
    for name in ("width", "depth"):
        if name in given:
            raise ExperimentError(f"{name} = {given[name]} beside a profile: a profile replaces width and depth")
    if len(set(chain.profile)) > 1:
        if chain.init == "identity":
            text = 'init = "identity" needs equal widths: use init = "orthogonal" for this profile'
            raise ExperimentError(text)
        if chain.skip:
            text = f"skip = {show(chain.skip)} needs equal widths, since it adds h_{{l-1}} to the values of layer l"
            raise ExperimentError(f"{text}: leave skip out for this profile")


def _check_kind(chain: Chain, given: Mapping[str, Value]) -> None:
    if "input_noise" in given and not chain.tied:
        raise ExperimentError(f'input_noise applies to kind = "recurrent", "lstm" and "gru", not to "{chain.kind}"')
    if "forget_bias" in given and chain.kind != "lstm":
        text = f'forget_bias applies to kind = "lstm" only: a "{chain.kind}" chain has no forget gate'
        raise ExperimentError(text)
    if chain.gates > 1:
        for name in ("activation", "negative_slope"):
            if name in given:
                text = f'{name} = {show(given[name])} does not apply to kind = "{chain.kind}"'
                raise ExperimentError(f"{text}, whose equations fix sigmoid and tanh")
        for name, off in (("skip", 0.0), ("norm", "none"), ("dropout", 0.0)):
            if getattr(chain, name) != off:
                text = f'{name} = {show(getattr(chain, name))} does not apply to kind = "{chain.kind}"'
                raise ExperimentError(f"{text}, whose cell is PyTorch's and has none")
    elif "negative_slope" in given and chain.activation != "leaky_relu":
        text = f'negative_slope applies to activation = "leaky_relu" only, not to "{chain.activation}"'
        raise ExperimentError(text)
    if chain.gain == "critical":
        plain = {"norm": "none", "skip": 0.0, "dropout": 0.0}
        beside = [name for name, off in plain.items() if getattr(chain, name) != off]
        if chain.gates > 1:
            beside.append("kind")
        if beside:
            text = f'gain = "critical" beside {beside[0]} = {show(getattr(chain, beside[0]))}'
            why = "it is known for plain feedforward and recurrent chains only, without norm, skip and dropout"
            raise ExperimentError(f"{text}: {why}; give gain as a number")


def _check_skip(chain: Chain, given: Mapping[str, Value]) -> None:
    if chain.skip:
        return
    if "carry" in given:
        raise ExperimentError(f"carry = {given['carry']:g} without skip: it is the factor on h_{{l-1}} beside a skip")
    if chain.norm != "none" and chain.norm_position in ("pre", "post"):
        acts_on = {"pre": "the input of a skip's branch", "post": "the sum with a skip"}[chain.norm_position]
        text = f'norm_position = "{chain.norm_position}" without skip: it is on {acts_on}'
        raise ExperimentError(f"{text}; give skip, or norm_position before or after")


def _check_norm(chain: Chain, given: Mapping[str, Value]) -> None:
    if chain.norm == "none":
        for name in ("norm_position", "norm_eps"):
            if name in given:
                raise ExperimentError(f"{name} = {show(given[name])} without norm: give norm batch, layer or rms")
    elif chain.norm == "batch":
        if chain.batch <= 2:
            text = f'norm = "batch" with batch = {chain.batch}: over {chain.batch} inputs'
            raise ExperimentError(f"{text} its gradient is exactly 0; batch is at least 3")
    elif chain.norm == "layer":
        normalised = chain.widths[:-1] if chain.norm_position == "pre" else chain.widths[1:]
        if min(normalised) <= 2:
            named = "width" if chain.profile is None else "a profile with width"
            text = f'norm = "layer" with {named} {min(normalised)}: over {min(normalised)} units'
            raise ExperimentError(f"{text} its gradient is exactly 0; a normalised width is at least 3")


def _check_gradient(chain: Chain) -> None:
    if chain.clip and chain.clip_value:
        text = f"clip = {chain.clip:g} with clip_value = {chain.clip_value:g}: which comes first would be arbitrary"
        raise ExperimentError(f"{text}; give one of them")


def _check_loss(chain: Chain) -> None:
    """Refuse a loss that a norm holds constant: its gradient is exactly zero, and rounding would be all there is."""
    if chain.output_gradient == "random" or chain.norm == "none":
        return
    straight = not chain.skip and not chain.dropout
    linear = chain.norm_position == "before" and chain.activation == "linear"
    if not (chain.norm_position == "post" or (straight and (chain.norm_position == "after" or linear))):
        return
    text = f'output_gradient = "{chain.output_gradient}" with norm = "{chain.norm}" on what comes out'
    if chain.output_gradient == "ones" and chain.norm != "rms":
        raise ExperimentError(f'{text}: the sum of all outputs is always 0, and so is the gradient; use "random"')
    if chain.output_gradient == "loss" and not chain.norm_eps and not chain.clip_value:
        raise ExperimentError(f'{text}: the length of the output never changes, the gradient is 0; use "random"')


def _check_probes(chain: Chain) -> None:
    if chain.probes == 1:
        return
    narrowest = min(chain.widths)
    text = f"probes = {chain.probes}"
    if chain.probes > narrowest:
        named = "width" if chain.profile is None else "a profile with width"
        why = f"{narrowest} units have no more than {narrowest} independent directions"
        raise ExperimentError(f"{text} with {named} {narrowest}: {why}")
    for name in ("clip", "clip_value"):
        if value := getattr(chain, name):
            why = "clipping one vector would bend the space that the others span"
            raise ExperimentError(f"{text} with {name} = {value:g}: {why}; leave one of them out")
    if chain.batch > 1:
        why = "each input of a batch would have Lyapunov exponents of its own"
        if chain.norm == "batch":
            raise ExperimentError(f'{text} with batch = {chain.batch} of norm = "batch": {why}')
        raise ExperimentError(f"{text} with batch = {chain.batch}: {why}; leave one of them out")
    if chain.output_gradient != "random":
        why = "there is one such vector, and the probes are independent ones"
        raise ExperimentError(f'{text} with output_gradient = "{chain.output_gradient}": {why}; use "random"')
