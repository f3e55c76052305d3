"""Values as JSON can hold them: unknown is null, infinities are "inf" and "-inf"."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def json_ready(value: Any) -> Any:
    """`value` with arrays as lists, NumPy's numbers as Python's, NaN as None and infinities as strings."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        # Most items of long lists are plain numbers.
        return [item if _is_plain(item) else json_ready(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "inf" if value > 0 else "-inf"
    return value


def _is_plain(value: Any) -> bool:
    kind = value.__class__
    return kind is int or (kind is float and math.isfinite(value))
