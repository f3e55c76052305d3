"""`Experiment`: a grid of chains and how to run it; TOML and JSON in, JSON and a hash out."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from typing import Any, Final, cast

from gradsim.chain import Chain
from gradsim.claim import Claim, check_cells, controlled, read_claim
from gradsim.combinations import check_method
from gradsim.errors import ExperimentError, naming
from gradsim.experiment_text import read_text
from gradsim.fields import Field, Value, check_keys, reject, show, unknown_key
from gradsim.grid import MAX_CELLS, Table, count_cells, expand, override, parse_flag, read_axis, read_table
from gradsim.vocabulary import CHAIN_FIELDS, HEAD_FIELDS, QUANTITIES, RUN_FIELDS, SETTING_DEFAULTS

__all__ = ["MAX_JSON_BYTES", "Experiment"]

#: The experiment is kept as one attribute of a result file, which holds at most 64 KiB.
MAX_JSON_BYTES: Final = 60_000

_SETTINGS: Final[dict[str, Field]] = HEAD_FIELDS | RUN_FIELDS
_CLAIM_KEYS: Final = ("claim", "expect")
#: Settings on which it depends whether a claim can be judged.
_JUDGED_BY: Final = ("chains", "record", "quantities", "keep", "dtype")


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Experiment:
    """A grid of chains, how many of each, and how to run them.

    Parameters
    ----------
    chain : Chain, mapping or sequence of these, optional
        One table of chain fields, in which a list or a range ``{"from": ..., "to": ..., "num": ...}`` is an
        axis, or several such tables one after the other. Left out, the chain with all defaults.
    chains : int
        Chains per cell.
    seed : int
        0 to 2^64 - 1.
    title, method, device, dtype, record, quantities, streams, block, keep
        As in an experiment file; ``keep`` is the number of trajectories that record "summary" keeps. Of the
        quantities each cell records those that its chain has; by default, all that any has.
    claim : str
        A sentence to be judged by what is found.
    expect : sequence of mapping
        What must be found for it to hold: see `gradsim.claim.Expectation`.

    Attributes
    ----------
    cells : tuple of Chain
        One chain per cell, tables in order and within each the last axis varying fastest.
    tables : tuple of dict
        The tables, ranges written out; a list is an axis.
    claim : Claim or None
        The sentence and its expectations.
    unjudged : str
        Why the document's claim was left out: what overrides changed; "" where it was not, or there is none.

    Raises
    ------
    ExperimentError
        Naming the file, the key, the value and what is allowed.
    """

    title: str
    seed: int
    chains: int
    method: str
    device: str
    dtype: str
    record: str
    quantities: tuple[str, ...]
    streams: str
    block: int | str
    keep: int
    tables: tuple[Table, ...]
    cells: tuple[Chain, ...]
    claim: Claim | None
    unjudged: str

    def __init__(
        self,
        chain: Chain | Mapping[str, Any] | Sequence[Chain | Mapping[str, Any]] | None = None,
        *,
        chains: int | None = None,
        seed: int | None = None,
        title: str | None = None,
        method: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
        record: str | None = None,
        quantities: Sequence[str] | None = None,
        streams: str | None = None,
        block: int | str | None = None,
        keep: int | None = None,
        claim: str | None = None,
        expect: Sequence[Mapping[str, Any]] | None = None,
        **unknown: object,
    ) -> None:
        for name in unknown:
            raise unknown_key(name, ["chain", *_SETTINGS, *_CLAIM_KEYS])
        head = {"title": title, "seed": seed, "chains": chains, "claim": claim, "expect": expect}
        run = {
            "method": method,
            "device": device,
            "dtype": dtype,
            "record": record,
            "quantities": quantities,
            "streams": streams,
            "block": block,
            "keep": keep,
        }
        document: dict[str, Any] = {name: value for name, value in head.items() if value is not None}
        document["run"] = {name: value for name, value in run.items() if value is not None}
        if chain is not None:
            document["chain"] = chain
        self._fill(document, {}, "")

    @classmethod
    def from_dict(
        cls, document: Mapping[str, Any], overrides: Mapping[str, Any] | None = None, source: str = ""
    ) -> Experiment:
        """Make an experiment from the content of an experiment file.

        Parameters
        ----------
        document : mapping
            Keys title, claim, seed, chains, chain, run and expect, as in a file.
        overrides : mapping, optional
            Chain fields and settings that replace those of the document: values, lists, or the text of flags.
            A chain field is replaced in every table, and axes from here follow the table's own. A claim about
            the document's chains is left out where they make other chains, or too few to judge it: see `unjudged`.
        source : str
            The file's name, for messages.
        """
        experiment = cls.__new__(cls)
        experiment._fill(document, overrides or {}, source)
        return experiment

    @classmethod
    def from_text(cls, text: str, overrides: Mapping[str, Any] | None = None, source: str = "experiment") -> Experiment:
        """Make an experiment from the text of a TOML file; errors as in `from_toml`."""
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            last = f"at line {len(text.splitlines())}, the end of the file"
            reason = " ".join(str(error).split()).replace("at end of document", last)
            raise ExperimentError(f"{source}: not valid TOML: {reason}") from None
        except RecursionError:
            raise ExperimentError(f"{source}: lists or tables are nested too deeply for an experiment") from None
        except ValueError:
            # Python refuses to convert thousands of digits, and tomllib lets that through.
            raise ExperimentError(f"{source}: an integer has too many digits: the largest is 2^64 - 1") from None
        return cls.from_dict(document, overrides, source)

    @classmethod
    def from_toml(cls, path: str | PathLike[str], overrides: Mapping[str, Any] | None = None) -> Experiment:
        """Read an experiment file.

        Raises
        ------
        ExperimentError
            Where there is no such file, it is not TOML (the message says the line) or holds no experiment.
        StorageError
            Where the file cannot be read.
        """
        return cls.from_text(read_text(path), overrides, str(path))

    @classmethod
    def from_json(cls, text: str) -> Experiment:
        """Make the experiment that `to_json` wrote."""
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ExperimentError(f"not an experiment in JSON: {error}") from None
        if not isinstance(document, dict):
            raise ExperimentError("not an experiment in JSON: it is no object")
        return cls.from_dict(document)

    def to_json(self) -> str:
        """Return the experiment as JSON: every setting, and each table with its axes in order.

        Ranges are written out; defaults that hold for every cell of a table follow the table's own fields.
        """
        document: dict[str, Any] = {name: getattr(self, name) for name in HEAD_FIELDS}
        if self.claim is not None:
            document["claim"] = self.claim.text
            document["expect"] = [expectation.to_dict() for expectation in self.claim.expectations]
        document["run"] = {name: getattr(self, name) for name in RUN_FIELDS}
        document["chain"] = []
        start = 0
        for table in self.tables:
            stop = start + count_cells(table)
            document["chain"].append(table | _shared_defaults(table, self.cells[start:stop]))
            start = stop
        return json.dumps(document, ensure_ascii=False, separators=(",", ":"))

    @cached_property
    def hash(self) -> str:
        """SHA-256, in hex, of what determines the numbers of a run apart from the count of chains.

        That is the canonical fields of the cells in order, seed, method, device, dtype, record, streams and
        quantities; title, claim, chains, block and keep do not enter.
        """
        names = ("method", "device", "dtype", "record", "streams", "quantities")
        content: dict[str, Any] = {name: getattr(self, name) for name in names}
        content |= {"seed": str(self.seed), "cells": [chain.canonical() for chain in self.cells]}
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def quantities_of(self, chain: Chain) -> tuple[str, ...]:
        """Return what is recorded of a cell with this chain: of the quantities, those that the chain has."""
        return tuple(name for name in chain.quantities if name in self.quantities)

    def control(self, number: int, chains: int | None = None) -> Experiment:
        """Return the experiment in which an expectation of the claim must fail.

        Its cells are those that the expectation is about, with the fields of its control, and it claims the same of
        all of them.

        Parameters
        ----------
        number : int
            Of the expectation, from 1.
        chains : int, optional
            Chains per cell; by default as many as here.

        Raises
        ------
        ExperimentError
            Where there is no such expectation, or it has no control.
        """
        expectations = () if self.claim is None else self.claim.expectations
        if self.claim is None or not 0 < number <= len(expectations):
            raise ExperimentError(f"there is no expectation {number}: the experiment has {len(expectations)}")
        expectation = expectations[number - 1]
        if not expectation.control:
            raise ExperimentError(f"expectation {number} has no control")
        cells = controlled(expectation, self.cells)
        document = json.loads(self.to_json()) | {"chain": cells, "chains": chains or self.chains}
        document["expect"] = [expectation.to_dict() | {"cells": {}, "control": {}}]
        recorded = {name for chain in cells for name in self.quantities_of(chain)}
        document["run"]["quantities"] = [name for name in self.quantities if name in recorded]
        return self.from_dict(document)

    def __eq__(self, other: object) -> bool:
        return self.to_json() == other.to_json() if isinstance(other, Experiment) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.hash)

    def __repr__(self) -> str:
        title = f"{self.title!r}, " if self.title else ""
        return f"Experiment({title}cells={len(self.cells)}, chains={self.chains}, seed={self.seed})"

    def _fill(self, document: Mapping[str, Any], overrides: Mapping[str, Any], source: str) -> None:
        """Check everything and set the attributes; a frozen dataclass is filled once, here."""
        table_overrides, setting_overrides = _read_overrides(overrides)
        with naming(source):
            own = _read_settings(document)
            raw_tables = _raw_tables(document)
            claim = read_claim(document)
        tables, written = [], []
        for number, raw in enumerate(raw_tables, start=1):
            place = "chain" if len(raw_tables) == 1 else f"chain {number}"
            with naming(source, place):
                fields = json.loads(raw.canonical()) if isinstance(raw, Chain) else raw
                if not isinstance(fields, Mapping):
                    raise ExperimentError(f"{show(raw)} is not a table of chain fields")
                written.append(read_table(fields))
                tables.append((place, override(written[-1], table_overrides)))
        count = sum(count_cells(table) for _, table in tables)
        if count > MAX_CELLS:
            with naming(source):
                raise ExperimentError(f"the grid has {count} cells: an experiment has at most {MAX_CELLS}")
        cells = [chain for place, table in tables for chain in _make_cells(table, source, place)]
        with naming(source, "run"):
            settings = _settings(own | setting_overrides, cells)
            for chain in cells:
                check_method(chain, cast(str, settings["method"]))
        self.__dict__.update(settings, tables=tuple(table for _, table in tables), cells=tuple(cells))
        with naming(source):
            unjudged = "" if claim is None else self._unjudged(claim, written, own, table_overrides, setting_overrides)
        self.__dict__.update(claim=None if unjudged else claim, unjudged=unjudged)
        size = len(self.to_json().encode())
        if size > MAX_JSON_BYTES:
            with naming(source):
                text = f"the experiment written out takes {size} bytes: at most {MAX_JSON_BYTES} fit into a file"
                raise ExperimentError(f"{text}; split it, or use fewer tables and shorter axes")

    def _unjudged(
        self,
        claim: Claim,
        written: Sequence[Table],
        own: dict[str, Value],
        fields: Table,
        settings: Mapping[str, Value],
    ) -> str:
        """Why overrides leave a claim without the experiment it is about; a document's own faults are refused.

        Parameters
        ----------
        claim : Claim
        written : sequence of dict
            The tables before the overrides.
        own : dict
            The settings before the overrides.
        fields, settings : mapping
            The overrides.
        """
        if not fields and not settings:
            _check_claim(claim, self.cells, self.__dict__)
            return ""
        before = _cells_of(written)
        _check_by_itself(claim, before, own)
        # The same chains in another order are what the claim is about.
        if set(before) != set(self.cells):
            return f"its experiment was changed by {_flags(fields)}"
        try:
            _check_claim(claim, self.cells, self.__dict__)
        except ExperimentError as error:
            changed = _flags(name for name in settings if name in _JUDGED_BY)
            return f"its experiment was changed by {changed}: {error}"
        return ""


def _settings(given: dict[str, Value], cells: Sequence[Chain]) -> dict[str, Value]:
    """Every setting of an experiment of these cells."""
    return SETTING_DEFAULTS | given | {"quantities": _recorded(given.get("quantities"), cells)}


def _check_by_itself(claim: Claim, cells: Sequence[Chain], own: dict[str, Value]) -> None:
    """Refuse a claim that a document's own chains and settings do not bear, whatever overrides put in their place.

    A document that is no experiment before the overrides mend it has none to hold its claim against.
    """
    try:
        settings = _settings(own, cells)
    except ExperimentError:
        return
    if cells:
        _check_claim(claim, cells, settings)


def _check_claim(claim: Claim, cells: Sequence[Chain], settings: Mapping[str, Any]) -> None:
    """Refuse a claim that cells of these settings cannot decide."""
    chains = settings["chains"]
    kept = chains if settings["record"] == "trajectories" else min(settings["keep"], chains)
    check_cells(claim, cells, settings["quantities"], chains=chains, stored=kept, dtype=settings["dtype"])


def _cells_of(tables: Sequence[Table]) -> tuple[Chain, ...]:
    """The chains of tables as a document writes them; none where they are not chains without what replaces them."""
    if sum(map(count_cells, tables)) > MAX_CELLS:
        return ()
    try:
        return tuple(chain for table in tables for chain in _make_cells(table, "", ""))
    except ExperimentError:
        return ()


def _flags(names: Iterable[str]) -> str:
    """Overrides, as the command line names them."""
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)


def _read_settings(document: Mapping[str, Any]) -> dict[str, Value]:
    """Check the head and the run table of a document."""
    for name in document:
        if name not in ("chain", "run", *HEAD_FIELDS, *_CLAIM_KEYS):
            raise unknown_key(name, [*HEAD_FIELDS, *_CLAIM_KEYS, "chain", "run"])
    settings = {name: HEAD_FIELDS[name].normalise(document[name]) for name in HEAD_FIELDS if name in document}
    run = document.get("run", {})
    if not isinstance(run, Mapping):
        raise ExperimentError(reject("run", run, "run is one table, [run]"))
    with naming("run"):
        check_keys(run, RUN_FIELDS)
        settings |= {name: RUN_FIELDS[name].normalise(value) for name, value in run.items()}
    return settings


def _raw_tables(document: Mapping[str, Any]) -> list[Any]:
    """Return the chain tables of a document; one empty table where it has none."""
    raw = document.get("chain", {})
    if isinstance(raw, Chain | Mapping):
        return [raw]
    if not isinstance(raw, list | tuple) or not raw:
        raise ExperimentError(reject("chain", raw, "chain is a table [chain] or one or more tables [[chain]]"))
    if len(raw) > MAX_CELLS:
        raise ExperimentError(f"there are {len(raw)} chain tables: an experiment has at most {MAX_CELLS} cells")
    return list(raw)


def _read_overrides(overrides: Mapping[str, Any]) -> tuple[Table, dict[str, Value]]:
    """Check overrides and part them into chain fields and settings."""
    table: Table = {}
    settings: dict[str, Value] = {}
    for name, raw in overrides.items():
        value = parse_flag(name, raw) if _is_text(raw) or name not in CHAIN_FIELDS | _SETTINGS else raw
        if name in _SETTINGS:
            settings[name] = _SETTINGS[name].normalise(value)
        else:
            table[name] = read_axis(CHAIN_FIELDS[name], value)
    return table, settings


def _is_text(raw: object) -> bool:
    """Return whether an override is the text of a flag or of a repeated flag."""
    return isinstance(raw, str) or (
        isinstance(raw, list | tuple) and bool(raw) and all(isinstance(item, str) for item in raw)
    )


def _make_cells(table: Table, source: str, place: str) -> list[Chain]:
    """Return the chains of one table; an error says at which values of the axes it arose."""
    axes = [name for name, value in table.items() if isinstance(value, list)]
    chains = []
    for cell in expand(table):
        values: dict[str, Any] = cell
        try:
            chains.append(Chain(**values))
        except ExperimentError as error:
            where = ", ".join(f"{name} = {show(cell[name])}" for name in axes)
            with naming(source, f"{place} at {where}" if where else place):
                raise ExperimentError(str(error)) from None
    return chains


def _recorded(asked: Value | None, cells: Sequence[Chain]) -> tuple[str, ...]:
    """Return the quantities to record: those asked for, or all that any cell has."""
    possible = {name for chain in cells for name in chain.quantities}
    if asked is None:
        return tuple(name for name in QUANTITIES if name in possible)
    names = cast("tuple[str, ...]", asked)
    for name in names:
        if name not in possible:
            needs = {"log_cell_grad_norm": 'kind = "lstm"', "lyapunov": "probes > 1"}[name]
            raise ExperimentError(f"quantities = {show(names)}: no cell has {name}, which needs {needs}")
    return names


def _shared_defaults(table: Table, cells: Sequence[Chain]) -> dict[str, Any]:
    """Return the fields that a table leaves out and that apply, with one value, to all of its cells."""
    shared = {}
    for name in CHAIN_FIELDS:
        applies = all(chain.applies(name) for chain in cells)
        values = {getattr(chain, name) for chain in cells}
        if name not in table and applies and len(values) == 1 and values != {None}:
            shared[name] = values.pop()
    return shared
