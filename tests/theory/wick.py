"""P_ij(n) = E tr G^i (G^j)^T for a real Gaussian G with unit entries, in two ways that share nothing.

``python -m tests.theory.wick 24`` prints the table that gradsim/theory/recurrent_moments.txt holds.
"""

from __future__ import annotations

import sys


def polynomials(largest):
    """Coefficients of n, n^2, ... of P_ij for i <= j <= largest of the same parity, by pair; else P_ij = 0.

    Stein's lemma: integrating by parts over the outermost factor of G^c u in M = E (G^b u, G^c u) prod_i tr G^{a_i},
    |u| = 1, gives such expectations with two factors fewer. One evaluation at a large power of ten shows all
    coefficients.
    """
    base = 10**60
    pairs = pair_moments(base)
    rows = {}
    for j in range(1, largest + 1):
        for i in range(j % 2, j + 1, 2):
            value, row = pairs(i, j, ()) * base, []
            while value:
                value, digit = divmod(value, base)
                row.append(digit)
            rows[i, j] = row[1:]
    return rows


def pair_moments(n):
    """The function M(b, c, traces) at width n; traces sorted."""
    memo = {}

    def pairs(b, c, traces):
        b, c = min(b, c), max(b, c)
        if c == 0:
            return only_traces(traces)
        key = b, c, traces
        if key not in memo:
            total = sum(pairs(c - 2 - p, b + p, traces) for p in range(c - 1))
            for p in range(b):
                added = traces if p == 0 else tuple(sorted((*traces, p)))
                total += (n if p == 0 else 1) * pairs(b - 1 - p, c - 1, added)
            for a in set(traces):
                total += traces.count(a) * a * pairs(c - 1, a - 1 + b, without(traces, a))
            memo[key] = total
        return memo[key]

    def only_traces(traces):
        if not traces:
            return 1
        a, rest = traces[-1], traces[:-1]
        total = sum(n * pairs(p, a - 2 - p, rest) for p in range(a - 1))
        return total + sum(rest.count(x) * x * n * pairs(a - 1, x - 1, without(rest, x)) for x in set(rest))

    return pairs


def without(traces, a):
    at = traces.index(a)
    return traces[:at] + traces[at + 1 :]


def enumerated(i, j):
    """Coefficients of n, n^2, ... in P_ij from all (i + j - 1)!! pairings of the factors, counting free indices."""
    row = [0] * (i + j)
    for pairing in pairings(list(range(i + j))):
        row[free_indices(pairing, i, i + j) - 1] += 1
    while row[-1] == 0:
        row.pop()
    return row


def pairings(items):
    if not items:
        yield []
        return
    first, rest = items[0], items[1:]
    for at, other in enumerate(rest):
        for others in pairings(rest[:at] + rest[at + 1 :]):
            yield [(first, other), *others]


def free_indices(pairing, plain, factors):
    """Factor f of the trace links index f to f + 1; factors of G^T follow the plain ones, with rows on the right."""
    parent = list(range(factors))

    def root(i):
        while parent[i] != i:
            i = parent[i]
        return i

    def row_column(f):
        left, right = f, (f + 1) % factors
        return (left, right) if f < plain else (right, left)

    for one, other in pairing:
        for x, y in zip(row_column(one), row_column(other), strict=True):
            parent[root(x)] = root(y)
    return len({root(f) for f in range(factors)})


if __name__ == "__main__":
    for (i, j), row in polynomials(int(sys.argv[1])).items():
        sys.stdout.write(f"{i} {j} {' '.join(map(str, row))}\n")
