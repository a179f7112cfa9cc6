"""Data parallelism: one job on several processes, each with its share of the batch, as torchrun starts them.

    torchrun --standalone --nproc-per-node 2 -m executor.cli run job.yaml

Every rank plans for its own share under the job's budget, which is thus per rank; the gradients are averaged
by DistributedDataParallel, whose hooks fire once per iteration under a plan.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from executor.jobs.data import CharacterStreams, character_streams
from executor.jobs.job import InvalidJob, Job
from executor.jobs.models import Window
from executor.jobs.training import PlannedLoss
from executor.measure import default_device
from executor.memory.device import free_bytes
from executor.plan import ExecutionPlan

Forward = Callable[[Window, ExecutionPlan], Tensor]
"""The mean loss of a window under a plan."""


class _PlannedModule(nn.Module):
    """A planned loss as a module, so that DistributedDataParallel can look after its parameters."""

    def __init__(self, loss: PlannedLoss) -> None:
        super().__init__()
        self.model = loss.model
        self._loss = loss

    def forward(self, window: Window, plan: ExecutionPlan) -> Tensor:
        """The mean loss over this rank's share."""
        return self._loss.forward(window, plan)


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """The processes of a job, and which of them this one is."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1
    """Processes on this node."""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Ranks:
        """What torchrun says in the environment; a single process without it."""
        if "WORLD_SIZE" not in environ or "RANK" not in environ:
            return cls()
        return cls(
            rank=int(environ["RANK"]),
            count=int(environ["WORLD_SIZE"]),
            local_rank=int(environ.get("LOCAL_RANK", "0")),
            local_count=int(environ.get("LOCAL_WORLD_SIZE", "1")),
        )

    @property
    def is_first(self) -> bool:
        """Whether this process writes and reports for all."""
        return self.rank == 0

    @contextmanager
    def joined(self) -> Iterator[None]:
        """In touch with the other ranks: NCCL between GPUs, gloo between CPUs. Alone, nothing happens.

        Afterwards gloo's threads have ended: one that lets go of a tensor while Python shuts down aborts the
        process. No barrier before that: the ranks' last exchange is a gathering, which each has ended.
        """
        if self.count == 1:
            yield
            return
        # DistributedDataParallel imports it, and its functions' defaults are the group that there is by then:
        # imported later, they keep the group, and with it the threads, to the end of the process.
        importlib.import_module("torch.distributed.nn.functional")
        dist.init_process_group("nccl" if self.device().type == "cuda" else "gloo")
        try:
            yield
        finally:
            dist.destroy_process_group()

    def device(self) -> torch.device:
        """The device of this rank: the GPU of its local number, where there is CUDA."""
        device = default_device()
        if device.type != "cuda" or self.count == 1:
            return device
        torch.cuda.set_device(self.local_rank)
        return torch.device("cuda", self.local_rank)

    def device_bytes(self) -> int | None:
        """Of what the budget "free" may take: ranks on one host share its memory. None: all that is free."""
        device = self.device()
        return free_bytes(device) // self.local_count if self.count > 1 and device.type == "cpu" else None

    def share(self, job: Job) -> Job:
        """The job of this rank. Raises InvalidJob when the batch cannot be shared equally."""
        if self.count == 1:
            return job
        batch_size = job.sequence.batch_size
        if batch_size % self.count:
            reason = f"{batch_size} sequences cannot be shared equally by {self.count} processes"
            raise InvalidJob("sequence.batch_size", reason)
        if job.training.gradient_sparsity is not None:
            reason = f"gradients are sparsified in one process only, not in {self.count}"
            raise InvalidJob("training.gradient_sparsity", reason)
        share = dataclasses.replace(job.sequence, batch_size=batch_size // self.count)
        return dataclasses.replace(job, sequence=share)

    def streams(self, job: Job) -> CharacterStreams:
        """The streams of this rank, of those of the job. Raises InvalidJob when the text is too short."""
        streams = character_streams(job.data, job.sequence)
        width = streams.indices.shape[1] // self.count
        columns = streams.indices[:, self.rank * width : (self.rank + 1) * width]
        return dataclasses.replace(streams, indices=columns.contiguous())

    def forward(self, loss: PlannedLoss) -> Forward:
        """The planned loss; its backward pass leaves the mean gradient over all ranks."""
        if self.count == 1:
            return loss.forward
        # Gradients that are views of the buckets that are sent: no second copy of them.
        parallel: Forward = DistributedDataParallel(_PlannedModule(loss), gradient_as_bucket_view=True)
        return parallel

    def mean(self, numbers: Sequence[float]) -> list[float]:
        """The mean over all ranks, number by number."""
        return [sum(column) / self.count for column in zip(*self.gathered(list(numbers)), strict=True)]

    def gathered(self, found: list[float]) -> list[list[float]]:
        """What every rank has found, in the order of the ranks."""
        if self.count == 1:
            return [found]
        everyones: list[list[float]] = [[] for _ in range(self.count)]
        dist.all_gather_object(everyones, found)
        return everyones
