"""torch's hooks on saved tensors, which the caller may have set around a loop, taken off for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch._C._autograd import _pop_saved_tensors_default_hooks as _pop_hooks
from torch._C._autograd import _push_saved_tensors_default_hooks as _push_hooks
from torch._C._autograd import _top_saved_tensors_default_hooks as _top_hooks


@contextmanager
def without_saved_tensor_hooks() -> Iterator[None]:
    """Within the context tapes keep what they keep: torch.utils.checkpoint's hooks would keep nothing of
    them, and end a rehearsal where the checkpointed function's own graph is complete.
    """
    top: Any = _top_hooks
    taken = []
    while (pair := top(True)) is not None:
        taken.append(pair)
        _pop_hooks()
    try:
        yield
    finally:
        for pair in reversed(taken):
            _push_hooks(*pair)
