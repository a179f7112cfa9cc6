"""How much of a hard cap must be set aside for gaps between blocks: random loops, trained under caps.

    python -m benchmarks.gpu.gaps                                     # on a device
    .venv-cuda/bin/python -m tests.cuda_stand_in --module benchmarks.gpu.gaps   # on the allocator alone

For each loop a budget is drawn between the least one and that of full BPTT, and the cap is raised until three
iterations finish under it, in a cache that other tensors have been through. Needs no numbers, so that the
stand-in, whose kernels compute none, tells as much as a device but for the workspaces of kernels.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import time
from collections import Counter
from typing import Any

import torch
from torch import nn

from benchmarks.machine import RESULTS, description
from executor import BudgetTooSmall, predict, unroll
from executor.memory.cuda_memory import cuts_every_block
from executor.memory.hard_cap import SEGMENTS_BYTES, reserved_at_most

MIB = 2**20
KINDS = ("LSTM", "GRU")
HIDDEN_SIZES = (100, 128, 200, 256, 384, 512, 777, 1024)
BATCH_SIZES = (4, 16, 31, 64, 100, 128)
LENGTHS = (50, 200, 500, 1000)
LAYERS = (1, 1, 2)
SHARES = (0.0, 0.02, 0.05, 0.1, 0.3, 0.6, 1.0)
"""Of the way from the least budget to that of full BPTT."""
RATIOS = (0.0, 0.02, 0.05, 0.1, 0.2, 1 / 3, 0.5)
"""Shares of a cap that are set aside for gaps, tried in this order."""
ITERATIONS = 3
PATHS = {
    is_expandable: RESULTS / f"gpu-gaps-{name}.json"
    for is_expandable, name in ((True, "expandable"), (False, "plain"))
}


def drawn_loop(draw: random.Random) -> tuple[str, dict[str, Any]]:
    """A name and arguments of `unroll`, the budget apart: segments of torch's modules, and some of cells."""
    kind, hidden, batch = draw.choice(KINDS), draw.choice(HIDDEN_SIZES), draw.choice(BATCH_SIZES)
    steps, layers, is_cell = draw.choice(LENGTHS), draw.choice(LAYERS), draw.random() < 0.25
    steps, shape = (min(steps, 200), (batch, hidden)) if is_cell else (steps, (layers, batch, hidden))
    module = getattr(nn, f"{kind}Cell" if is_cell else kind)(hidden, hidden, *(() if is_cell else (layers,)))
    module.cuda()
    zero = torch.zeros(shape, device="cuda")
    name = f"{module} B{batch} T{steps}"
    return name, {
        "step": cell_step(module) if is_cell else None,
        "segment": None if is_cell else segment(module),
        "state": (zero, zero.clone()) if kind == "LSTM" else zero,
        "inputs": torch.randn(steps, batch, hidden, device="cuda"),
        "module": module,
        "reduce": "sum",
        "final_state": "detached",
    }


def segment(module: nn.Module) -> Any:
    """Many steps at once, with the loss inside."""

    def run(state: Any, x: torch.Tensor) -> tuple[Any, torch.Tensor]:
        y, state = module(x, state)
        return state, y.square().sum()

    return run


def cell_step(cell: nn.Module) -> Any:
    """One step, with the loss inside."""

    def run(state: Any, x: torch.Tensor) -> tuple[Any, torch.Tensor]:
        state = cell(x, state)
        return state, (state[0] if isinstance(state, tuple) else state).square().sum()

    return run


def drawn_budget(loop: dict[str, Any], share: float) -> int:
    """In bytes; `share` of the way from the least one to that of full BPTT."""
    try:
        predict(**loop, budget=1)
    except BudgetTooSmall as refusal:
        least = refusal.minimum_budget_bytes
    return least + int(share * (predict(**loop, budget="100GiB").full_bptt_peak_bytes - least))


def used_cache(draw: random.Random) -> list[torch.Tensor]:
    """Tensors that stay, between pieces that others have left in the cache."""
    sizes = [draw.randint(1, 40) * MIB // 2 for _ in range(draw.randint(0, 12))]
    tensors = [torch.empty(size, dtype=torch.uint8, device="cuda") for size in sizes]
    return [tensor for tensor in tensors if draw.random() < 0.4]


def least_ratio(loop: dict[str, Any], budget_bytes: int) -> dict[str, Any]:
    """The first of RATIOS at which the loop finishes, and what was reserved then."""
    for ratio in RATIOS:
        cap_bytes = SEGMENTS_BYTES + int(budget_bytes / (1 - ratio))
        with reserved_at_most(cap_bytes, torch.device("cuda", 0)) as before_bytes:
            torch.cuda.reset_peak_memory_stats()
            if finishes(loop, budget_bytes):
                reserved_bytes = torch.cuda.max_memory_reserved() - before_bytes
                return {"ratio": ratio, "cap_bytes": cap_bytes, "reserved_bytes": reserved_bytes}
        gc.collect()
        torch.cuda.empty_cache()
    return {"ratio": None}


def finishes(loop: dict[str, Any], budget_bytes: int) -> bool:
    """Whether the allocator lets the iterations end."""
    module: nn.Module = loop["module"]
    try:
        for _ in range(ITERATIONS):
            module.zero_grad(set_to_none=True)
            torch.autograd.backward(unroll(**loop, budget=budget_bytes)[0])
    except torch.OutOfMemoryError:
        module.zero_grad(set_to_none=True)
        return False
    return True


def measure_all(seconds: float, seed: int) -> list[dict[str, Any]]:
    """As many loops as fit into `seconds`."""
    draw, end, found = random.Random(seed), time.monotonic() + seconds, []
    while time.monotonic() < end:
        name, loop = drawn_loop(draw)
        share = draw.choice(SHARES)
        budget_bytes = drawn_budget(loop, share)
        kept = used_cache(draw)
        found.append(
            {"loop": name, "share": share, "budget_bytes": budget_bytes, **least_ratio(loop, budget_bytes)}
        )
        del loop, kept
        gc.collect()
        torch.cuda.empty_cache()
    return found


def main() -> None:
    """Write one file per kind of segments, and print how many loops needed which share."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=300.0, help="after so many no further loop is drawn")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    about = {**description("torch"), "device": torch.cuda.get_device_name(0), "seed": given.seed}
    rows = measure_all(given.seconds, given.seed)
    path = PATHS[cuts_every_block()]
    path.write_text(json.dumps({"machine": about, "loops": rows}, indent=2) + "\n", encoding="utf-8")
    for ratio, count in sorted(
        Counter(1.0 if row["ratio"] is None else row["ratio"] for row in rows).items()
    ):
        print(
            f"{count} of {len(rows)} loops finish with {100 * ratio:.0f} % of the cap set aside, and no less"
        )
    print(f"results: {path.relative_to(RESULTS.parent.parent)}")


if __name__ == "__main__":
    main()
