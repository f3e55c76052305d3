"""The engines on a GPU: the only place that imports CUDA, and nothing here is imported unless it is asked for.

A block of threads is a team (see `kernels.team`) that works through one chain; what it does is the CPU's own source,
compiled once more (`target`), except for what has to be spread over threads in another way: drawing and multiplying
(`draws`, `products`), and sums over columns (`columns`).
"""
