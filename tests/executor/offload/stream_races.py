"""Trains loops whose states or tapes move to the host under torch's sanitizer of streams, in a process of its
own: a sanitizer stays for as long as its process.

    python -m tests.executor.offload.stream_races [--without-waiting]

Writes a record for each kind of plan: how many copies other streams made, and the faults: uses of memory that
nothing puts in order. torch's own sanitizer knows tensors by where they begin; here they are known by their
storage, and two things more are watched: pinned memory of the host, and memory that is given back, which the
computing stream may get next.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field
from os import _exit, environ
from typing import Any

import torch
from torch import Tensor
from torch.cuda import _sanitizer as sanitizer

from executor import unroll
from executor.offload import transfers
from executor.plan import ExecutionPlan
from tests.executor import gpu_loops
from tests.executor.gpu_loops import fused, least_budget, with_states_on_host, with_tapes_on_host

if "stand_in" in environ.get("LD_PRELOAD", ""):
    from tests.cuda_stand_in import nothing  # noqa: F401 - no two runs of a step are alike there

gpu_loops.STEPS, gpu_loops.BATCH, gpu_loops.SIZE = 40, 8, 32
WITHOUT_WAITING = "--without-waiting"


@dataclass
class Found:
    """About one kind of plan."""

    moved: str = ""
    copies: int = 0
    faults: list[str] = field(default_factory=list)


@dataclass
class Watch:
    """What is watched now."""

    found: Found = field(default_factory=Found)
    computing: int = 0
    """The stream that the loop runs on."""


watch = Watch()


class Arguments(sanitizer.ArgumentHandler):
    """What an operator reads and writes."""

    def _handle_argument(self, value: Any, is_write: bool, metadata_only: bool, **_about: Any) -> None:
        place = _place(value)
        self.tensor_aliases.setdefault(place, [])
        if place and is_write:
            self.dataptrs_written.add(place)
        elif place and not metadata_only:
            self.dataptrs_read.add(place)


def _place(value: Any) -> int:
    """Where a tensor of the device lies, or one in pinned memory; 0 for others."""
    if not isinstance(value, Tensor) or not value.numel():
        return 0
    if value.is_cuda:
        return value.untyped_storage().data_ptr()
    return value.data_ptr() if value.is_pinned() else 0


class Events(sanitizer.EventHandler):
    """What streams do; faults are noted, not raised."""

    def _handle_kernel_launch(self, stream: int, *launched: Any) -> list[Any]:
        watch.found.copies += stream != watch.computing
        watch.found.faults += [str(fault) for fault in super()._handle_kernel_launch(stream, *launched)]
        return []

    def _handle_memory_deallocation(self, place: int) -> None:
        self.tensors_accessed.ensure_tensor_exists(place)
        uses = (self.tensors_accessed.get_write(place), *self.tensors_accessed.get_reads(place))
        watch.found.faults += [
            f"memory is given back while {use.operator} uses it"
            for use in uses
            if use is not None and not self.syncs.is_ordered_after(watch.computing, use.seq_num, use.stream)
        ]
        super()._handle_memory_deallocation(place)


def train(loop: dict[str, Any], plan: ExecutionPlan, *, is_dropped: bool = False) -> None:
    """An iteration, or a forward pass whose result nobody wants."""
    loop["module"].zero_grad(set_to_none=True)
    loss = unroll(**loop, plan=plan)[0]
    if not is_dropped:
        torch.autograd.backward(loss)


def train_on_two_streams(loop: dict[str, Any], plan: ExecutionPlan) -> None:
    """On the one that all begin with, and on another."""
    first = torch.cuda.current_stream()
    for stream in (first, torch.cuda.Stream()):
        stream.wait_stream(first)
        with torch.cuda.stream(stream):
            watch.computing = stream.cuda_stream
            for is_dropped in (False, True, False):
                train(loop, plan, is_dropped=is_dropped)
        first.wait_stream(stream)
    watch.computing = first.cuda_stream


def main() -> None:
    """Both kinds of plans, which are made before anything is watched."""
    if WITHOUT_WAITING in sys.argv:
        transfers._Event.wait = lambda _self: None  # type: ignore[method-assign]
    gru, lstm = fused("GRU"), fused("LSTM")
    states, _ = with_states_on_host(gru, int(1.1 * least_budget(gru)))
    tapes, _ = with_tapes_on_host(lstm, 2**28, segment_steps=5)
    for loop, plan in ((gru, states), (lstm, tapes)):
        train(loop, plan)
    sanitizer.ArgumentHandler, sanitizer.EventHandler = Arguments, Events  # type: ignore[misc]
    mode = sanitizer.CUDASanitizerDispatchMode()
    for moved, loop, plan in (("states", gru, states), ("tapes", lstm, tapes)):
        watch.found = Found(moved)
        with mode:
            train_on_two_streams(loop, plan)
        sys.stdout.write(json.dumps(asdict(watch.found)) + "\n")
    sys.stdout.flush()
    # torch's thread of the device may still let go of the last graph: it would be ended with the interpreter,
    # and the process with it (pytorch/pytorch#190489).
    _exit(0)


if __name__ == "__main__":
    main()
