"""What a call of a drop-in is refused for before anything runs, and what a refusal leaves as it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from executor.errors import UnsupportedTransform
from executor.surroundings.autocast import is_autocast
from executor.surroundings.streams import ambient_generators, set_streams


def require_no_tracing(name: str) -> None:
    """Raise UnsupportedTransform under `torch.jit.trace` and `torch.export`, which would record one plan."""
    is_exported: bool = _is_exporting()
    if is_exported or torch._C._get_tracing_state() is not None:  # noqa: SLF001 - torch.jit.is_tracing is untyped
        raise UnsupportedTransform(
            f"a call of {name} inside a byte budget cannot be traced: its plan and its backward pass are no "
            "part of a graph; trace the torch module that has the same parameters"
        )


_is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)
"""torch 2.6 has the latter alone; where a call is kept out of a compiled graph, neither is true."""


def require_sequence(name: str, given: object) -> None:
    """Raise TypeError for an input that is neither a tensor nor a packed batch."""
    if not isinstance(given, Tensor | PackedSequence):
        raise TypeError(
            f"the input of a {name} is a {type(given).__name__}, and must be a tensor or a PackedSequence"
        )


def require_dtype(weight: Tensor, x: Tensor, hx: Any) -> None:
    """Raise ValueError for an input or initial state of another type than the weights; under autocast
    kernels cast them.
    """
    if is_autocast(x.device):
        return
    state = hx if isinstance(hx, tuple | list) else (hx,)
    for name, given in [("input", x), *(("hx", part) for part in state)]:
        if isinstance(given, Tensor) and given.dtype != weight.dtype:
            raise ValueError(
                f"{name} dtype ({given.dtype}) does not match weight dtype ({weight.dtype}). Convert {name}: "
                f"{name}.to({weight.dtype}), or convert model: model.to({given.dtype})"
            )


@contextmanager
def streams_put_back(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Random streams are as before where an exception leaves the context."""
    generators = ambient_generators(tensors)
    before = [generator.get_state() for generator in generators]
    try:
        yield
    except BaseException:
        set_streams(generators, before)
        raise
