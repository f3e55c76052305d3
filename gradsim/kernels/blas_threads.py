"""BLAS on one thread while engines use it: sums in one order, and no threads in the way of those of a run."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_lock = threading.Lock()
_users = 0
_limits: Any = None


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold SciPy's BLAS to one thread; the last of several users lets it go again."""
    global _users, _limits
    with _lock:
        if _users == 0:
            import scipy.linalg.cython_blas  # noqa: F401 (the library has to be loaded to be limited)
            from threadpoolctl import threadpool_limits

            _limits = threadpool_limits(1, user_api="blas")
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _limits.restore_original_limits()
