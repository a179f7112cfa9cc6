"""What the control groups of this process leave of the host's memory, in versions 1 and 2.

A group's limit holds for all groups below it, so the least of a group and its parents counts. A container may
see its own group as the root, under a path that does not exist inside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
OF_THIS_PROCESS = Path("/proc/self/cgroup")
UNLIMITED_BYTES = 2**60
"""Version 1 writes a number of about 2^63 where there is no limit."""


@dataclass(frozen=True)
class _Version:
    """Where a version keeps its figures, and what it calls them."""

    controllers: str
    """The second field of the process's line."""
    folder: str
    limit: str
    used: str
    cache: str
    """The line of memory.stat that counts the file cache which gives way first."""


_VERSIONS = (
    _Version("", "", "memory.max", "memory.current", "inactive_file"),
    _Version("memory", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def limit_bytes() -> int | None:
    """The least limit on this process's memory, in bytes; None without any."""
    limits = [found for group, version in _groups() if (found := _limit(group, version)) is not None]
    return min(limits, default=None)


def left_bytes() -> int | None:
    """What this process's groups let it take beside what they hold, in bytes; None without a limit."""
    left = [found for group, version in _groups() if (found := _left(group, version)) is not None]
    return min(left, default=None)


def _groups() -> Iterator[tuple[Path, _Version]]:
    """The folders of this process's groups and their parents."""
    try:
        lines = OF_THIS_PROCESS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        for version in _VERSIONS:
            if version.controllers in controllers.split(","):
                yield from ((folder, version) for folder in _with_parents(ROOT / version.folder, path))


def _with_parents(root: Path, path: str) -> list[Path]:
    group = root / path.strip("/")
    return [group, *(parent for parent in group.parents if parent.is_relative_to(root))]


def _limit(group: Path, version: _Version) -> int | None:
    found = _number(group / version.limit)
    return None if found is None or found >= UNLIMITED_BYTES else found


def _left(group: Path, version: _Version) -> int | None:
    limit, used = _limit(group, version), _number(group / version.used)
    if limit is None or used is None:
        return None
    return max(0, limit - used + min(used, _cache_bytes(group, version)))


def _cache_bytes(group: Path, version: _Version) -> int:
    try:
        lines = (group / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{version.cache} ")), 0)


def _number(path: Path) -> int | None:
    """A whole number in a file; None where there is no file, or `max`."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
