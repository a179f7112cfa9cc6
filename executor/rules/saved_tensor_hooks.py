"""torch's hooks on saved tensors, which the caller may have set around a loop, taken off for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch._C import _autograd

_top_hooks: Any = getattr(_autograd, "_top_saved_tensors_default_hooks", None)
"""Hands out the hooks set last; torch 2.6 has no such function."""


@contextmanager
def without_saved_tensor_hooks() -> Iterator[None]:
    """Within the context tapes keep what they keep: torch.utils.checkpoint's hooks would keep nothing of
    them, and end a rehearsal where the checkpointed function's own graph is complete.
    """
    off = _silenced() if _top_hooks is None else _taken_off()
    with off:
        yield


@contextmanager
def _taken_off() -> Iterator[None]:
    taken = []
    while (pair := _top_hooks(True)) is not None:
        taken.append(pair)
        _autograd._pop_saved_tensors_default_hooks()  # noqa: SLF001 - it has no public name
    try:
        yield
    finally:
        for pair in reversed(taken):
            _autograd._push_saved_tensors_default_hooks(*pair)  # noqa: SLF001


@contextmanager
def _silenced() -> Iterator[None]:
    """Hooks that cannot be read cannot be put back. A thread that traces calls none, not even those
    that a step sets itself, whose tapes then count in full: so only where the caller has set some.
    """
    if not _are_set():
        yield
        return
    before = _autograd._saved_tensors_hooks_set_tracing(True)  # noqa: SLF001
    try:
        yield
    finally:
        _autograd._saved_tensors_hooks_set_tracing(before)  # noqa: SLF001


def _are_set() -> bool:
    """Torch refuses to switch hooks off while some are set, and that is the one way to learn of them."""
    refusal = _autograd._saved_tensors_hooks_get_disabled_error_message()  # noqa: SLF001
    try:
        _autograd._saved_tensors_hooks_disable("asked by tightfit whether hooks are set")  # noqa: SLF001
    except RuntimeError:
        return True
    finally:
        if refusal is None:
            _autograd._saved_tensors_hooks_enable()  # noqa: SLF001
        else:
            _autograd._saved_tensors_hooks_disable(refusal)  # noqa: SLF001
    return False
