"""States as callers hand them to recurrent layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from executor.errors import StateChanged


def parts_of_state(given: Any, names: Sequence[str]) -> tuple[Tensor, ...]:
    """The parts called `names` of a tuple or list; of a state with one part, a tensor will do.

    Raises StateChanged for anything else.
    """
    parts = tuple(given) if isinstance(given, tuple | list) else (given,)
    expected = ", ".join(names)
    if len(parts) != len(names):
        raise StateChanged(f"the state has {len(parts)} parts; it is ({expected})")
    for part in parts:
        if not isinstance(part, Tensor):
            raise StateChanged(f"a part of the state ({expected}) is no tensor but {type(part).__name__}")
    return parts
