"""What chains by the CUDA kernels are held to: the CPU's engine, and an oracle in NumPy."""

from __future__ import annotations

import warnings

import numpy as np

from gradsim.kernels import cpu, reference
from tests.kernels import compare, naive_deferred, oracle

#: Errors of a unit of rounding times this times sqrt(n) in all that a chain is made of, at each of its layers; times
#: what the chain makes of errors, its condition. n: terms of the longest sum.
ALLOWED = 6.0


def quantities_of(case):
    return tuple(case.quantities or case.chain.quantities)


def exact(case):
    """By quantity, (count, columns) in float64, from the case's oracle."""
    chain, rows = case.chain, []
    for index in range(case.first, case.first + case.count):
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            if case.oracle == "deferred":
                rows.append(naive_deferred.simulate(chain, case.seed, index))
            elif case.oracle == "wide":
                rows.append(oracle.simulate(chain, case.seed, index, case.streams).quantities)
            else:
                rows.append(reference.simulate_chain(chain, case.seed, index, streams=case.streams))
    return {name: np.array([np.asarray(row[name], float) for row in rows]) for name in quantities_of(case)}


def by_cpu(case):
    """By quantity, (count, columns) by the CPU's engine."""
    engine = cpu.Engine(case.chain, case.seed, case.dtype, quantities_of(case), case.streams, case.method)
    return {name: values.astype(float) for name, values in engine.run(case.first, case.count).items()}


def bound(case, values):
    """How far a kernel may be from these values."""
    chain = case.chain
    terms = max(chain.widths) * chain.batch
    errors = ALLOWED * compare.EPS[case.dtype] * np.sqrt(terms) * max(1.0, case.condition)
    return errors + 8 * compare.EPS["float64"] * np.abs(np.where(np.isfinite(values), values, 0.0))


def wrong(found, case, stored=False):
    """Where chains are neither what the CPU gives nor what the oracle does: (oracle, quantity, differences).

    Infinities and NaN are where they are expected and nowhere else. `stored`: the results were rounded to float32.
    """
    assert set(found) == set(quantities_of(case))
    faults, expected = [], exact(case)
    for name, values in by_cpu(case).items():
        # Either may be so far from the oracle; the CPU further where a deferred chain, whose matrices are not those of
        # the dense one, has a worse condition than it. The kernel is held to the oracle below all the same.
        with np.errstate(invalid="ignore"):
            of_cpu = np.abs(values - expected[name])
        further = np.maximum(bound(case, values), np.where(np.isfinite(of_cpu), of_cpu, 0.0))
        allowed = bound(case, values) + further + (1 + stored) * compare.stored(values)
        faults += faults_of("cpu", name, found[name], values, allowed)
    for name, values in expected.items():
        if case.dtype == "float64" or np.isfinite(values).all():
            allowed = bound(case, values) + stored * compare.stored(values)
            faults += faults_of("oracle", name, found[name], values, allowed)
    return faults


def faults_of(held_to, name, found, expected, allowed):
    """The places of an array at which it is not as expected."""
    assert found.shape == expected.shape
    differences = compare.differences({name: found.ravel()}, {name: expected.ravel()}, {name: np.ravel(allowed)})
    return [(held_to, name, difference) for difference in differences.get(name, [])]
