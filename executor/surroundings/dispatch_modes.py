"""Modes that see every operation below autograd (TorchDispatchMode): steps run again under those that they
ran under, and the backward pass between them under those that the caller has by then.

torch's own modes, which count operations, keep values for a checkpoint or trace, stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils import _python_dispatch as dispatch

from executor.surroundings.reads import is_library

Modes = tuple[Any, ...]
"""From the outermost to the innermost."""


def modes_now() -> Modes:
    """The caller's own, in this thread."""
    return tuple(mode for mode in _all() if not _is_torchs(mode)) if _are_any() else ()


@contextmanager
def under(modes: Modes) -> Iterator[None]:
    """Within the context the caller's modes are these."""
    if modes_now() == modes:
        yield
        return
    everything = _all()
    taken = [dispatch._pop_mode() for _ in everything]  # noqa: SLF001 - no other way in
    put = [*filter(_is_torchs, everything), *modes]
    for mode in put:
        dispatch._push_mode(mode)  # noqa: SLF001
    try:
        yield
    finally:
        for _ in put:
            dispatch._pop_mode()  # noqa: SLF001
        for mode in reversed(taken):
            dispatch._push_mode(mode)  # noqa: SLF001


def _are_any() -> bool:
    """Asked whenever steps run again."""
    return bool(torch._C._len_torch_dispatch_stack())  # noqa: SLF001


def _all() -> Modes:
    return tuple(dispatch._get_current_dispatch_mode_stack())  # noqa: SLF001


def _is_torchs(mode: Any) -> bool:
    return is_library(type(mode).__module__)
