"""A copy stream as late as it may be: a copy happens when somebody waits for it, and not before."""

from __future__ import annotations

import torch

from executor.offload.transfers import Copies, Transfer


class Late:
    """A transfer that is made when it is waited for: who forgets to wait reads what was there before."""

    def __init__(self, copies: Copies, after: Transfer | None) -> None:
        self._copies = list(copies)
        self._after = after
        for target, _ in self._copies:
            target.fill_(0xFF)  # all bits set: not a number, in every floating dtype

    def wait(self) -> None:
        if self._after is not None:
            self._after.wait()
        for target, source in self._copies:
            target.copy_(source)
        self._copies = []


class LateStream:
    """Hands out `Late` transfers."""

    def __init__(self, device: torch.device) -> None:
        assert device.type == "cpu"

    def copy(self, copies: Copies, after: Transfer | None = None) -> Transfer:
        return Late(copies, after)
