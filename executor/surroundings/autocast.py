"""Autocast as the forward pass had it: `backward` is usually called outside of its context."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_CAST = (torch.float16, torch.bfloat16, torch.float32)
"""Types from and to which autocast casts."""


def autocast_to(dtype: torch.dtype, given: Tensor) -> Tensor:
    """`given` in `dtype`, where autocast would cast it; as it is elsewhere."""
    casts = given.dtype in _CAST and dtype in _CAST and is_autocast(given.device)
    return given.to(dtype) if casts else given


def is_autocast(device: torch.device) -> bool:
    """Whether kernels of that device cast what they are given; on the meta device there is no autocast."""
    kind = device.type
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)


@dataclass(frozen=True)
class AutocastState:
    """Autocast as it is for one device type and the CPU."""

    devices: tuple[tuple[str, bool, torch.dtype], ...]
    cache: bool

    @classmethod
    def now(cls) -> AutocastState:
        """The state of this thread."""
        types = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
        return cls(
            tuple((kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in types),
            torch.is_autocast_cache_enabled(),
        )

    @property
    def is_enabled(self) -> bool:
        """True when any device autocasts."""
        return any(enabled for _, enabled, _ in self.devices)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Within the context autocast is as it was then, whatever it is in this thread."""
        with ExitStack() as stack:
            for kind, enabled, dtype in self.devices:
                if enabled or torch.is_autocast_enabled(kind):
                    context: Any = torch.autocast(
                        kind, dtype=dtype, enabled=enabled, cache_enabled=self.cache
                    )
                    stack.enter_context(context)
            yield
