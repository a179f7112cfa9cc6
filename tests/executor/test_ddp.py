"""Under DistributedDataParallel: hooks fire once per iteration and gradients are the mean over ranks."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from executor import unroll
from executor.plan import checkpoint_every

STEPS, BATCH, SIZE, RANKS = 10, 2, 5, 2


class Model(nn.Module):
    """A recurrent model whose loop runs under a plan, or in plain Python without one."""

    def __init__(self, *, planned: bool) -> None:
        super().__init__()
        self.cell = nn.GRUCell(SIZE, SIZE).double()
        self._planned = planned

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(BATCH, SIZE)
        if not self._planned:
            for given in x:
                state = self.cell(given, state)
            return state
        plan = checkpoint_every(STEPS, 1, 3)
        return unroll(lambda s, given: (self.cell(given, s), None), state, x, plan=plan, module=self.cell)[1]


def train(rank: int, folder: str) -> None:
    """One rank: the gradients and the number of accumulations of both models."""
    torch.set_num_threads(1)
    importlib.import_module("torch.distributed.nn.functional")  # see executor.jobs.ranks: it keeps the group
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=RANKS)
    found: dict[str, Any] = {}
    for name, planned in (("plain", False), ("planned", True)):
        torch.manual_seed(0)
        model = Model(planned=planned)
        parallel = DistributedDataParallel(model)
        accumulated: list[Tensor] = []
        model.cell.weight_hh.register_post_accumulate_grad_hook(accumulated.append)
        torch.manual_seed(rank)
        parallel(torch.randn(STEPS, BATCH, SIZE, dtype=torch.float64)).square().sum().backward()
        found[name] = [parameter.grad.clone() for parameter in model.parameters()]
        found[f"{name} accumulations"] = len(accumulated)
    torch.save(found, Path(folder) / f"{rank}.pt")
    del parallel, model
    dist.destroy_process_group()  # with gloo's threads, which would abort a process that ends before them


@pytest.mark.slow
def test_two_ranks_agree_with_plain_bptt_and_accumulate_once(tmp_path: Path) -> None:
    """Reentrant checkpointing gets this silently wrong: a hook per segment, gradients off by a percent."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    mp.spawn(train, args=(str(tmp_path),), nprocs=RANKS)
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(RANKS)]
    for found in ranks:
        assert found["planned accumulations"] == found["plain accumulations"] == 1
        for ours, theirs, other in zip(found["planned"], found["plain"], ranks[0]["planned"], strict=True):
            assert (ours - theirs).abs().max() <= 1e-12
            assert torch.equal(ours, other)
