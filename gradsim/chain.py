"""`Chain`: one random deep network at initialisation, by its fields.

A chain says what is drawn and propagated; it draws nothing. Its fields and their defaults are those of a
``[[chain]]`` table in an experiment file.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from gradsim.combinations import check_together
from gradsim.errors import ExperimentError
from gradsim.fields import Value, check_keys, plain
from gradsim.vocabulary import ALIASES, CHAIN_FIELDS, DEFAULTS, QUANTITIES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Chain"]

_GATES = {"lstm": 4, "gru": 3}
#: Inputs over which batch norm has something to average.
_BATCH_OF_NORM = 64


@dataclass(frozen=True, init=False, repr=False)
class Chain:
    """One random deep network, one input and one backpropagated vector, by its fields.

    Parameters are keywords named as in an experiment file; what is left out has the file's default. Two
    chains are equal when all their fields are, and equal chains draw the same numbers under one seed.

    Attributes
    ----------
    kind : str
        "feedforward", or with the same weights at every step "recurrent", "lstm" or "gru".
    activation : str
        "linear", "relu", "leaky_relu", "tanh", "erf", "sigmoid", "gelu" or "silu"; "" for lstm and gru.
    negative_slope : float
        Slope of leaky_relu below zero; 0.01 and without effect otherwise.
    depth : int
        Number L of layers or time steps, also where a profile gives it.
    width : int or None
        Width of every layer; None with a profile.
    profile : tuple of int or None
        The L + 1 widths (n_0, ..., n_L) where they were given one by one.
    init : str
        "gaussian", "uniform", "rademacher", "orthogonal" or "identity".
    gain : float or str
        A number, or the name of the rule that gives it ("kaiming" as "he", "xavier" as "glorot").
    bias : float or None
        Standard deviation of the Gaussian bias; None where the named gain sets it ("torch", "critical").
    skip : float or str
        alpha in h_l = carry h_{l-1} + alpha y, as written: a number, "rsqrt-depth" or "inv-depth"; 0 for none.
    carry : float
        Factor on h_{l-1} where there is a skip.
    norm : str
        "none", "batch", "layer" or "rms".
    norm_position : str
        "before" or "after" the activation, "pre" on the input of a skip's branch, "post" on the sum.
    norm_eps : float
        Added to the variance that the norm divides by.
    batch : int
        Inputs pushed through the same weights together.
    dropout : float
        Probability of dropping a unit.
    clip, clip_value : float
        Largest norm of g_l, and largest magnitude of its entries, as it is propagated; 0 for none.
    input_scale : float
        Standard deviation of the entries of h_0.
    input_noise : float
        Standard deviation of the noise added to each pre-activation at each step; not for feedforward.
    forget_bias : float
        Added to the pre-activation of the forget gate; lstm only.
    output_gradient : str
        g_L: "random" on the unit sphere, "ones", or "loss" for g_L = h_L.
    probes : int
        Backpropagated vectors, of which all but the first serve the Lyapunov exponents alone.
    gain_name : str
        The name of the gain as it was written, "" for a number.

    Raises
    ------
    ExperimentError
        For an unknown field, a wrong type, a value out of range, or fields that exclude each other.
    """

    kind: str
    activation: str
    negative_slope: float
    depth: int
    width: int | None
    profile: tuple[int, ...] | None
    init: str
    gain: float | str
    bias: float | None
    skip: float | str
    carry: float
    norm: str
    norm_position: str
    norm_eps: float
    batch: int
    dropout: float
    clip: float
    clip_value: float
    input_scale: float
    input_noise: float
    forget_bias: float
    output_gradient: str
    probes: int
    gain_name: str = field(compare=False)
    # `dataclasses.replace` reads this of the chain it changes and gives it to the new one, beside every field.
    _origin: InitVar[object] = property(lambda self: self)  # noqa: RUF009 (no default that chains would share)

    def __init__(
        self,
        *,
        kind: str | None = None,
        activation: str | None = None,
        negative_slope: float | None = None,
        depth: int | None = None,
        width: int | None = None,
        profile: Sequence[int] | None = None,
        init: str | None = None,
        gain: float | str | None = None,
        bias: float | None = None,
        skip: float | str | None = None,
        carry: float | None = None,
        norm: str | None = None,
        norm_position: str | None = None,
        norm_eps: float | None = None,
        batch: int | None = None,
        dropout: float | None = None,
        clip: float | None = None,
        clip_value: float | None = None,
        input_scale: float | None = None,
        input_noise: float | None = None,
        forget_bias: float | None = None,
        output_gradient: str | None = None,
        probes: int | None = None,
        **unknown: object,
    ) -> None:
        # The keywords above are the chain's fields; each is written down there, for readers and type checkers.
        written: dict[str, Any] = {name: value for name, value in locals().items() if name in CHAIN_FIELDS}
        if isinstance(origin := unknown.get("_origin"), Chain):
            fields = written | {name: value for name, value in unknown.items() if name != "_origin"}
            changes = {name: value for name, value in fields.items() if value != getattr(origin, name, None)}
            self.__dict__.update(origin.replace(**changes).__dict__)
            return
        check_keys(unknown, CHAIN_FIELDS)
        given = {n: CHAIN_FIELDS[n].normalise(value) for n, value in written.items() if value is not None}
        # A frozen dataclass is filled once, here; its own __setattr__ refuses.
        self.__dict__.update(_resolve(given))
        check_together(self, given)
        if self.gain == "critical":
            _critical(self.activation, self.bias, self.negative_slope)

    @property
    def tied(self) -> bool:
        """Whether every step uses the same weights and biases."""
        return self.kind != "feedforward"

    @property
    def gates(self) -> int:
        """Matrices of a layer: 4 for lstm, 3 for gru, else 1."""
        return _GATES.get(self.kind, 1)

    @property
    def columns(self) -> int:
        """Vectors that each matrix is applied to: inputs of a batch, or probes going backward."""
        return max(self.batch, self.probes)

    @property
    def skip_factor(self) -> float:
        """The alpha of a skip connection as a number; 0 without one."""
        if isinstance(self.skip, str):
            return 1 / math.sqrt(self.depth) if self.skip == "rsqrt-depth" else 1 / self.depth
        return self.skip

    @property
    def quantities(self) -> tuple[str, ...]:
        """Names of what can be recorded of such a chain, in the order of a result file."""
        lacking = set() if self.kind == "lstm" else {"log_cell_grad_norm"}
        if self.probes == 1:
            lacking.add("lyapunov")
        return tuple(name for name in QUANTITIES if name not in lacking)

    @property
    def widths(self) -> tuple[int, ...]:
        """The L + 1 widths n_0, ..., n_L."""
        return self.profile if self.profile is not None else (cast(int, self.width),) * (self.depth + 1)

    @property
    def gains(self) -> NDArray[np.float64]:
        """Gain sigma_w of each layer, shape (L,): Var W_ij = gain^2 / fan_in, or the factor on Q or eye."""
        return self._spread(self._by_layer(self._layer_gain))

    @property
    def biases(self) -> NDArray[np.float64]:
        """Standard deviation of each layer's bias entries, shape (L,)."""
        return self._spread(self._by_layer(self._layer_bias))

    @property
    def bias_law(self) -> str:
        """Law of a bias entry: "uniform" for torch's own default, "gaussian" otherwise."""
        return "uniform" if self.bias is None and self.gain == "torch" else "gaussian"

    def canonical(self) -> str:
        """Return the fields that differ from their default, as JSON with sorted keys.

        Names stay names, aliases become one name and numbers have one form, so that the text identifies what
        is drawn: random streams are keyed by it. A field added to gradsim later does not change it.
        """
        return json.dumps(self._named(), sort_keys=True, separators=(",", ":"))

    def fields(self) -> dict[str, Any]:
        """Return the resolved fields as a result file and JSON output hold them.

        ``gain`` and ``bias`` are numbers, ``gain_name`` is the gain's name as written and ``bias_name`` the
        gain rule that set the bias ("" where neither applies). Where they differ by layer, they are None and
        ``gain_per_layer`` or ``bias_per_layer`` lists them. ``skip`` is a number and ``skip_name`` its name as
        written. Fields that do not apply are left out: see `applies`.
        """
        result: dict[str, Any] = {}
        for name in CHAIN_FIELDS:
            if not self.applies(name):
                continue
            if name == "gain":
                result |= _summarise(name, self._by_layer(self._layer_gain), self.gain_name)
            elif name == "bias":
                rule = self.gain if isinstance(self.gain, str) and self.bias is None else ""
                result |= _summarise(name, self._by_layer(self._layer_bias), rule)
            elif name == "skip":
                result |= _summarise(name, [self.skip_factor], self.skip if isinstance(self.skip, str) else "")
            else:
                value = getattr(self, name)
                result[name] = list(value) if name == "profile" else value
        return result

    def applies(self, name: str) -> bool:
        """Return whether a field says anything about this chain.

        width and depth do without a profile, and it without them; negative_slope with leaky_relu; carry with
        skip; norm_position and norm_eps with norm; input_noise with tied weights; forget_bias for lstm;
        activation, skip, norm and dropout for all but lstm and gru.
        """
        if name in ("width", "depth", "profile"):
            return (name == "profile") == (self.profile is not None)
        if name in ("activation", "skip", "norm", "dropout"):
            return self.gates == 1
        conditions = {
            "negative_slope": self.activation == "leaky_relu",
            "carry": self.skip != 0,
            "norm_position": self.norm != "none",
            "norm_eps": self.norm != "none",
            "input_noise": self.tied,
            "forget_bias": self.kind == "lstm",
        }
        return conditions.get(name, True)

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Chain:
        """Make the chain that `fields` describes: the inverse of `Chain.fields`.

        The counts ``chains`` and ``chains_done``, which a result file keeps beside the fields, are ignored.

        Raises
        ------
        ExperimentError
            Where the fields describe no chain, or a gain or skip that is not the one its name stands for.
        """
        given: dict[str, Any] = {name: plain(value) for name, value in fields.items()}
        given.pop("chains", None)
        given.pop("chains_done", None)
        stated: dict[str, Any] = {}
        for name in ("gain", "bias"):
            stated[name] = given.pop(f"{name}_per_layer", None) or given.pop(name, None)
            rule = given.pop(f"{name}_name", "")
            given.pop(name, None)
            if not rule:
                given[name] = stated[name]
            elif name == "gain":
                given["gain"] = rule
        skip = given.get("skip")
        given["skip"] = given.pop("skip_name", "") or skip
        chain = cls(**given)
        for name, rule in (("gain", chain._layer_gain), ("bias", chain._layer_bias)):
            _check_stated(name, stated[name], chain._by_layer(rule))
        if skip is not None:
            _check_stated("skip", skip, [chain.skip_factor])
        return chain

    def replace(self, **changes: Any) -> Chain:
        """Return the chain with these fields changed; profile replaces width and depth, and they it.

        What no longer applies is left out: the slope of an activation that is replaced, the carry of a skip that
        is, what belongs to another kind or norm. `dataclasses.replace` does the same.
        """
        given = self._named()
        for name in CHAIN_FIELDS:
            if name in changes:
                given.pop(name, None)
        if changes.get("profile") is not None:
            given = {name: value for name, value in given.items() if name not in ("width", "depth")}
        elif "width" in changes or "depth" in changes:
            given.pop("profile", None)
        kind, norm = changes.get("kind", self.kind), changes.get("norm", self.norm)
        gone = {
            "negative_slope": changes.get("activation", "leaky_relu") != "leaky_relu" or kind in _GATES,
            "activation": kind in _GATES,
            "carry": changes.get("skip", self.skip) == 0,
            "norm_position": norm == "none",
            "norm_eps": norm == "none",
            "input_noise": kind == "feedforward",
            "forget_bias": kind != "lstm",
        }
        given = {name: value for name, value in given.items() if not gone.get(name, False)}
        given.update(changes)
        return type(self)(**given)

    def __repr__(self) -> str:
        named = self._named()
        shape = {name: getattr(self, name) for name in (("profile",) if self.profile else ("width", "depth"))}
        shown: dict[str, Any] = {"kind": self.kind} if self.tied else {}
        shown |= {"activation": self.activation} if self.activation else {}
        shown |= {**shape, "gain": self.gain}
        shown |= {name: value for name, value in named.items() if name not in shown}
        return f"Chain({', '.join(f'{name}={_brief(value)}' for name, value in shown.items())})"

    def _named(self) -> dict[str, Any]:
        """Return the fields as named that differ from their default, profile as a list."""
        result: dict[str, Any] = {}
        for name in CHAIN_FIELDS:
            value = getattr(self, name)
            if value is None or (self.profile is not None and name in ("depth", "width")):
                continue
            if value != _default(name, self.kind, self.gain, self.norm):
                result[name] = list(value) if name == "profile" else value
        return result

    def _by_layer(self, rule: Callable[[int, int], float]) -> list[float]:
        """Apply a rule of (fan_in, fan_out) to each layer, or once where all widths are equal."""
        if self.profile is None:
            width = cast(int, self.width)
            return [rule(width, width)]
        return [rule(fan_in, fan_out) for fan_in, fan_out in itertools.pairwise(self.profile)]

    def _spread(self, values: list[float]) -> NDArray[np.float64]:
        import numpy as np

        return np.array(np.broadcast_to(np.asarray(values, dtype=np.float64), self.depth))

    def _layer_gain(self, fan_in: int, fan_out: int) -> float:
        if not isinstance(self.gain, str):
            return self.gain
        if self.gain == "critical":
            return _critical(self.activation, self.bias, self.negative_slope)[0]
        if self.gain == "glorot":
            return math.sqrt(2 * fan_in / (fan_in + fan_out))
        return {"he": math.sqrt(2), "lecun": 1.0, "torch": math.sqrt(1 / 3)}[self.gain]

    def _layer_bias(self, fan_in: int, fan_out: int) -> float:
        if self.bias is not None:
            return self.bias
        if self.gain == "critical":
            return _critical(self.activation, None, self.negative_slope)[1]
        return math.sqrt(1 / (3 * fan_in))  # torch.nn.Linear draws its bias from U(+-1/sqrt(fan_in))


@lru_cache(maxsize=1024)
def _critical(activation: str, bias: float | None, negative_slope: float) -> tuple[float, float]:
    """Return the critical gain and bias; an `ExperimentError` says where there is none."""
    from gradsim.criticality import critical_gain

    return critical_gain(activation, bias=bias, negative_slope=negative_slope)


def _default(name: str, kind: str, gain: float | str, norm: str) -> Value | None:
    """Return a field's default, which for some depends on other fields."""
    if kind in _GATES and name in ("activation", "gain"):
        return {"activation": "", "gain": "torch"}[name]
    if name == "init" and gain == "torch":
        return "uniform"
    if name == "bias" and gain in ("torch", "critical"):
        return None
    if name == "batch" and norm == "batch":
        return _BATCH_OF_NORM
    return DEFAULTS.get(name)


def _resolve(given: Mapping[str, Value]) -> dict[str, Any]:
    """Fill in the defaults; depth and width follow a profile."""
    kind, norm = (cast(str, given.get(name, DEFAULTS[name])) for name in ("kind", "norm"))
    written = cast("float | str", given.get("gain", _default("gain", kind, "", norm)))
    gain = ALIASES.get(written, written) if isinstance(written, str) else written
    resolved: dict[str, Any] = {name: given.get(name, _default(name, kind, gain, norm)) for name in CHAIN_FIELDS}
    resolved["gain"] = gain
    resolved["gain_name"] = written if isinstance(written, str) else ""
    if "profile" in given:
        resolved["depth"] = len(resolved["profile"]) - 1
        resolved["width"] = None
    return resolved


def _summarise(name: str, values: list[float], rule: str) -> dict[str, Any]:
    """Return one number and its name, or None and the list where layers differ."""
    if len(set(values)) == 1:
        return {name: values[0], f"{name}_name": rule}
    return {name: None, f"{name}_name": rule, f"{name}_per_layer": values}


def _check_stated(name: str, stated: object, found: list[float]) -> None:
    """Refuse a stated number or list that is not what the named rule gives."""
    values = stated if isinstance(stated, list) else [stated] * len(found)
    pairs = zip(values, found, strict=False)
    close = (isinstance(a, int | float) and math.isclose(a, b, rel_tol=1e-6) for a, b in pairs)
    if len(values) != len(found) or not all(close):
        raise ExperimentError(f"the {name} stated for this chain is not the one its name stands for")


def _brief(value: object) -> str:
    """Write a value short: long profiles keep their ends."""
    if isinstance(value, tuple) and len(value) > 12:
        ends = ", ".join(map(str, value[:4])), ", ".join(map(str, value[-2:]))
        return f"[{ends[0]}, ..., {ends[1]}]"
    return repr(value)
