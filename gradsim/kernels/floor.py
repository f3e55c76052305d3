"""The floor under any kernel that draws a weight where it is used: one integer mixed, converted, multiplied and added.

Far too weak to draw with, and of no law: a yardstick for `gradsim bench`. The loop is that of `draws.make_backward`,
with the mixer (Appleby's MurmurHash3, fmix32) of one counter per weight in place of the generator and the law.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import register_jitable

from .bits import keep_out_of_line, prefer_wide_vectors, signed
from .compiling import kernel

f32 = np.float32
u32 = np.uint32


@register_jitable(forceinline=True)
def mixed(counter: Any) -> Any:
    """fmix32 of a counter, as a float32 in [-2^31, 2^31)."""
    x = u32(counter ^ u32(counter >> u32(16)))
    x = u32(x * u32(0x85EBCA6B))
    x = u32(x ^ u32(x >> u32(13)))
    x = u32(x * u32(0xC2B2AE35))
    return f32(signed(u32(x ^ u32(x >> u32(16)))))


@kernel
def floor_backward(seed: Any, d: Any, g: Any, columns: Any, q: Any) -> None:
    """g += M^T d for 4q rows, q even, of mixed counters from `seed` on, in float32."""
    prefer_wide_vectors()
    keep_out_of_line()
    row = u32(columns)
    group = u32(q * columns)
    for i in range(0, q, 2):
        d0, d1, d2, d3 = d[i], d[i + q], d[i + 2 * q], d[i + 3 * q]
        e0, e1, e2, e3 = d[i + 1], d[i + 1 + q], d[i + 1 + 2 * q], d[i + 1 + 3 * q]
        a0 = u32(seed + u32(i * columns))
        a1 = u32(a0 + group)
        a2 = u32(a1 + group)
        a3 = u32(a2 + group)
        b0, b1, b2, b3 = u32(a0 + row), u32(a1 + row), u32(a2 + row), u32(a3 + row)
        for j in range(columns):
            c = u32(j)
            first = (d0 * mixed(u32(a0 + c)) + d1 * mixed(u32(a1 + c))) + (
                d2 * mixed(u32(a2 + c)) + d3 * mixed(u32(a3 + c))
            )
            second = (e0 * mixed(u32(b0 + c)) + e1 * mixed(u32(b1 + c))) + (
                e2 * mixed(u32(b2 + c)) + e3 * mixed(u32(b3 + c))
            )
            g[j] += first + second
