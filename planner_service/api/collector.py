"""The garbage collector of a server: modules and kernels stay, answers are large and hold no cycles.

Without this, an answer of ten thousand offers is looked through several times while it is made, and all
that was imported with it: a third of its time.
"""

from __future__ import annotations

import gc

YOUNG_OBJECTS = 50_000
"""New containers before the collector looks at them; Python's own default is 700, or 2,000."""


def settle_collector() -> None:
    """Leave out what is there now, and look at new objects less often. For a process that is a server."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])
