"""Kernels that were translated before."""

from gradsim.kernels.cuda import cache, launch


def forget_kernels():
    """Translate kernels anew."""
    cache.kernel.cache_clear()
    launch.kernel.cache_clear()
