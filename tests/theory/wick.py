"""P_k(n) = E tr G^k (G^k)^T for a real Gaussian G with unit entries, in two ways that share nothing.

``python -m tests.theory.wick 24`` prints the table that gradsim/theory/recurrent_moments.txt holds.
"""

from __future__ import annotations

import sys


def polynomials(largest):
    """Coefficients of n, n^2, ..., n^{k+1} of P_1, ..., P_largest, by Stein's lemma.

    Integrating by parts over the outermost factor of G^c u in M = E (G^b u, G^c u) prod_i tr G^{a_i}, |u| =
    1, gives such expectations with two factors fewer. One evaluation at a large power of ten shows all
    coefficients.
    """
    base = 10**60
    pairs = pair_moments(base)
    rows = []
    for k in range(1, largest + 1):
        value, row = pairs(k, k, ()) * base, []
        while value:
            value, digit = divmod(value, base)
            row.append(digit)
        rows.append(row[1:])
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


def enumerated(k):
    """Coefficients of n, n^2, ..., n^{k+1} in P_k from all (2k - 1)!! pairings of the 2k factors, counting
    free indices.
    """
    row = [0] * (k + 1)
    for pairing in pairings(list(range(2 * k))):
        row[free_indices(pairing, k) - 1] += 1
    return row


def pairings(items):
    if not items:
        yield []
        return
    first, rest = items[0], items[1:]
    for at, other in enumerate(rest):
        for others in pairings(rest[:at] + rest[at + 1 :]):
            yield [(first, other), *others]


def free_indices(pairing, k):
    """Factor j of the trace links index j to j + 1; a factor of G^T has its row on the right."""
    parent = list(range(2 * k))

    def root(i):
        while parent[i] != i:
            i = parent[i]
        return i

    def row_column(j):
        left, right = j, (j + 1) % (2 * k)
        return (left, right) if j < k else (right, left)

    for one, other in pairing:
        for x, y in zip(row_column(one), row_column(other), strict=True):
            parent[root(x)] = root(y)
    return len({root(i) for i in range(2 * k)})


if __name__ == "__main__":
    for line in polynomials(int(sys.argv[1])):
        sys.stdout.write(" ".join(map(str, line)) + "\n")
