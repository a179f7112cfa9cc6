"""Whether the kernel's out-of-memory killer has been at work: a SIGKILL alone does not say who sent it."""

from __future__ import annotations

import re
from pathlib import Path

_COUNTERS = (Path("/sys/fs/cgroup/memory.events"), Path("/proc/vmstat"))
"""Of this container (cgroup v2), else of the whole machine."""
_LINE = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


def oom_kills() -> int:
    """Processes that the killer has ended so far; 0 where the kernel does not count them."""
    for counter in _COUNTERS:
        try:
            match = _LINE.search(counter.read_text())
        except OSError:
            continue
        if match:
            return int(match[1])
    return 0
