"""The garbage collector of a server: modules and kernels stay, answers are large and hold no cycles.

Without this, an answer of ten thousand offers is looked through several times while it is made, and all
that was imported with it: a third of its time. So are all modules, again and again, while they load: a
fifth of the time that the service needs to start.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

YOUNG_OBJECTS = 50_000
"""New containers before the collector looks at them; Python's own default is 700, or 2,000."""


@contextmanager
def collector_paused() -> Iterator[None]:
    """Within the context what is being loaded is left alone, until `settle_collector`; for a process that
    becomes a server. Where it does not come to that, the collector works on afterwards.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def settle_collector() -> None:
    """Leave out what is there now, and look at new objects less often. For a process that is a server."""
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])
    gc.enable()
