"""A claim about an experiment's chains: one sentence, and what must be found for it to hold.

It is read and checked against the cells here; `gradsim.claim_verdict` judges it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from gradsim.errors import ExperimentError, naming
from gradsim.fields import Field, Unsuitable, Value, check_keys, choice, plain, real, reject, show, unknown_key, whole
from gradsim.vocabulary import ALIASES, CHAIN_FIELDS, MAX_DEPTH, QUANTITIES

if TYPE_CHECKING:
    from gradsim.chain import Chain

__all__ = ["Claim", "Expectation", "check_cells", "columns_of", "controlled", "read_claim"]

#: Expectations of one claim, and characters of its sentence.
MAX_EXPECTATIONS: Final = 100
MAX_TEXT: Final = 500

_EXPECT_KEYS: Final = ("quantity", "layer", "cells", "op", "value", "control")
_NEEDED: Final = ("quantity", "layer", "op", "value")
#: Quantities without a rate, and why.
_RATELESS: Final = {
    "lyapunov": "its columns are exponents, not layers",
    "log_cell_grad_norm": "it is -inf at the last step",
}
#: Quantities that are -inf where the backpropagated gradient is zero.
_GRADIENTS: Final = ("log_grad_norm", "log_grad_max", "log_weight_grad_norm")
#: Chains without which a mean has no standard error.
_FEWEST: Final = 2
#: Relative difference below which a number is the one that a name stands for.
_ALIKE: Final = 1e-6


@dataclass(frozen=True)
class Expectation:
    """What must be found in some cells for a claim to hold.

    Attributes
    ----------
    quantity : str
        What was recorded; its mean over the chains that are alive is judged.
    layer : int or str
        The layer (of log_weight_grad_norm the weight matrix, of lyapunov the exponent), "all" of them each for
        itself, or "rate": the growth per layer going backward, between the last layer and the first.
    cells : dict
        Values of chain fields: it is about the cells that have all of them. A gain, bias or skip that goes by a name
        is also found by the number the name stands for.
    op : str
        "<", ">" or "within".
    value : float or tuple of float
        The bound, or the lower and the upper one.
    control : dict
        Chain fields that, so replaced in these cells, make it fail; empty where none was given.
    """

    quantity: str
    layer: int | str
    cells: dict[str, Value]
    op: str
    value: float | tuple[float, float]
    control: dict[str, Value]

    def selects(self, chain: Chain) -> bool:
        """Whether it is about this chain."""
        return all(chain.applies(name) and _has(chain, name, value) for name, value in self.cells.items())

    def to_dict(self) -> dict[str, Any]:
        """The table ``[[expect]]`` of an experiment file."""
        return {name: getattr(self, name) for name in _EXPECT_KEYS}


@dataclass(frozen=True)
class Claim:
    """A sentence and the expectations that must all be met for it to hold."""

    text: str
    expectations: tuple[Expectation, ...]


def read_claim(document: Mapping[str, Any]) -> Claim | None:
    """Return the claim of an experiment file's content, or None where it makes none.

    Raises
    ------
    ExperimentError
        For an unknown key or a value that is not allowed, or where sentence or expectations stand alone.
    """
    text, raw = document.get("claim"), document.get("expect")
    if text is None and raw is None:
        return None
    if text is None:
        raise ExperimentError('expect without claim: say in one sentence what is expected, claim = "..."')
    if not isinstance(text, str) or not text.strip() or not text.isprintable() or len(text) > MAX_TEXT:
        allowed = f"claim is one line of at most {MAX_TEXT} printable characters"
        raise ExperimentError(reject("claim", text, allowed))
    if raw is None:
        raise ExperimentError("claim without expect: say in one or more tables [[expect]] what must be found")
    if not isinstance(raw, list | tuple) or not 0 < len(raw) <= MAX_EXPECTATIONS:
        allowed = f"expect is one to {MAX_EXPECTATIONS} tables [[expect]]"
        raise ExperimentError(reject("expect", raw, allowed))
    expectations = []
    for number, table in enumerate(raw, start=1):
        with naming(f"expect {number}"):
            expectations.append(_read_expectation(table))
    return Claim(text, tuple(expectations))


def check_cells(
    claim: Claim, cells: Sequence[Chain], recorded: Sequence[str], *, chains: int, stored: int, dtype: str
) -> None:
    """Refuse a claim about cells, layers or quantities that an experiment does not have, or that it cannot decide.

    Parameters
    ----------
    claim : Claim
    cells : sequence of Chain
    recorded : sequence of str
        The experiment's quantities.
    chains, stored : int
        How many are simulated in a cell, and how many of their trajectories are kept.
    dtype : str
        Arithmetic of the chains.

    Raises
    ------
    ExperimentError
        Naming the expectation, and its control where only that cannot be judged.
    """
    for number, expectation in enumerate(claim.expectations, start=1):
        with naming(f"expect {number}"):
            selected = [chain for chain in cells if expectation.selects(chain)]
            if not selected:
                wanted = ", ".join(f"{name} = {show(value)}" for name, value in expectation.cells.items())
                raise ExperimentError(f"cells: no cell of the experiment has {wanted}")
            _check_sample(expectation, chains, stored)
            for chain in selected:
                _check_cell(expectation, chain, recorded)
                _check_range(expectation, chain, dtype)
            with naming("control"):
                for chain in selected if expectation.control else ():
                    _check_cell(expectation, _controlled(expectation, chain), recorded)


def controlled(expectation: Expectation, cells: Sequence[Chain]) -> list[Chain]:
    """Return the chains, each once, in which an expectation must fail: its cells with the control's fields."""
    chosen = (_controlled(expectation, chain) for chain in cells if expectation.selects(chain))
    return list(dict.fromkeys(chosen))


def columns_of(quantity: str, chain: Chain) -> range:
    """Return how the columns of a quantity are numbered: layers and exponents from 0, weight matrices from 1.

    The cell's gradient at the last step, which is always zero, is not among them.
    """
    if quantity == "log_weight_grad_norm":
        return range(1, 2 if chain.tied else chain.depth + 1)
    if quantity == "log_cell_grad_norm":
        return range(chain.depth)
    return range(chain.probes if quantity == "lyapunov" else chain.depth + 1)


def _read_expectation(raw: object) -> Expectation:
    if not isinstance(raw, Mapping):
        raise ExperimentError(f"{show(raw)} is not a table of {', '.join(_EXPECT_KEYS)}")
    for name in raw:
        if name not in _EXPECT_KEYS:
            raise unknown_key(name, _EXPECT_KEYS)
    for name in _NEEDED:
        if name not in raw:
            raise ExperimentError(f"{name} is missing: an expectation has {', '.join(_NEEDED)}")
    values = {name: field.normalise(raw[name]) for name, field in _FIELDS.items()}
    value = cast("float | tuple[float, float]", values["value"])
    if isinstance(value, tuple) != (values["op"] == "within"):
        allowed = "value is [low, high] beside op within, and a number beside op < and >"
        raise ExperimentError(reject("value", raw["value"], allowed))
    if values["layer"] == "rate" and values["quantity"] in _RATELESS:
        raise ExperimentError(f'layer = "rate" of {values["quantity"]}: {_RATELESS[str(values["quantity"])]}')
    return Expectation(
        quantity=str(values["quantity"]),
        layer=cast("int | str", values["layer"]),
        cells=_read_fields("cells", raw.get("cells", {})),
        op=str(values["op"]),
        value=value,
        control=_read_fields("control", raw.get("control", {})),
    )


def _read_fields(key: str, raw: object) -> dict[str, Value]:
    """Check a table of chain fields, one value each; names are those that a chain keeps."""
    if not isinstance(raw, Mapping):
        raise ExperimentError(reject(key, raw, f"{key} is a table of chain fields and their values"))
    with naming(key):
        check_keys(raw, CHAIN_FIELDS)
        fields = {name: CHAIN_FIELDS[name].normalise(value) for name, value in raw.items()}
    return {name: ALIASES.get(value, value) if isinstance(value, str) else value for name, value in fields.items()}


def _has(chain: Chain, name: str, value: Value) -> bool:
    """Whether a field was written so, or under a name that stands for this number."""
    written = getattr(chain, name)
    if written == value:
        return True
    named = written is None or isinstance(written, str)
    return named and not isinstance(value, str) and _alike(chain.fields()[name], value)


def _alike(found: object, wanted: object) -> bool:
    """Whether two values, or lists of values layer by layer, are equal up to the last digits of numbers."""
    if isinstance(found, list | tuple) and isinstance(wanted, list | tuple):
        return len(found) == len(wanted) and all(map(_alike, found, wanted))
    if isinstance(found, int | float) and isinstance(wanted, int | float):
        return math.isclose(found, wanted, rel_tol=_ALIKE)
    return found == wanted


def _check_sample(expectation: Expectation, chains: int, stored: int) -> None:
    """Refuse a sample that gives no standard error, whatever is drawn."""
    if chains < _FEWEST:
        raise ExperimentError(f"chains = {chains}: a mean without an error decides nothing; give chains >= {_FEWEST}")
    if expectation.layer == "rate" and stored < _FEWEST:
        text = 'layer = "rate" is taken from the chains that are kept'
        raise ExperimentError(f"keep = {stored}: {text}; give keep >= {_FEWEST}")


def _check_cell(expectation: Expectation, chain: Chain, recorded: Sequence[str]) -> None:
    """Refuse a cell that does not have the quantity or the layer, or in which no chain will be alive there."""
    quantity, layer = expectation.quantity, expectation.layer
    if quantity not in recorded or quantity not in chain.quantities:
        raise ExperimentError(f"{quantity} is not recorded in {chain!r}")
    columns = columns_of(quantity, chain)
    if layer == "rate" and len(columns) < 2:
        raise ExperimentError(f'layer = "rate" of {quantity}: {chain!r} has one such number, the total over its steps')
    if isinstance(layer, int) and layer not in columns:
        text = f"layer = {layer}: {quantity} of {chain!r} has {columns[0]} to {columns[-1]}"
        raise ExperimentError(text)
    lowest = layer if isinstance(layer, int) else columns[0]
    # The one column of a chain that uses its weights again is a total, which the last step is part of.
    total = quantity == "log_weight_grad_norm" and chain.tied
    if quantity in _GRADIENTS and not total and lowest < chain.depth and _passes_nothing(chain):
        text = f"gain = 0: in {chain!r} every gradient below the last layer is zero"
        raise ExperimentError(f"{text}, so that {quantity} has no mean")


def _check_range(expectation: Expectation, chain: Chain, dtype: str) -> None:
    """Refuse a range so narrow that rounding alone keeps any mean from being known to lie in it."""
    if not isinstance(expectation.value, tuple):
        return
    from gradsim.rounding import rounding_of_mean

    low, high = expectation.value
    nearest = max(low, -high, 0.0)
    columns = columns_of(expectation.quantity, chain)
    at = (expectation.layer,) if isinstance(expectation.layer, int) else (columns[0], columns[-1])
    allowed = [rounding_of_mean(expectation.quantity, chain, dtype, layer, nearest) for layer in at]
    widest = sum(allowed) / (len(columns) - 1) if expectation.layer == "rate" else max(allowed)
    if high - low <= 2.0 * widest:
        text = f"rounding alone may move the mean by {widest:.2g} in {chain!r}, so that it is never known to lie within"
        raise ExperimentError(f"value = {show(list(expectation.value))}: {text}")


def _passes_nothing(chain: Chain) -> bool:
    """Whether no gradient comes through a layer: weights of zero, and no way around them."""
    around = chain.kind == "gru" or (chain.skip != 0 and chain.carry != 0)
    return chain.gain == 0 and not around


def _controlled(expectation: Expectation, chain: Chain) -> Chain:
    """Return a chain with the control's fields; one that changes nothing, or no more than a name, is refused."""
    changes: dict[str, Any] = dict(expectation.control)
    changed = chain.replace(**changes)
    if changed == chain:
        raise ExperimentError(f"it changes nothing in {chain!r}")
    if _same_law(changed, chain):
        raise ExperimentError(f"it only says in other words what {chain!r} has already")
    return changed


def _same_law(first: Chain, second: Chain) -> bool:
    """Whether two chains differ in the names of their numbers alone."""
    one, other = (
        {name: value for name, value in chain.fields().items() if not name.endswith("_name")}
        for chain in (first, second)
    )
    same_fields = one.keys() == other.keys() and all(_alike(one[name], other[name]) for name in one)
    return same_fields and first.bias_law == second.bias_law


def _check_layer(value: object) -> Value:
    if isinstance(value, str):
        if value in ("all", "rate"):
            return value
        raise Unsuitable
    return whole(value, 0, MAX_DEPTH)


def _check_value(value: object) -> Value:
    if not isinstance(value, list):
        return real(value, -float("inf"))
    bounds = tuple(real(plain(bound), -float("inf")) for bound in value)
    if len(bounds) != 2 or bounds[0] >= bounds[1]:
        raise Unsuitable
    # A pair of numbers is no value of a chain field, but is checked as one.
    return cast("Value", bounds)


_FIELDS: Final[dict[str, Field]] = {
    field.name: field
    for field in (
        choice("quantity", "What was recorded", QUANTITIES),
        Field("layer", "Where", 'a layer\'s number, "all" or "rate"', _check_layer, "text"),
        choice("op", "How it compares", ("<", ">", "within")),
        Field("value", "With what", "a number, or [low, high] with low < high", _check_value, "number"),
    )
}
