"""torch's hooks on saved tensors, which the caller may have set around a loop, taken off for a while.

What they do to tapes no plan counts: one that copies doubles them, and those of torch.utils.checkpoint keep
every tape of a second pass. So they never see one. A checkpoint sees a single saved tensor, the carrier of
the run: what it does with that, dropping it in its first pass and asking for it again in the
backward pass, it does with the run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._C import _autograd

from executor.errors import UnsupportedHook

_CHECKPOINT = "torch.utils.checkpoint"
_OURS = "executor."
_CARRIED = "_carried_for_tightfit"
_top_hooks: Any = getattr(_autograd, "_top_saved_tensors_default_hooks", None)
"""Hands out the hooks set last; torch older than 2.8 has no such function."""
_own = threading.local()


@contextmanager
def own_hooks(pack: Callable[[Tensor], Any], unpack: Callable[[Any], Tensor]) -> Iterator[None]:
    """Hooks of the executor's own, set by a function of its own: no caller's, wherever torch is asked."""
    before = getattr(_own, "are_set", False)
    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        _own.are_set = True
        try:
            yield
        finally:
            _own.are_set = before


@contextmanager
def without_saved_tensor_hooks() -> Iterator[None]:
    """Within the context tapes keep what they keep: torch.utils.checkpoint's hooks would keep nothing of
    them, and end a rehearsal where the checkpointed function's own graph is complete.
    """
    off = _silenced() if _top_hooks is None else _taken_off()
    with off:
        yield


@contextmanager
def without_callers_hooks() -> Iterator[None]:
    """Within the context, that of a run, hooks that somebody else has set see nothing of its tapes; those
    that move the tapes of a run around it to host memory do.
    """
    if _top_hooks is None or _module_of_hooks() in (None, _OURS):
        yield
        return
    with _taken_off():
        yield


def is_checkpointed() -> bool:
    """Whether torch.utils.checkpoint, in either of its two passes, is given what is saved for the backward
    pass.
    """
    return _top_hooks is not None and _module_of_hooks() == _CHECKPOINT


def require_known_hooks() -> None:
    """Raise UnsupportedHook where hooks are set around a run and torch cannot say which: they would see
    its tapes.
    """
    if _top_hooks is None and _are_set() and not getattr(_own, "are_set", False):
        raise UnsupportedHook(
            "hooks on saved tensors are set around this call, by torch.utils.checkpoint or save_on_cpu for "
            f"example, and torch {torch.__version__} does not let them be taken off while the call runs: what"
            " they keep of its tapes no budget holds. Call it outside of them, or under torch 2.8 or later"
        )


def _module_of_hooks() -> str | None:
    """Who has set the hooks that count: those set last."""
    pair = _top_hooks(True)
    if pair is None:
        return None
    name = str(getattr(pair[0], "__module__", ""))
    return _OURS if name.startswith(_OURS) else name


def carrier_of(what: Any) -> Tensor:
    """A tensor without elements that can be saved for the backward pass, and brings `what` along."""
    carrier = torch.empty(0, device="cpu")
    setattr(carrier, _CARRIED, what)
    return carrier


def unloaded(carrier: Tensor) -> Any:
    """What a carrier brings, once; None from then on."""
    return vars(carrier).pop(_CARRIED, None)


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
