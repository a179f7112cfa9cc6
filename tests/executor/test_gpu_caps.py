"""On a CUDA device with expandable segments: hard caps, and blocks that are cut to size. `make gpu` gives
these tests such a process.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from executor import measure
from executor.memory.cuda_memory import cuts_every_block, most_block_bytes
from executor.memory.hard_cap import cap_bytes_for, hard_cap
from tests.executor.gpu_loops import between, fused, trained

pytestmark = pytest.mark.gpu

MIB = 2**20


@pytest.fixture(autouse=True)
def _expandable_segments() -> Iterator[None]:
    if not cuts_every_block():
        pytest.skip("needs a process with PYTORCH_ALLOC_CONF=expandable_segments:True")
    torch.cuda.empty_cache()
    yield
    torch.cuda.empty_cache()


def test_every_block_is_cut_to_size() -> None:
    """8.5 MiB out of a free piece of 9 MiB take 8.5 MiB."""
    held = [torch.empty(mib * MIB, dtype=torch.uint8, device="cuda") for mib in (9, 11)]
    del held[0]
    size = 17 * MIB // 2 + 1
    found = measure(lambda: torch.empty(size, dtype=torch.uint8, device="cuda"))
    assert found.peak_bytes == most_block_bytes(size) == size + 511
    assert found.requested_peak_bytes == size


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_training_finishes_under_a_hard_cap_of_the_budget(kind: str) -> None:
    """The allocator is told to refuse more than the budget, its segments and their gaps included."""
    loop = fused(kind)
    cap = cap_bytes_for(between(loop, 0.125))
    with hard_cap(cap) as budget:
        before = torch.cuda.memory_reserved()
        torch.cuda.reset_peak_memory_stats()
        trained(loop, budget)
        assert torch.cuda.max_memory_reserved() - before <= cap
    assert loop["module"].weight_hh_l0.grad is not None


def test_the_cap_refuses_what_exceeds_it() -> None:
    """And afterwards the device is free again."""
    cap = 64 * MIB
    with hard_cap(cap), pytest.raises(torch.OutOfMemoryError):
        torch.empty(cap + 4 * MIB, dtype=torch.uint8, device="cuda")
    torch.empty(cap + 4 * MIB, dtype=torch.uint8, device="cuda")
