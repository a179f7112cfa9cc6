"""Steps that go by what is in their tensors: branches (`if x < 0`), loops until something has converged, rows
that a mask selects. What the first steps take says little of what later ones do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from executor.compiled import nothing_compiled
from executor.errors import UnsupportedCollective
from executor.rules.collectives import refusing_collectives

_TELLING = frozenset({torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape})
_MASKS = frozenset({torch.bool, torch.uint8})


def goes_by_values(run: Callable[[], object]) -> bool:
    """Whether a step that is run asks for numbers in tensors, or for tensors of as many rows as they say. One
    that cannot be run like this, but can be otherwise, may do so.

    Raises UnsupportedCollective.
    """
    watching = _Watching()  # type: ignore[no-untyped-call]
    try:
        with nothing_compiled(), refusing_collectives(), watching:
            run()
    except UnsupportedCollective:
        raise
    except Exception:  # of any kind: if it is not about modes, the next run raises it again
        return True
    return watching.found


class _Watching(TorchDispatchMode):  # type: ignore[no-untyped-call]
    found = False

    def __torch_dispatch__(self, function: Any, types: Any, given: Any = (), options: Any = None) -> Any:
        if not self.found and not _TELLING.isdisjoint(function.tags):
            self.found = function is not torch.ops.aten.index.Tensor or _selects(given[1])
        return function(*given, **(options or {}))


def _selects(indices: Any) -> bool:
    """Whether one of the `indices` is a mask; of places, there are as many as the indices have."""
    return any(isinstance(index, Tensor) and index.dtype in _MASKS for index in indices)
