"""Copies between the device and a tier: beside the computation on CUDA, at once on the CPU.

A copy stream starts a copy when what was computed so far is done, takes its copies one after the other,
and hands out a transfer; whoever needs the copy waits for it. Waiting is the device's business: the
Python thread goes on.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor

Copies = Iterable[tuple[Tensor, Tensor]]
"""(target, source) pairs, uint8 of equal length."""


class Transfer(Protocol):
    """A copy that was started."""

    def wait(self) -> None:
        """What is computed from here on sees the copy complete."""
        ...


class CopyStream(Protocol):
    """Takes copies in the order of their issue."""

    def copy(self, copies: Copies, after: Transfer | None = None) -> Transfer:
        """Start `copies` when the computation so far, and the transfer `after`, are done."""
        ...


class _Done:
    def wait(self) -> None:
        """There is nothing to wait for."""


DONE: Transfer = _Done()
"""A transfer that is complete."""


class AtOnce:
    """Copies where the computation itself runs: on the CPU."""

    def copy(self, copies: Copies, after: Transfer | None = None) -> Transfer:
        """Copy now."""
        if after is not None:
            after.wait()
        for target, source in copies:
            target.copy_(source)
        return DONE


class SideStream:
    """A CUDA stream of its own beside the one that computes."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def copy(self, copies: Copies, after: Transfer | None = None) -> Transfer:
        """Issue the copies; the tensors must stay alive until somebody has waited for the transfer."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            if after is not None:
                after.wait()
            for target, source in copies:
                target.copy_(source, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(self._stream)
        return _Event(event, self._device)


class _Event:
    def __init__(self, event: torch.cuda.Event, device: torch.device) -> None:
        self._event = event
        self._device = device

    def wait(self) -> None:
        torch.cuda.current_stream(self._device).wait_event(self._event)


def copy_stream(device: torch.device) -> CopyStream:
    """A new stream for copies from or to `device`."""
    return SideStream(device) if device.type == "cuda" else AtOnce()
