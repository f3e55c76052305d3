"""Settings for all tests: hypothesis draws the same examples every time, and no example is timed."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("gradsim", derandomize=True, deadline=None, print_blob=False)
settings.load_profile("gradsim")
