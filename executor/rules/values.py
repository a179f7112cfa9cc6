"""Steps that go by what is in their tensors: branches (`if x < 0`), loops until something has converged, rows
that a mask selects. What the first steps take says little of what later ones do.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from executor.compiled import nothing_compiled
from executor.errors import UnsupportedCollective
from executor.rules.collectives import refusing_collectives

_TELLING = frozenset({torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape})
_MASKS = frozenset({torch.bool, torch.uint8})


class ByValues(IntEnum):
    """What a step does that goes by what is in its tensors."""

    NOTHING = 0
    BRANCHES = 1
    """It asks whether something is so: the operations may be others, each of the same sizes."""
    SIZES = 2
    """It asks for numbers, or for tensors of as many rows as they say."""


def by_values(run: Callable[[], object]) -> ByValues:
    """What a step that is run goes by values in. One that cannot be run like this, but can be otherwise, may
    do so in all.

    Raises UnsupportedCollective.
    """
    watching = _Watching()  # type: ignore[no-untyped-call]
    try:
        with nothing_compiled(), refusing_collectives(), watching:
            run()
    except UnsupportedCollective:
        raise
    except Exception:  # of any kind: if it is not about modes, the next run raises it again
        return ByValues.SIZES
    return watching.found


class _Watching(TorchDispatchMode):  # type: ignore[no-untyped-call]
    found = ByValues.NOTHING

    def __torch_dispatch__(self, function: Any, types: Any, given: Any = (), options: Any = None) -> Any:
        if not _TELLING.isdisjoint(function.tags):
            self.found = max(self.found, _by(function, given))
        return function(*given, **(options or {}))


def _by(function: Any, given: Any) -> ByValues:
    """What a call that tells something may be asked for."""
    if function is torch.ops.aten.equal.default:
        return ByValues.BRANCHES
    if function is torch.ops.aten._local_scalar_dense.default:  # noqa: SLF001 - what `item` and `bool` come to
        return ByValues.BRANCHES if given[0].dtype is torch.bool else ByValues.SIZES
    is_no_mask = function is torch.ops.aten.index.Tensor and not _selects(given[1])
    return ByValues.NOTHING if is_no_mask else ByValues.SIZES


def _selects(indices: Any) -> bool:
    """Whether one of the `indices` is a mask; of places, there are as many as the indices have."""
    return any(isinstance(index, Tensor) and index.dtype in _MASKS for index in indices)
