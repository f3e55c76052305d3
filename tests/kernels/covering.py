"""Sets of cases that meet every pair of values of two fields that can meet: greedy pairwise covering.

A table maps each field to its values; a case maps fields to values, None leaving a field out.
"""

from __future__ import annotations

import itertools
import random


def pair(table, first, second):
    """A pair of (field, value) in the order of the table."""
    return tuple(sorted((first, second), key=lambda item: list(table).index(item[0])))


def pairs_of(table, case):
    """The pairs a case meets."""
    return {pair(table, a, b) for a, b in itertools.combinations(case.items(), 2)}


def allowed_pairs(table, completions):
    """Every pair that some case has, by `completions(partial, rng)`, which yields the cases that fit."""
    items = [(name, value) for name, values in table.items() for value in values]
    couples = ((a, b) for a, b in itertools.combinations(items, 2) if a[0] != b[0])
    return {pair(table, a, b) for a, b in couples if next(iter(completions(dict((a, b)), None)), None) is not None}


def covering_cases(table, completions, fits, accept, attempts=40):
    """Accepted cases that together meet every allowed pair.

    Each begins with a pair not yet met and adds the values that meet most of the rest. `accept(case)` makes a case into
    what is kept of it, or gives None: the pair then begins another case. A pair never accepted is an error.
    """
    rng = random.Random(0)
    missing = allowed_pairs(table, completions)
    kept = []
    while missing:
        start = min(missing, key=str)
        for _ in range(attempts):
            case = _filled(table, start, completions, fits, missing, rng)
            if (made := accept(case)) is not None:
                break
        else:
            raise AssertionError(f"no case with {start} is accepted")
        missing -= pairs_of(table, case)
        kept.append(made)
    return kept


def _filled(table, start, completions, fits, missing, rng):
    case = next(iter(completions(dict(start), rng)))
    for name in rng.sample(list(table), len(table)):
        if name not in case:
            fitting = [value for value in table[name] if fits(case | {name: value})]
            rng.shuffle(fitting)
            case[name] = max(
                fitting, key=lambda value: sum(pair(table, (name, value), item) in missing for item in case.items())
            )
    return case
