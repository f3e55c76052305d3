"""How much memory this process can still get, without a dependency."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["available_memory", "format_bytes"]

_CGROUPS = Path("/sys/fs/cgroup")


def available_memory() -> int | None:
    """Return the bytes this process can still use, None where the system does not say.

    The least of what the machine has free or can free (Linux) or has at all (elsewhere), and what the limits
    of the control groups around this process leave.
    """
    found = [value for value in (_machine(), *_control_groups()) if value is not None]
    return max(0, min(found)) if found else None


def format_bytes(count: float) -> str:
    """Write a number of bytes for people: ``"512 B"``, ``"3.1 MiB"``, ``"40 GiB"``."""
    units = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
    unit = 0
    while count >= 1024 and unit < len(units) - 1:
        count, unit = count / 1024, unit + 1
    return f"{count:.0f} {units[unit]}" if unit == 0 or count >= 10 else f"{count:.1f} {units[unit]}"


def _machine() -> int | None:
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _control_groups() -> Iterator[int]:
    """Yield what the limits of this process's control groups, and of those around them, leave."""
    for line in _lines(Path("/proc/self/cgroup")):
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, limit, usage = _CGROUPS, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            root, limit, usage = _CGROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        # Inside a container the path may be the host's, and the group in force is then the root.
        group = root / path.strip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(root):
                yield from _left(folder, limit, usage)


def _left(folder: Path, limit: str, usage: str) -> Iterator[int]:
    """Yield a group's limit less its use; cache that can be dropped does not count as used."""
    allowed, used = _lines(folder / limit), _lines(folder / usage)
    if allowed and used and allowed[0].isdigit() and used[0].isdigit():
        stat = dict(line.split(" ", 1) for line in _lines(folder / "memory.stat"))
        cache = int(stat.get("total_inactive_file", stat.get("inactive_file", "0")))
        yield int(allowed[0]) - int(used[0]) + cache


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return []
