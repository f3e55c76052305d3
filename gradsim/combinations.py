"""Which fields of a chain exclude each other, need each other or do not apply, each refused with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from gradsim.errors import ExperimentError
from gradsim.fields import Value, show

if TYPE_CHECKING:
    from gradsim.chain import Chain

__all__ = ["ROTATION_INVARIANT", "can_be_deferred", "check_method", "check_together"]

#: Initialisations whose law no rotation changes, so that answers can be drawn without the matrix.
ROTATION_INVARIANT = ("gaussian", "orthogonal")


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


def can_be_deferred(chain: Chain) -> bool:
    """Whether what its matrices answer can be drawn without them."""
    return chain.init in ROTATION_INVARIANT


def check_method(chain: Chain, method: str) -> None:
    """Refuse a chain that this method cannot simulate.

    Raises
    ------
    ExperimentError
        Naming the field and why.
    """
    if method == "deferred" and not can_be_deferred(chain):
        init = f'init = "{chain.init}"'
        if chain.init == "uniform" and chain.gain == "torch":
            init += ', which comes with gain = "torch",'
        text = f'method = "deferred" draws what a matrix answers, not the matrix: {init} is not possible'
        why = "only gaussian and orthogonal matrices have a law that no rotation changes"
        raise ExperimentError(f'{text}, {why}; use one of them, or method = "dense"')


def _check_shape(chain: Chain, given: Mapping[str, Value]) -> None:
    if chain.profile is None:
        return
    if chain.tied:
        text = f'profile = {show(chain.profile)} applies to kind = "feedforward" only, not to kind = "{chain.kind}"'
        raise ExperimentError(f"{text}: give width and depth instead")
    for name in ("width", "depth"):
        if name in given:
            raise ExperimentError(f"{name} = {given[name]} beside a profile: a profile replaces width and depth")
    if len(set(chain.profile)) > 1:
        beside = f"with profile = {show(chain.profile)}"
        if chain.init == "identity":
            raise ExperimentError(f'init = "identity" {beside}: it needs equal widths; use init = "orthogonal"')
        if chain.skip:
            why = "it needs equal widths, since it adds h_{l-1} to the values of layer l"
            raise ExperimentError(f"skip = {show(chain.skip)} {beside}: {why}; leave skip out")


def _check_kind(chain: Chain, given: Mapping[str, Value]) -> None:
    if "input_noise" in given and not chain.tied:
        text = f'input_noise = {show(given["input_noise"])} with kind = "{chain.kind}"'
        raise ExperimentError(f'{text}: it applies to kind = "recurrent", "lstm" and "gru", which have steps')
    if "forget_bias" in given and chain.kind != "lstm":
        text = f'forget_bias = {show(given["forget_bias"])} with kind = "{chain.kind}"'
        raise ExperimentError(f'{text}: it applies to kind = "lstm" only, no other has a forget gate')
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
            raise ExperimentError(f"{text} its gradient is exactly 0{_but_for(chain)}; batch is at least 3")
    else:
        # Under layer norm of two units they are 1 and -1 whatever comes in, under RMS norm one unit is.
        least = 3 if chain.norm == "layer" else 2 if not chain.norm_eps else 1
        narrowest = min(chain.widths[:-1] if chain.norm_position == "pre" else chain.widths[1:])
        if narrowest < least:
            named = "width" if chain.profile is None else "a profile with width"
            text = f'norm = "{chain.norm}" with {named} {narrowest}'
            if chain.norm == "rms":
                text += " and norm_eps = 0"
            over = f"over {narrowest} unit{'' if narrowest == 1 else 's'}"
            why = f"{over} its gradient is exactly 0{_but_for(chain)}"
            raise ExperimentError(f"{text}: {why}; a normalised width is at least {least}")


def _but_for(chain: Chain) -> str:
    """What a gradient of zero leaves out."""
    return " but for what norm_eps adds" if chain.norm_eps else ""


def _check_gradient(chain: Chain) -> None:
    if chain.clip and chain.clip_value:
        text = f"clip = {chain.clip:g} with clip_value = {chain.clip_value:g}: which comes first would be arbitrary"
        raise ExperimentError(f"{text}; give one of them")


# Below this probability no 32-bit word says that a unit is dropped.
_NEVER_DROPS = 2.0**-32


def _comes_out(chain: Chain) -> bool:
    """Whether h_L is what the norm gives, times a constant."""
    if chain.norm_position == "post":
        return True
    if (chain.skip and chain.carry) or chain.dropout >= _NEVER_DROPS or chain.norm_position == "pre":
        return False
    if chain.norm_position == "after" or chain.activation == "linear":
        return True
    # A slope of -1 takes magnitudes, of which the length is that of what came in.
    same = (1.0, -1.0) if chain.output_gradient == "loss" else (1.0,)
    return chain.activation == "leaky_relu" and chain.negative_slope in same


def _check_loss(chain: Chain) -> None:
    """Refuse a loss that a norm holds constant: its gradient is exactly zero, and rounding would be all there is.

    What makes it no more than nearly constant (a carry or norm_eps of 1e-30) is a law of its own, of which the kernels
    say NaN where the dtype has no digits for it.
    """
    if chain.output_gradient == "random" or chain.norm == "none" or not _comes_out(chain):
        return
    text = f'output_gradient = "{chain.output_gradient}" with norm = "{chain.norm}" on what comes out'
    if chain.activation == "leaky_relu" and chain.norm_position == "before":
        text += f" (negative_slope = {chain.negative_slope:g} changes no length)"
    if chain.skip and chain.norm_position != "post":
        text += f" (carry = {chain.carry:g} leaves the branch alone)"
    if 0 < chain.dropout < _NEVER_DROPS:
        text += f" (dropout = {chain.dropout:g} is below 2^-32 and drops nothing)"
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
