"""LSTM and GRU with zero bias, near h = 0: the rate at which gradients vanish.

At h = c = 0 every gate is 1/2, an LSTM's forget gate f = sigmoid(forget_bias), and a step is linear. LSTM: c' = (f +
U/4) c with h = c/2, U the matrix of the candidate; GRU: h' = (1/2 + U/4) h. The largest eigenvalues of f + U/4 have
modulus f + gain/4 as the width grows (circular law; Haar-orthogonal U has its eigenvalues on the circle). Where that is
below 1 the state falls to 0 and the gradient with it. Beyond it h stays away from 0 and the law does not hold; nor does
it with a bias or input noise.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from gradsim.chain import Chain
from gradsim.theory.law import Law
from gradsim.theory.mean_field import limit_law, mixes


def near_zero(chain: Chain) -> Law | None:
    """rate = ln(f + gain/4) where that is negative, f = 1/2 or sigmoid(forget_bias); the first steps have no law.

    W = gain I is left out: each unit then has stable states of its own away from 0 (GRU, gain 1.5).
    """
    if chain.biases.any() or chain.input_noise or not mixes(chain):
        return None
    forget = math.exp(-math.log1p(math.exp(-chain.forget_bias))) if chain.forget_bias > -500.0 else 0.0
    growth = forget + float(chain.gains[0]) / 4.0
    if not 0.0 < growth < 1.0:
        return None
    source = "largest eigenvalue of one step at h = 0; h_0 is not yet near 0, so no law of the mean"
    unknown = np.full(chain.depth, math.nan)
    return replace(limit_law(chain, "gated-near-zero", [source], unknown, math.log(growth)), log_second_moment=None)
