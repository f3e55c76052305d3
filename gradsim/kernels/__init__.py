"""Kernels: what draws a chain's weights and pushes vectors through them.

`keys` names the random streams, `rng` and `ops` hold the scalar arithmetic every engine shares, `reference` is
the slow NumPy oracle, `dense` the CPU engine that regenerates every weight where it is used.
"""
