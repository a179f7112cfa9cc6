"""The garbage collector of a server: modules and kernels stay, answers are large and hold no cycles.

Without this, an answer of ten thousand offers is looked through several times while it is made, and all
that was imported with it: a third of its time. So are all modules, again and again, while they load: a
fifth of the time that the service needs to start.
"""

from __future__ import annotations

import gc

YOUNG_OBJECTS = 50_000
"""New containers before the collector looks at them; Python's own default is 700, or 2,000."""


def pause_collector() -> None:
    """Leave what is being loaded alone, in a process that becomes a server, until `settle_collector`."""
    gc.disable()


def settle_collector() -> None:
    """Leave out what is there now, and look at new objects less often. For a process that is a server."""
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])
    gc.enable()
