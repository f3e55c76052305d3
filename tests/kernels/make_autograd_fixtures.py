"""Makes the fixtures by automatic differentiation; needs torch, a few minutes.

    python -m tests.kernels.make_autograd_fixtures

writes `autograd_fixtures.json` beside this file: for a set of chains that meets every pair of field values, each with
an index at which no quantity hangs on rounding, what torch's autograd finds in float64, and how far errors carry.
"""

from __future__ import annotations

import json

import numpy as np
import torch

from tests.kernels import autograd_cases, autograd_torch, covering

TRIES = 60


def row_of(fields, index, limit=np.inf):
    """One fixture; `condition` may be less than it is where that is above the limit."""
    chain = autograd_cases.Chain(**fields)
    values = autograd_torch.differentiate(chain, autograd_cases.SEED, index)
    condition = autograd_torch.conditions(chain, autograd_cases.SEED, index, values, limit)
    return {
        "chain": fields,
        "seed": autograd_cases.SEED,
        "index": index,
        "values": {name: [float(x) for x in v] for name, v in values.items()},
        "condition": {name: [float(f"{x:.2g}") for x in v] for name, v in condition.items()},
    }


def is_plain(row):
    """Whether all is finite, but for a cell's gradient at the output, and well conditioned."""
    for name, values in row["values"].items():
        inner = values[:-1] if name == "log_cell_grad_norm" else values
        if not np.isfinite(inner).all() or max(row["condition"][name]) > autograd_cases.CONDITION:
            return False
    return True


def accept(case):
    """The fixture of a case, at the first index where it is plain, or None."""
    fields = autograd_cases.given(case)
    for index in range(TRIES):
        if is_plain(row := row_of(fields, index, autograd_cases.CONDITION)):
            return row
    return None


def main():
    torch.set_num_threads(1)
    cases = autograd_cases
    rows = [row_of(fields, index) for fields, index in cases.MORE]
    rows += covering.covering_cases(cases.VALUES, cases.completions, cases.fits, accept)
    cases.PATH.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


if __name__ == "__main__":
    main()
