"""Host memory as the planner sees it: how many states fit, and how long one takes each way."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from executor.loop import Loop
from executor.offload.slots import HOST, Slots, is_pinned, most_slots, unpin_unused
from executor.offload.transfers import copy_stream
from executor.replay import Surroundings
from executor.rules.needs import Needs
from planner_service.chain import Chain, Tier

TIMING_ROUNDS = 5


@dataclass(frozen=True)
class HostMemory:
    """`budget_bytes` of host memory beside one loop; on CUDA pinned, in torch's powers of two."""

    budget_bytes: int
    slot_bytes: int
    """One stored state with its random streams and buffers."""
    most_states: int
    """How many fit."""
    write_seconds: float
    """One state, from the device to the host."""
    read_seconds: float
    overlapped: bool
    """Whether copies run beside the computation: on CUDA."""

    @classmethod
    def beside(cls, loop: Loop, needs: Needs, budget_bytes: int) -> HostMemory:
        """Measure the two directions for a state of `loop`."""
        tensors = [leaf for leaf in loop.initial if isinstance(leaf, Tensor)]
        surroundings: Surroundings = loop.replay(needs).take()
        slot_bytes = sum(tensor.nbytes for part in (tensors, *surroundings) for tensor in part)
        device = loop.device
        most_states = most_slots(budget_bytes, slot_bytes, rounded=is_pinned(HOST, device))
        write_seconds = read_seconds = 0.0
        if most_states:
            write_seconds, read_seconds = transfer_seconds(slot_bytes, device)
        is_overlapped = device.type == "cuda"
        return cls(budget_bytes, slot_bytes, most_states, write_seconds, read_seconds, is_overlapped)

    def tiers(self, chain: Chain) -> tuple[Tier, ...]:
        """The tier for `chain`, in its bytes and seconds; none where not even one state fits.

        A state of the chain is what the allocator counts: its budget here is that of as many states as
        there are slots.
        """
        sizes = [run.stage.state_bytes for run in chain.runs if run.stage.state_bytes]
        if not self.most_states or not sizes:
            return ()
        host = Tier(
            name=HOST,
            budget_bytes=self.most_states * min(sizes),
            write_latency_seconds=self.write_seconds,
            read_latency_seconds=self.read_seconds,
            overlapped=self.overlapped,
        )
        return (host,)


def transfer_seconds(size_bytes: int, device: torch.device) -> tuple[float, float]:
    """Seconds of one copy to the host and of one back. What was pinned for that, and for what was probed
    before, is no longer: torch would keep it beside what runs take.
    """
    try:
        return _timed_transfers(size_bytes, device)
    finally:
        unpin_unused(device)


def _timed_transfers(size_bytes: int, device: torch.device) -> tuple[float, float]:
    state = torch.zeros(size_bytes, dtype=torch.uint8, device=device)
    _, slot = Slots(HOST, count=1, slot_bytes=size_bytes, device=device).take(size_bytes)
    stream = copy_stream(device)
    write = _median_seconds(lambda: stream.copy([(slot, state)]).wait(), device)
    read = _median_seconds(lambda: stream.copy([(state, slot)]).wait(), device)
    return write, read


def _median_seconds(transfer: Callable[[], None], device: torch.device) -> float:
    times = []
    for _ in range(TIMING_ROUNDS + 1):
        _synchronize(device)
        begin = time.perf_counter()
        transfer()
        _synchronize(device)
        times.append(time.perf_counter() - begin)
    return median(times[1:])  # the first one touches the memory for the first time


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
